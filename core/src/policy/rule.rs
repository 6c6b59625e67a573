//! A policy as data.

use serde::{Deserialize, Serialize};

use crate::spec::{Isolation, Objective, Resolved, Trust};

use super::Facts;

/// A set of rules and what holds where none speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Its name, for messages.
    pub name: String,
    /// What holds where neither command line, spec nor a rule's preference speaks.
    pub defaults: Defaults,
    /// The rules. Their order means nothing.
    pub rules: Vec<Rule>,
}

/// What a policy wants where nothing else speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Defaults {
    /// Preferred if it is available, at or above the floor.
    pub isolation: Option<Isolation>,
    /// How `auto` picks when no preference can be had.
    pub objective: Option<Objective>,
}

/// When the condition holds, the effect is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its name, for messages.
    pub name: String,
    /// When it matches.
    pub when: Condition,
    /// What it does then.
    pub effect: Effect,
    /// Why, for the user who meets it.
    pub reason: String,
}

/// What a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// The workload is trusted this far.
    Trust(Trust),
    /// With this workload, the memory promised to all that runs is over this many percent of the
    /// host's.
    MemoryCommittedOver(u8),
}

/// What a matching rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Refuses.
    Deny,
    /// Sets a floor; the highest of all wins.
    MinIsolation(Isolation),
    /// Asks for this isolation where neither command line nor spec asks. Where the host can't
    /// have it, what can be had is taken with a warning.
    Prefer(Isolation),
}

impl Policy {
    /// Whether any rule looks at the host's memory and what is promised of it, which takes a look
    /// at all that runs.
    pub fn looks_at_memory(&self) -> bool {
        let looks = |rule: &Rule| matches!(rule.when, Condition::MemoryCommittedOver(_));
        self.rules.iter().any(looks)
    }
}

impl Condition {
    /// Whether it holds.
    pub fn holds(self, workload: &Resolved, facts: &Facts) -> bool {
        match self {
            Self::Trust(trust) => workload.trust == trust,
            Self::MemoryCommittedOver(percent) => {
                let wanted =
                    facts.committed_memory.get().saturating_add(workload.resources.memory.get());
                let budget = u128::from(facts.memory.get()) * u128::from(percent) / 100;
                u128::from(wanted) > budget
            }
        }
    }
}
