//! Values of what keeps a service up: ports, restarts, the order of starts, networks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ValueError;
use super::error::word;

/// One entry of `ports`: `[ADDRESS:]HOST:WORKLOAD[/PROTOCOL]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Port {
    /// The host's address on which it listens.
    pub address: IpAddr,
    /// The host's port.
    pub host: u16,
    /// The workload's port.
    pub workload: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// When a workload that has ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Restart {
    /// Never.
    No,
    /// When its status was not 0; at most so many times, if a number is given.
    OnFailure(Option<u32>),
    /// Whenever it ends.
    Always,
    /// Whenever it ends, unless the user stopped it.
    UnlessStopped,
}

/// What another workload must have come to before this one starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It runs.
    Started,
    /// Its health check passes.
    Healthy,
    /// It has ended with status 0.
    Completed,
}

/// `network.mode` as written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Network {
    /// Loopback only.
    None,
    /// A network of its own, behind the host's addresses.
    Nat,
    /// A bridge of the host, by its interface's name.
    Bridge(String),
    /// The host's own network.
    Host,
}

/// The loopback address, on which ports are bound unless another is given.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The most bytes of an interface's name: `IFNAMSIZ` - 1 (net/if.h).
const INTERFACE_LIMIT: usize = 15;

impl FromStr for Port {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        const HELP: &str = "write \"8080:8080\" or \"127.0.0.1:8080:80/udp\"";
        let malformed = || ValueError::malformed(text, "a port", HELP);
        let (rest, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((rest, "tcp")) => (rest, Protocol::Tcp),
            Some((rest, "udp")) => (rest, Protocol::Udp),
            Some(_) => return Err(malformed()),
        };
        let (rest, workload) = rest.rsplit_once(':').ok_or_else(malformed)?;
        let (address, host) = match rest.rsplit_once(':') {
            None => (LOOPBACK, rest),
            Some((address, host)) => {
                // An IPv6 address stands in brackets, so that its colons are its own.
                let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
                let parsed: IpAddr = bare.unwrap_or(address).parse().map_err(|_| malformed())?;
                if parsed.is_ipv6() != bare.is_some() {
                    return Err(malformed());
                }
                (parsed, host)
            }
        };
        let number = |text: &str| match text.parse::<u16>() {
            Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
            Ok(_) => Err(malformed()),
            Err(_) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
                Err(ValueError::range(&text, "1 to 65535"))
            }
            Err(_) => Err(malformed()),
        };
        Ok(Self { address, host: number(host)?, workload: number(workload)?, protocol })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            LOOPBACK => {}
            IpAddr::V4(address) => write!(f, "{address}:")?,
            IpAddr::V6(address) => write!(f, "[{address}]:")?,
        }
        let protocol = if self.protocol == Protocol::Udp { "/udp" } else { "" };
        write!(f, "{}:{}{protocol}", self.host, self.workload)
    }
}

impl FromStr for Restart {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if let Some(times) = text.strip_prefix("on-failure:") {
            let digits = times.bytes().all(|b| b.is_ascii_digit());
            let times = times.parse().ok().filter(|times| digits && *times > 0);
            return times.map(|times| Self::OnFailure(Some(times))).ok_or_else(|| {
                ValueError::malformed(
                    text,
                    "a restart rule",
                    "write a number, such as \"on-failure:3\"",
                )
            });
        }
        let words = [
            ("no", Self::No),
            ("on-failure", Self::OnFailure(None)),
            ("always", Self::Always),
            ("unless-stopped", Self::UnlessStopped),
        ];
        word("restart rule", text, &words)
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure(None) => f.write_str("on-failure"),
            Self::OnFailure(Some(times)) => write!(f, "on-failure:{times}"),
            Self::Always => f.write_str("always"),
            Self::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

impl FromStr for Condition {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let words = [
            ("started", Self::Started),
            ("healthy", Self::Healthy),
            ("completed", Self::Completed),
        ];
        word("condition", text, &words)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Started => "started",
            Self::Healthy => "healthy",
            Self::Completed => "completed",
        })
    }
}

impl FromStr for Network {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if let Some(name) = text.strip_prefix("bridge:") {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
            let fits = (1..=INTERFACE_LIMIT).contains(&name.len()) && name.bytes().all(plain);
            return if fits && name != "." && name != ".." {
                Ok(Self::Bridge(name.to_owned()))
            } else {
                let help = "name an interface of the host, such as \"bridge:br0\"";
                Err(ValueError::malformed(text, "a network", help))
            };
        }
        match text {
            "none" => Ok(Self::None),
            "nat" => Ok(Self::Nat),
            "host" => Ok(Self::Host),
            _ => Err(ValueError::unknown("network", text, &["none", "nat", "bridge:NAME", "host"])),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Nat => f.write_str("nat"),
            Self::Bridge(name) => write!(f, "bridge:{name}"),
            Self::Host => f.write_str("host"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads_back<T: FromStr<Err = ValueError> + fmt::Display>(good: &[&str], bad: &[&str]) {
        for text in good {
            let value: T = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(value.to_string(), *text);
        }
        for text in bad {
            assert!(text.parse::<T>().is_err(), "{text}");
        }
    }

    #[test]
    fn ports() {
        reads_back::<Port>(
            &["8080:80", "0.0.0.0:8080:80/udp", "[::1]:53:53", "65535:1"],
            &[
                "",
                "8080",
                "0:80",
                "80:0",
                "65536:80",
                "a:80",
                "80:",
                ":80",
                "+80:80",
                "1.2.3:80:80",
                "::1:80:80",
                "[127.0.0.1]:80:80",
                "80:80/sctp",
                "80:80/tcp/tcp",
                "3000-3005:80",
            ],
        );
        let port: Port = "127.0.0.1:8080:80/tcp".parse().expect("valid");
        assert_eq!(port.to_string(), "8080:80");
    }

    #[test]
    fn restarts() {
        reads_back::<Restart>(
            &["no", "on-failure", "on-failure:3", "always", "unless-stopped"],
            &["", "yes", "on-failure:", "on-failure:0", "on-failure:x", "on-failure:+1"],
        );
    }

    #[test]
    fn conditions_and_networks() {
        reads_back::<Condition>(&["started", "healthy", "completed"], &["", "done"]);
        reads_back::<Network>(
            &["none", "nat", "host", "bridge:br0"],
            &["", "bridge", "bridge:", "bridge:..", "bridge:a/b", "bridge:aaaaaaaaaaaaaaaa"],
        );
    }
}
