//! The arguments of verbs that act on instances.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use moat_core::spec::{Name, Signal, parse_duration};

use super::told;

/// A workload.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The workload's name, or how its id begins
    pub(crate) name: String,
    /// The project in which it has that name [default: any]
    #[arg(long, short)]
    pub(crate) project: Option<Name>,
}

/// Workloads.
#[derive(Debug, Args)]
pub(crate) struct AllNamed {
    /// The workloads' names, or how their ids begin
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// The project in which they have those names [default: any]
    #[arg(long, short)]
    pub(crate) project: Option<Name>,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Those too that have ended and are kept
    #[arg(long, short)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    pub(crate) named: Named,
    /// Go on with what is written from now on, until the workload's end
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only what was written since then: how long ago, such as 10m, or a time, such as
    /// 2026-11-23T10:15:30Z
    #[arg(long, value_name = "WHEN", value_parser = since)]
    pub(crate) since: Option<Timestamp>,
    /// Only so many lines at the end
    #[arg(long, short = 'n', value_name = "LINES")]
    pub(crate) tail: Option<usize>,
    /// With the time of each line
    #[arg(long, short)]
    pub(crate) timestamps: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    #[command(flatten)]
    pub(crate) named: AllNamed,
    /// How long they have before they are ended, such as 30s [default: each one's `stop_timeout`]
    #[arg(long, short, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Kill {
    #[command(flatten)]
    pub(crate) named: AllNamed,
    /// The signal, by its name or number
    #[arg(long, short, default_value = "SIGKILL", value_parser = signal)]
    pub(crate) signal: Signal,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    #[command(flatten)]
    pub(crate) named: AllNamed,
    /// End those that still run, at once
    #[arg(long, short)]
    pub(crate) force: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(told)
}

fn signal(text: &str) -> Result<Signal, String> {
    text.parse().map_err(told)
}

/// A time, or how long ago it was.
fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = duration(text)
        .map_err(|error| format!("{error}; or write a time, such as \"2026-11-23T10:15:30Z\""))?;
    Timestamp::now().checked_sub(ago).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_a_while_ago() {
        assert_eq!(since("1970-01-01T00:01:00Z"), Ok(Timestamp::from_second(60).unwrap()));
        assert_eq!(since("1970-01-01T01:01:00+01:00"), Ok(Timestamp::from_second(60).unwrap()));
        let (ago, now) = (since("1m30s").unwrap(), Timestamp::now());
        assert!((90..100).contains(&(now.as_second() - ago.as_second())), "{ago} {now}");
        let refused = since("yesterday").unwrap_err();
        assert!(refused.contains("1m30s") && refused.contains("2026-11-23T"), "{refused}");
    }
}
