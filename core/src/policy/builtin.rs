//! The policies that moat carries: `dev` (the default), `security` and `density`.

use crate::spec::{Isolation, Objective, Trust};

use super::{Condition, Defaults, Effect, Policy, Rule};

/// The names of the built-in policies, the default first.
pub const NAMES: [&str; 3] = [DEFAULT, "security", "density"];

/// The one that decides where none is named.
pub const DEFAULT: &str = "dev";

/// The built-in policy of this name.
pub fn builtin(name: &str) -> Option<Policy> {
    match name {
        "dev" => Some(dev()),
        "security" => Some(security()),
        "density" => Some(density()),
        _ => None,
    }
}

fn rule(name: &str, when: Condition, effect: Effect, reason: &str) -> Rule {
    Rule { name: name.to_owned(), when, effect, reason: reason.to_owned() }
}

/// Pleasant on a laptop: one's own code starts fastest, someone else's gets the strongest wall
/// that the laptop has.
fn dev() -> Policy {
    Policy {
        name: "dev".to_owned(),
        defaults: Defaults::default(),
        rules: vec![
            rule(
                "trusted-prefers-container",
                Condition::Trust(Trust::Trusted),
                Effect::Prefer(Isolation::Container),
                "your own code may share the host's kernel, and starts fastest so",
            ),
            rule(
                "untrusted-prefers-vm",
                Condition::Trust(Trust::Untrusted),
                Effect::Prefer(Isolation::Vm),
                "someone else's code is better kept off the host's kernel",
            ),
        ],
    }
}

/// Untrusted code never shares the host's kernel; all else gets the strongest wall there is.
fn security() -> Policy {
    Policy {
        name: "security".to_owned(),
        defaults: Defaults { isolation: None, objective: Some(Objective::Security) },
        rules: vec![rule(
            "untrusted-needs-vm",
            Condition::Trust(Trust::Untrusted),
            Effect::MinIsolation(Isolation::Vm),
            "someone else's code must not share the host's kernel",
        )],
    }
}

/// As many workloads as fit, and no more than the memory can hold.
fn density() -> Policy {
    Policy {
        name: "density".to_owned(),
        defaults: Defaults { isolation: None, objective: Some(Objective::Density) },
        rules: vec![rule(
            "memory-budget",
            Condition::MemoryCommittedOver(80),
            Effect::Deny,
            "the memory promised to workloads would pass 80% of the host's",
        )],
    }
}
