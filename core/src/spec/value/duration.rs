//! Durations as text: `10s`, `1m30s`, `500ms`.

use std::time::Duration;

use super::ValueError;

/// The longest that a spec can say: a hundred days.
pub const LONGEST_DURATION: Duration = Duration::from_secs(100 * 24 * 3600);

/// Units with their length in microseconds, from long to short.
const UNITS: [(&str, u64); 5] =
    [("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

/// How a duration is written.
const HELP: &str =
    "write numbers and units, such as \"10s\", \"1m30s\" or \"500ms\"; units are h, m, s, ms, us";

/// Reads a duration: numbers with units, each unit once at most, the longest first.
///
/// # Errors
/// When it is of another form, or over [`LONGEST_DURATION`].
pub fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    let malformed = || ValueError::malformed(text, "a duration", HELP);
    if text.is_empty() {
        return Err(malformed());
    }
    let mut units = UNITS.iter();
    let mut micros: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = split(rest, |c| c.is_ascii_digit());
        let (name, after) = split(after, |c| c.is_ascii_alphabetic());
        let (_, unit) = units.find(|(unit, _)| *unit == name).ok_or_else(malformed)?;
        let number: u64 = number.parse().map_err(|_| malformed())?;
        micros = number
            .checked_mul(*unit)
            .and_then(|part| micros.checked_add(part))
            .ok_or_else(malformed)?;
        rest = after;
    }
    let duration = Duration::from_micros(micros);
    if duration > LONGEST_DURATION {
        return Err(ValueError::range(
            &text,
            format!("0s to {}", format_duration(LONGEST_DURATION)),
        ));
    }
    Ok(duration)
}

/// Writes a duration as [`parse_duration`] reads it; what is below a microsecond is dropped.
pub fn format_duration(duration: Duration) -> String {
    let mut micros = duration.as_micros();
    if micros == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, unit) in UNITS {
        let number = micros / u128::from(unit);
        micros %= u128::from(unit);
        if number > 0 {
            text.push_str(&format!("{number}{name}"));
        }
    }
    text
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis, shown) in [
            ("10s", 10_000, "10s"),
            ("1m30s", 90_000, "1m30s"),
            ("90s", 90_000, "1m30s"),
            ("500ms", 500, "500ms"),
            ("2h", 7_200_000, "2h"),
            ("1h1ms", 3_600_001, "1h1ms"),
            ("0s", 0, "0s"),
            ("2400h", 8_640_000_000, "2400h"),
        ] {
            let duration = parse_duration(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(format_duration(duration), shown);
        }
    }

    #[test]
    fn not_durations() {
        for text in [
            "",
            "10",
            "s",
            "10 s",
            "-1s",
            "1.5s",
            "1s1m",
            "1s1s",
            "1d",
            "1S",
            "99999999999999999999s",
        ] {
            assert!(
                matches!(parse_duration(text), Err(ValueError::Malformed { .. })),
                "{text}: {:?}",
                parse_duration(text)
            );
        }
        let error = parse_duration("2401h").expect_err("too long");
        assert_eq!(error.to_string(), "2401h is out of range");
        assert_eq!(error.help().as_deref(), Some("allowed: 0s to 2400h"));
    }
}
