//! Attacks on the container wall. Each case file holds the code of one attack, which is run twice:
//! as the workload of `moat run --isolation container`, where nothing of it may succeed, and against
//! a deliberately open configuration, where all of it must: so each is known to bite. What this
//! machine's kernel does not have can't be let succeed, and is said; a case of which nothing is left
//! by that counts as skipped.
//!
//! The attacker is this executable itself, which is static, copied into the workload's root. The
//! open configuration is what a spec can open, or the naive runtime of `naive.rs`. Nothing here may
//! harm the machine: what would be beyond repair is tried with arguments that the kernel refuses
//! only after it has let the caller in.

mod call;
mod cases;
mod evidence;
mod field;
mod inside;
mod naive;
mod table;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use libtest_mimic::{Arguments, Failed, Trial};
use moat_tests::{host, skip};

use crate::cases::{ALL, Case};
use crate::evidence::Outcome;
use crate::field::{Attacker, Field};

/// What each case came to, in the order in which they ended.
type Rows = Arc<Mutex<Vec<(&'static str, Outcome)>>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        // A script's interpreter is told the script first.
        [inside::ASKED, name, rest @ ..] | [_, inside::ASKED, name, rest @ ..] => {
            return inside::be_attack(name, rest);
        }
        [naive::ASKED, runtime] => return naive::be_runtime(runtime, None),
        [naive::ENTER, first, runtime] => return naive::be_runtime(runtime, Some(first)),
        _ => {}
    }
    let arguments = Arguments::from_args();
    let lacks = if host::is_root() {
        host::lacks("container")
    } else {
        Some("only root can open a wall".to_owned())
    };
    if let Some(reason) = &lacks {
        skip::tell("all attacks", reason);
    }
    let attacker = match Attacker::new() {
        Ok(attacker) => Arc::new(attacker),
        Err(error) => {
            skip::tell("all attacks", &format!("{error:#}"));
            return ExitCode::FAILURE;
        }
    };
    let rows = Rows::default();
    let mut trials = vec![Trial::test("documented", || table::is_documented().map_err(failed))];
    for case in ALL {
        let (attacker, rows) = (Arc::clone(&attacker), Arc::clone(&rows));
        let trial = Trial::test(case.name, move || attack(case, &attacker, &rows).map_err(failed));
        trials.push(trial.with_ignored_flag(lacks.is_some()));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    let rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
    table::print(&rows);
    conclusion.exit_code()
}

fn failed(error: anyhow::Error) -> Failed {
    Failed::from(format!("{error:#}"))
}

/// Runs one attack behind moat and in the open.
fn attack(case: &'static Case, attacker: &Attacker, rows: &Rows) -> Result<()> {
    let behind = (case.behind)(&Field::new(case, attacker)?)?;
    let open = (case.open)(&Field::new(case, attacker)?)?;
    let outcome = Outcome::of(behind, open);
    let verdict = match case.hole {
        None => outcome.verdict(),
        Some(why) => outcome.verdict_of_hole(why),
    };
    rows.lock().unwrap_or_else(PoisonError::into_inner).push((case.name, outcome));
    match verdict {
        Ok(None) => Ok(()),
        Ok(Some(absent)) => {
            skip::tell(case.name, &absent);
            Ok(())
        }
        Err(problem) => bail!(problem),
    }
}
