//! Signals by name and number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ValueError;

/// A Linux signal number, 1 to 64 (signal(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Signal(u8);

/// The standard signals of x86 and ARM, number 1 first (signal(7)).
const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// Other names of some (signal(7)).
const ALIASES: [(&str, u8); 3] = [("SIGIOT", 6), ("SIGPOLL", 29), ("SIGCLD", 17)];

/// The first real-time signal as programs see it: the C libraries keep 32 and 33 (signal(7)).
const RTMIN: u8 = 34;
/// The last.
const RTMAX: u8 = 64;

impl Signal {
    /// `SIGHUP`.
    pub const HUP: Self = Self(1);
    /// `SIGINT`.
    pub const INT: Self = Self(2);
    /// `SIGQUIT`.
    pub const QUIT: Self = Self(3);
    /// `SIGKILL`.
    pub const KILL: Self = Self(9);
    /// `SIGTERM`.
    pub const TERM: Self = Self(15);
    /// `SIGCONT`.
    pub const CONT: Self = Self(18);
    /// `SIGSTOP`.
    pub const STOP: Self = Self(19);
    /// `SIGWINCH`.
    pub const WINCH: Self = Self(28);

    /// The signal with this number, if it is one of Linux's 1 to 64.
    pub const fn from_number(number: i32) -> Option<Self> {
        if number >= 1 && number <= 64 { Some(Self(number.to_le_bytes()[0])) } else { None }
    }

    /// Its number.
    pub const fn number(self) -> i32 {
        self.0 as i32
    }
}

impl TryFrom<u8> for Signal {
    type Error = ValueError;

    fn try_from(number: u8) -> Result<Self, ValueError> {
        Self::from_number(number.into()).ok_or_else(|| ValueError::range(&number, "1 to 64"))
    }
}

impl From<Signal> for u8 {
    fn from(signal: Signal) -> Self {
        signal.0
    }
}

impl FromStr for Signal {
    type Err = ValueError;

    /// `SIGTERM`, `TERM`, `term`, `15`, `SIGRTMIN+3`, `SIGRTMAX-1`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            return Err(ValueError::Empty { what: "a signal" });
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            let number = text.parse::<u8>().ok().and_then(|n| Self::try_from(n).ok());
            return number.ok_or_else(|| ValueError::range(&text, "1 to 64"));
        }
        let upper = text.to_ascii_uppercase();
        let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
        let standard = (1..).zip(NAMES).map(|(number, name)| (name, number));
        standard
            .chain(ALIASES)
            .find(|(known, _)| *known == name)
            .map(|(_, number)| Self(number))
            .or_else(|| real_time(&name))
            .ok_or_else(|| unknown(text, &name))
    }
}

/// `SIGRTMIN`, `SIGRTMIN+n`, `SIGRTMAX`, `SIGRTMAX-n`.
fn real_time(name: &str) -> Option<Signal> {
    let offset = |text: &str, sign: char| match text {
        "" => Some(0),
        _ => text.strip_prefix(sign)?.parse::<u8>().ok(),
    };
    let number = if let Some(rest) = name.strip_prefix("SIGRTMIN") {
        RTMIN.checked_add(offset(rest, '+')?)?
    } else {
        RTMAX.checked_sub(offset(name.strip_prefix("SIGRTMAX")?, '-')?)?
    };
    (RTMIN..=RTMAX).contains(&number).then_some(Signal(number))
}

fn unknown(text: &str, name: &str) -> ValueError {
    match ValueError::unknown("signal", name, &NAMES) {
        ValueError::Unknown { what, help, .. } => {
            ValueError::Unknown { what, text: text.to_owned(), help }
        }
        other => other,
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (NAMES.get(usize::from(self.0).wrapping_sub(1)), self.0.checked_sub(RTMIN)) {
            (Some(name), _) => f.write_str(name),
            (None, Some(0)) => f.write_str("SIGRTMIN"),
            (None, Some(offset)) => write!(f, "SIGRTMIN+{offset}"),
            (None, None) => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for (text, number, shown) in [
            ("SIGTERM", 15, "SIGTERM"),
            ("TERM", 15, "SIGTERM"),
            ("sigint", 2, "SIGINT"),
            ("9", 9, "SIGKILL"),
            ("SIGSYS", 31, "SIGSYS"),
            ("SIGIOT", 6, "SIGABRT"),
            ("SIGRTMIN", 34, "SIGRTMIN"),
            ("SIGRTMIN+3", 37, "SIGRTMIN+3"),
            ("rtmax", 64, "SIGRTMIN+30"),
            ("SIGRTMAX-1", 63, "SIGRTMIN+29"),
            ("33", 33, "33"),
        ] {
            let signal: Signal = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((signal.number(), signal.to_string().as_str()), (number, shown));
        }
        for number in 1..=64 {
            let signal = Signal::from_number(number).expect("in range");
            assert_eq!(signal.to_string().parse(), Ok(signal));
        }
        for text in ["", "0", "65", "999", "SIG", "SIGRTMIN+31", "SIGRTMAX-31", "SIGRTMIN-1", "-9"]
        {
            assert!(text.parse::<Signal>().is_err(), "{text}");
        }
        let error = "SIGTREM".parse::<Signal>().expect_err("unknown");
        assert_eq!(error.to_string(), "unknown signal \"SIGTREM\"");
        assert_eq!(error.help().as_deref(), Some("did you mean \"SIGTERM\"?"));
    }

    #[test]
    fn a_guest_can_not_make_up_a_number() {
        assert!(postcard::from_bytes::<Signal>(&[200]).is_err());
        assert!(postcard::from_bytes::<Signal>(&[0]).is_err());
        assert_eq!(postcard::from_bytes::<Signal>(&[15]), Ok(Signal::TERM));
        assert_eq!(postcard::to_stdvec(&Signal::TERM), Ok(vec![15]));
    }
}
