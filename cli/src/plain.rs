//! The plainest command lines, `moat run [SPEC [NAME]] [-- COMMAND..]` without any option, understood
//! without a description of all that there could be: that is half of what a start does by itself
//! before its first namespace. Every other line is clap's, above all each that is wrong; a test
//! holds that both understand the same.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::args::{Cli, Format, LOG_VARIABLE, Run, Selection, Verb};
use crate::deferred::Deferred;

/// What the line says, if it is so plain.
pub(crate) fn understood(mut args: impl Iterator<Item = OsString>) -> Option<Cli> {
    if std::env::var_os(LOG_VARIABLE).is_some() || args.nth(1)? != "run" {
        return None;
    }
    let mut words = Vec::new();
    let mut command = Vec::new();
    while let Some(arg) = args.next() {
        let word = arg.into_string().ok()?;
        if word == "--" {
            command = args.by_ref().map(|arg| arg.into_string().ok()).collect::<Option<_>>()?;
            if command.is_empty() {
                return None;
            }
        } else if word.is_empty() || word.starts_with('-') {
            return None;
        } else {
            words.push(word);
        }
    }
    let mut words = words.into_iter();
    let (spec, name) = (words.next().map(PathBuf::from), words.next());
    if words.next().is_some() {
        return None;
    }
    let policy = moat_core::policy::DEFAULT.to_owned();
    let selection = Selection { spec, name, isolation: None, policy, trust: None };
    let run = Run {
        selection,
        detach: false,
        rm: false,
        project: None,
        dry_run: false,
        offline: false,
        command,
    };
    let verb = Verb::Run(Deferred(run));
    Some(Cli { verb, format: Format::default(), quiet: false, log: None })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// Every line of up to five of these words.
    const WORDS: [&str; 9] = ["run", "ps", "help", "a.toml", "--", "-q", "--dry-run", "-", ""];

    #[test]
    fn it_is_understood_as_clap_does() {
        let mut lines = vec![vec!["moat"]];
        let mut plain = 0;
        for _ in 0..=5 {
            for line in &lines {
                let args = || line.iter().map(OsString::from);
                if let Some(cli) = understood(args()) {
                    plain += 1;
                    let whole = Cli::try_parse_from(args()).unwrap();
                    assert_eq!(format!("{cli:?}"), format!("{whole:?}"), "{line:?}");
                }
            }
            let longer = |line: &Vec<&'static str>| {
                WORDS.map(|word| line.iter().copied().chain([word]).collect::<Vec<_>>())
            };
            // What is no `run` is never plain, and need not be gone into.
            let lasting = lines.iter().filter(|line| line.get(1).is_none_or(|verb| *verb == "run"));
            lines = lasting.flat_map(longer).collect();
        }
        assert!(plain > 1000, "{plain}");
    }

    #[test]
    fn what_is_no_text_is_left_to_clap() {
        use std::os::unix::ffi::OsStringExt;
        let line = [b"moat".to_vec(), b"run".to_vec(), vec![b'a', 0xff]].map(OsString::from_vec);
        assert!(understood(line.into_iter()).is_none());
    }
}
