//! Sets of a machine's processors.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ValueError;

/// Processors of the host by number. As text `0-3,8`, the kernel's list format (cpuset(7)).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CpuSet(
    /// First and last of each run, in order, never touching: one text for one set.
    Vec<(u16, u16)>,
);

/// The highest number of a processor: `NR_CPUS` of an x86-64 kernel (Kconfig) goes to 8192.
const HIGHEST: u16 = 8191;

/// The longest text. All that a set of this many processors needs is less.
const TEXT_LIMIT: usize = 4096;

const HELP: &str = "write numbers and ranges, such as \"0-3,8\"";

impl CpuSet {
    /// The runs of processors, in order.
    pub fn runs(&self) -> impl Iterator<Item = RangeInclusive<u16>> {
        self.0.iter().map(|(first, last)| *first..=*last)
    }

    /// How many processors are in it.
    pub fn count(&self) -> usize {
        self.runs().map(|run| run.len()).sum()
    }
}

impl FromStr for CpuSet {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        const WHAT: &str = "a set of processors";
        if text.is_empty() {
            return Err(ValueError::Empty { what: WHAT });
        }
        if text.len() > TEXT_LIMIT {
            return Err(ValueError::TooLong { what: WHAT, length: text.len(), limit: TEXT_LIMIT });
        }
        let mut runs = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(text, first)?, number(text, last)?);
            if first > last {
                let help = format!("{part} runs backwards: write {last}-{first}");
                return Err(ValueError::malformed(text, WHAT, help));
            }
            runs.push((first, last));
        }
        runs.sort_unstable();
        let mut joined: Vec<(u16, u16)> = Vec::new();
        for (first, last) in runs {
            match joined.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last);
                }
                _ => joined.push((first, last)),
            }
        }
        Ok(Self(joined))
    }
}

fn number(whole: &str, text: &str) -> Result<u16, ValueError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ValueError::malformed(whole, "a set of processors", HELP));
    }
    let number = text.parse().ok().filter(|number| *number <= HIGHEST);
    number.ok_or_else(|| ValueError::range(&format!("processor {text}"), format!("0 to {HIGHEST}")))
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            match first == last {
                true => write!(f, "{first}")?,
                false => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for CpuSet {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl From<CpuSet> for String {
    fn from(set: CpuSet) -> Self {
        set.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_one_text_each() {
        for (text, shown, count) in [
            ("0", "0", 1),
            ("0-3", "0-3", 4),
            ("3,1,0,2", "0-3", 4),
            ("8,0-3", "0-3,8", 5),
            ("0-1,1-5,7", "0-5,7", 7),
            ("8191", "8191", 1),
            ("007", "7", 1),
        ] {
            let set: CpuSet = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((set.to_string().as_str(), set.count()), (shown, count), "{text}");
        }
    }

    #[test]
    fn not_sets() {
        for (text, message, help) in [
            ("", "a set of processors must not be empty", None),
            ("a", "\"a\" is not a set of processors", Some(HELP)),
            ("1,", "\"1,\" is not a set of processors", Some(HELP)),
            ("1-", "\"1-\" is not a set of processors", Some(HELP)),
            ("1-2-3", "\"1-2-3\" is not a set of processors", Some(HELP)),
            ("0 - 3", "\"0 - 3\" is not a set of processors", Some(HELP)),
            ("3-1", "\"3-1\" is not a set of processors", Some("3-1 runs backwards: write 1-3")),
            ("8192", "processor 8192 is out of range", Some("allowed: 0 to 8191")),
            ("0-99999", "processor 99999 is out of range", Some("allowed: 0 to 8191")),
        ] {
            let error = text.parse::<CpuSet>().expect_err(text);
            assert_eq!(error.to_string(), message);
            assert_eq!(error.help().as_deref(), help, "{text}");
        }
        assert!("1,".repeat(3000).parse::<CpuSet>().is_err());
    }
}
