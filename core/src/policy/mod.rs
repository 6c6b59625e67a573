//! Policy: rules, the pure [`decide`], and what it answers.

mod builtin;
mod decide;
mod rule;

pub use builtin::{DEFAULT, NAMES, builtin};
pub use decide::{
    Approved, Candidate, Decision, Facts, Floor, Reason, Refusal, RuleOutcome, decide,
};
pub use rule::{Condition, Defaults, Effect, Policy, Rule};
