//! What `image` can be.

use std::fmt;
use std::str::FromStr;

use super::ValueError;

/// What `image` can be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Image {
    /// This machine's own root.
    Host,
    /// An image of a registry.
    Registry(ImageReference),
}

/// A reference to an image of a registry, checked against the grammar of the distribution
/// reference: `[REGISTRY/]NAME[:TAG][@sha256:DIGEST]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageReference(String);

/// The most bytes of a name with its registry (the OCI distribution spec's advice, section
/// "Pulling manifests").
const NAME_LIMIT: usize = 255;

const HELP: &str = "write \"host\", or a reference such as \"ghcr.io/acme/api:1.4\"";

impl FromStr for Image {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "" => Err(ValueError::Empty { what: "an image" }),
            "host" => Ok(Self::Host),
            _ if is_reference(text) => Ok(Self::Registry(ImageReference(text.to_owned()))),
            _ => Err(ValueError::malformed(text, "an image reference", HELP)),
        }
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Registry(ImageReference(text)) => f.write_str(text),
        }
    }
}

fn is_reference(text: &str) -> bool {
    let (text, digest) = match text.split_once('@') {
        Some((text, digest)) => (text, Some(digest)),
        None => (text, None),
    };
    // The tag's colon comes after the last slash; a colon before it is the registry's port.
    let (path, last) = match text.rsplit_once('/') {
        Some((path, last)) => (Some(path), last),
        None => (None, text),
    };
    let (last, tag) = match last.split_once(':') {
        Some((last, tag)) => (last, Some(tag)),
        None => (last, None),
    };
    let mut parts: Vec<&str> = path.map(|path| path.split('/').collect()).unwrap_or_default();
    if parts.first().is_some_and(|first| is_registry(first)) {
        parts.remove(0);
    }
    text.len() <= NAME_LIMIT
        && parts.into_iter().chain([last]).all(is_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
}

/// A host with a dot or a port, or `localhost`.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let label = |label: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !label.is_empty()
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (host.contains('.') || port.is_some() || host == "localhost")
        && host.split('.').all(label)
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Runs of `a-z 0-9` with one `.`, `_`, `__` or any number of `-` between them.
fn is_component(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let separators = text.split(|c: char| u8::try_from(c).is_ok_and(plain));
    let ends = |text: &str| {
        text.bytes().next().is_some_and(plain) && text.bytes().last().is_some_and(plain)
    };
    ends(text)
        && separators
            .filter(|separator| !separator.is_empty())
            .all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let digest = format!("alpine@sha256:{}", "0af".repeat(22).get(..64).expect("64"));
        for text in [
            "alpine",
            "alpine:3.20",
            "library/alpine",
            "ghcr.io/acme/api:1.4",
            "localhost/x",
            "localhost:5000/x:y",
            "registry.example.com:443/a/b/c:latest",
            "a__b/c-d/e--f.g",
            &digest,
        ] {
            let image: Image = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert!(matches!(image, Image::Registry(_)));
            assert_eq!(image.to_string(), text);
        }
        assert_eq!("host".parse(), Ok(Image::Host));
        for text in [
            "",
            "Alpine",
            "a//b",
            "/a",
            "a/",
            "a:",
            ":a",
            "a:b:c",
            "a b",
            "a._b",
            "-a",
            "a-",
            "ä",
            "a@sha256:00",
            "a@md5:00",
            "host:0/x",
            "ex.com:99999/x",
            "http://x/y",
            &"x".repeat(256),
        ] {
            assert!(text.parse::<Image>().is_err(), "{text}");
        }
    }
}
