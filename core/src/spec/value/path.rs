//! Paths inside the workload, and paths of the host as written.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ValueError;

/// An absolute path inside the workload's root, without `.`, `..`, empty components or NUL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GuestPath(String);

/// A path of the host as written in a spec: absolute, below the user's home (`~/x`), or relative
/// to the spec file's directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPath(String);

/// The most bytes of a path without its closing NUL: `PATH_MAX` - 1 (limits.h).
const PATH_LIMIT: usize = 4095;

/// The most bytes of one component: `NAME_MAX` (limits.h).
const COMPONENT_LIMIT: usize = 255;

impl GuestPath {
    /// The path as text; it starts with `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The root itself.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// Its components, the outermost first; none for the root.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|component| !component.is_empty())
    }

    /// Whether it is `other` or below it.
    pub fn is_within(&self, other: &Self) -> bool {
        other.is_root()
            || self
                .0
                .strip_prefix(&other.0)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for GuestPath {
    type Err = ValueError;

    /// Drops `.` and empty components; refuses `..`, which would mean something else on each root.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        const WHAT: &str = "a path inside the workload";
        check_text(WHAT, text)?;
        if !text.starts_with('/') {
            return Err(ValueError::malformed(text, WHAT, "it must start with /"));
        }
        let mut path = String::with_capacity(text.len());
        for component in text.split('/').filter(|c| !c.is_empty() && *c != ".") {
            if component == ".." {
                return Err(ValueError::malformed(text, WHAT, "it must not hold .."));
            }
            if component.len() > COMPONENT_LIMIT {
                let (what, length) = ("a file name", component.len());
                return Err(ValueError::TooLong { what, length, limit: COMPONENT_LIMIT });
            }
            path.push('/');
            path.push_str(component);
        }
        Ok(if path.is_empty() { Self::root() } else { Self(path) })
    }
}

impl TryFrom<String> for GuestPath {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl TryFrom<&Path> for GuestPath {
    type Error = ValueError;

    fn try_from(path: &Path) -> Result<Self, ValueError> {
        match path.to_str() {
            Some(text) => text.parse(),
            None => Err(ValueError::malformed(
                &path.to_string_lossy(),
                "a path inside the workload",
                "it must be UTF-8",
            )),
        }
    }
}

impl From<GuestPath> for String {
    fn from(path: GuestPath) -> Self {
        path.0
    }
}

impl fmt::Display for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl HostPath {
    /// The path as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The absolute path that is meant: a leading `~` is `home`, and what is relative is below
    /// `base`. `.` and `..` are taken out of the text, as a shell's `cd` does, so that a policy
    /// sees the path that is used.
    ///
    /// # Errors
    /// When it starts with `~` and there is no home.
    pub fn resolve(&self, base: &Path, home: Option<&Path>) -> Result<PathBuf, ValueError> {
        let meant = match (self.0.strip_prefix('~'), home) {
            (None, _) => base.join(&self.0),
            (Some(below), Some(home)) => home.join(below.trim_start_matches('/')),
            (Some(_), None) => {
                let help = "HOME is not set; write the whole path";
                return Err(ValueError::malformed(&self.0, "a path that can be found", help));
            }
        };
        let mut path = PathBuf::from("/");
        for component in meant.components() {
            match component {
                Component::Normal(name) => path.push(name),
                Component::ParentDir => drop(path.pop()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Ok(path)
    }
}

impl FromStr for HostPath {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        const WHAT: &str = "a path";
        check_text(WHAT, text)?;
        if text.starts_with('~') && text != "~" && !text.starts_with("~/") {
            let help = "only your own home is known: ~/...; for a file of this name write ./~...";
            return Err(ValueError::malformed(text, WHAT, help));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check_text(what: &'static str, text: &str) -> Result<(), ValueError> {
    match text.len() {
        0 => Err(ValueError::Empty { what }),
        length if length > PATH_LIMIT => {
            Err(ValueError::TooLong { what, length, limit: PATH_LIMIT })
        }
        _ if text.contains('\0') => Err(ValueError::malformed(text, what, "it must not hold NUL")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_paths() {
        for (text, path) in [
            ("/", "/"),
            ("//", "/"),
            ("/.", "/"),
            ("/app", "/app"),
            ("/app/", "/app"),
            ("/a//b/./c", "/a/b/c"),
            ("/a b/ü", "/a b/ü"),
            ("/...", "/..."),
        ] {
            assert_eq!(text.parse::<GuestPath>().map(String::from).as_deref(), Ok(path));
        }
        let long = format!("/{}", "x".repeat(256));
        for text in ["", "app", "./app", "/..", "/a/../b", "/a\0b", &long, &"/x".repeat(3000)] {
            assert!(text.parse::<GuestPath>().is_err(), "{text}");
        }
    }

    #[test]
    fn containment_is_by_component() {
        let path = |text: &str| text.parse::<GuestPath>().expect(text);
        for (inner, outer, within) in [
            ("/a/b", "/a", true),
            ("/a", "/a", true),
            ("/ab", "/a", false),
            ("/a", "/", true),
            ("/", "/a", false),
        ] {
            assert_eq!(path(inner).is_within(&path(outer)), within, "{inner} {outer}");
        }
    }

    #[test]
    fn host_paths_resolve() {
        let (base, home) = (Path::new("/work/repo"), Path::new("/home/me"));
        for (text, meant) in [
            ("./src", "/work/repo/src"),
            ("src", "/work/repo/src"),
            (".", "/work/repo"),
            ("..", "/work"),
            ("../../../../x", "/x"),
            ("/etc/./x/../y", "/etc/y"),
            ("~", "/home/me"),
            ("~/.env", "/home/me/.env"),
            ("~//etc", "/home/me/etc"),
        ] {
            let path: HostPath = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(path.resolve(base, Some(home)).as_deref(), Ok(Path::new(meant)), "{text}");
        }
        for text in ["", "a\0", "~root/x"] {
            assert!(text.parse::<HostPath>().is_err(), "{text}");
        }
        let path: HostPath = "~/x".parse().expect("valid");
        assert!(path.resolve(base, None).is_err());
    }
}
