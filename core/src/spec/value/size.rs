//! Sizes and shares of processors.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ValueError;

/// A size in bytes. As text `512MiB`, `1.5GiB`, `100MB`, `4096B`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(u64);

/// A share of processors, in thousandths of one: 1500 is one and a half. As text `1.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cpus(u32);

/// Units, the binary ones from large to small first: Display takes the first that divides.
const UNITS: [(&str, u64); 13] = [
    ("EiB", 1 << 60),
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("EB", 1_000_000_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// How a size is written.
const SIZE_HELP: &str = "write a number and a unit, such as \"512MiB\"; units are B, KiB, MiB, GiB, TiB, KB, MB, GB, TB";

impl Bytes {
    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many KiB.
    pub const fn kib(kib: u32) -> Self {
        Self((kib as u64) << 10)
    }

    /// So many MiB.
    pub const fn mib(mib: u32) -> Self {
        Self((mib as u64) << 20)
    }

    /// So many GiB.
    pub const fn gib(gib: u32) -> Self {
        Self((gib as u64) << 30)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, unit): &&(&str, u64)| self.0 != 0 && self.0.is_multiple_of(*unit);
        let (name, unit) = UNITS.iter().find(fits).unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

impl FromStr for Bytes {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit_name) = text.split_at(digits);
        let malformed = |help: String| ValueError::malformed(text, "a size", help);
        let Some((_, unit)) = UNITS.iter().find(|(name, _)| *name == unit_name) else {
            return Err(malformed(unit_help(number, unit_name)));
        };
        let number = Decimal::parse(number).ok_or_else(|| malformed(SIZE_HELP.to_owned()))?;
        let bytes = number.times(*unit).ok_or_else(|| {
            malformed("it must come to a whole number of bytes, below 16 EiB".to_owned())
        })?;
        Ok(Self(bytes))
    }
}

/// Names the binary unit for `512M`, `512mb`, `512 MiB` and the like.
fn unit_help(number: &str, unit: &str) -> String {
    let initial = unit.trim_start().chars().next().map(|c| c.to_ascii_uppercase());
    let near = UNITS.iter().find(|(name, _)| name.len() == 3 && name.chars().next() == initial);
    match near {
        Some((name, _)) if unit.trim().len() <= 5 && Decimal::parse(number).is_some() => {
            format!("did you mean \"{number}{name}\"?")
        }
        _ => SIZE_HELP.to_owned(),
    }
}

impl Cpus {
    /// So many thousandths of a processor.
    pub const fn from_milli(milli: u32) -> Self {
        Self(milli)
    }

    /// Thousandths of a processor.
    pub const fn milli(self) -> u32 {
        self.0
    }

    /// Whole processors, rounded up: what a micro-VM gets as vCPUs.
    pub const fn ceil(self) -> u32 {
        self.0.div_ceil(1000)
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, milli) = (self.0 / 1000, self.0 % 1000);
        if milli == 0 {
            return write!(f, "{whole}");
        }
        write!(f, "{whole}.{}", format!("{milli:03}").trim_end_matches('0'))
    }
}

impl FromStr for Cpus {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Decimal::parse(text)
            .and_then(|number| number.times(1000))
            .and_then(|milli| u32::try_from(milli).ok())
            .map(Self)
            .ok_or_else(|| {
                ValueError::malformed(
                    text,
                    "a number of processors",
                    "write a number such as 2 or 0.5, with at most three decimals",
                )
            })
    }
}

/// A decimal number as written: its digits without the point, and how many stood after it. Kept
/// whole, because 0.1 GiB must not be rounded on the way.
struct Decimal {
    digits: u64,
    decimals: u32,
}

impl Decimal {
    /// `12`, `1.5`; no sign, no exponent, a digit on either side of the point.
    fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = match text.split_once('.') {
            Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
            Some(_) => return None,
            None => (text, ""),
        };
        let fraction = fraction.trim_end_matches('0');
        let digits_only = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits_only(whole) || !digits_only(fraction) {
            return None;
        }
        Some(Self {
            digits: format!("{whole}{fraction}").parse().ok()?,
            decimals: u32::try_from(fraction.len()).ok()?,
        })
    }

    /// The number times `unit`, if that is whole and fits.
    fn times(&self, unit: u64) -> Option<u64> {
        let scaled = u128::from(self.digits) * u128::from(unit);
        let divisor = 10u128.checked_pow(self.decimals)?;
        if !scaled.is_multiple_of(divisor) {
            return None;
        }
        u64::try_from(scaled / divisor).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes, shown) in [
            ("512MiB", 512 << 20, "512MiB"),
            ("1GiB", 1 << 30, "1GiB"),
            ("1024MiB", 1 << 30, "1GiB"),
            ("1.5GiB", 3 << 29, "1536MiB"),
            ("0.5KiB", 512, "512B"),
            ("100MB", 100_000_000, "100MB"),
            ("1KB", 1000, "1KB"),
            ("0B", 0, "0B"),
            ("1048576B", 1 << 20, "1MiB"),
            ("15EiB", 15 << 60, "15EiB"),
        ] {
            let size: Bytes = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(size.get(), bytes, "{text}");
            assert_eq!(size.to_string(), shown);
            assert_eq!(size.to_string().parse(), Ok(size));
        }
    }

    #[test]
    fn not_sizes() {
        for (text, help) in [
            ("512", SIZE_HELP),
            ("", SIZE_HELP),
            ("MiB", SIZE_HELP),
            ("-1MiB", SIZE_HELP),
            ("1.MiB", SIZE_HELP),
            (".5MiB", SIZE_HELP),
            ("1.2.3MiB", SIZE_HELP),
            ("512M", "did you mean \"512MiB\"?"),
            ("512mb", "did you mean \"512MiB\"?"),
            ("512 MiB", "did you mean \"512MiB\"?"),
            ("2g", "did you mean \"2GiB\"?"),
            ("0.3B", "it must come to a whole number of bytes, below 16 EiB"),
            ("16EiB", "it must come to a whole number of bytes, below 16 EiB"),
            ("99999999999999999999EiB", SIZE_HELP),
        ] {
            let error = text.parse::<Bytes>().expect_err(text);
            assert_eq!(error.to_string(), format!("{text:?} is not a size"));
            assert_eq!(error.help().as_deref(), Some(help), "{text}");
        }
    }

    #[test]
    fn processors() {
        for (text, milli, shown) in
            [("1", 1000, "1"), ("0.5", 500, "0.5"), ("1.25", 1250, "1.25"), ("0.010", 10, "0.01")]
        {
            let cpus: Cpus = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((cpus.milli(), cpus.to_string().as_str()), (milli, shown));
        }
        for text in ["", "x", "-1", "1e3", "inf", "nan", "0.0005", "5000000"] {
            assert!(text.parse::<Cpus>().is_err(), "{text}");
        }
    }
}
