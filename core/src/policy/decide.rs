//! The decision: a pure function of policy, workload and facts.
//!
//! Its outcome does not depend on the order of rules: any denial wins, floors take the maximum,
//! and among preferences command line > spec > policy's prefer > policy's default > built-in.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::diagnose::{Code, Fault, Missing};
use crate::spec::{Bytes, Isolation, Level, Objective, Propagation, Resolved, Volume};

use super::{Effect, Policy};

/// What a decision depends on besides policy and workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// What the host lacks for a container; nothing when it can run one.
    pub container: Vec<Missing>,
    /// What the host lacks for a micro-VM.
    pub vm: Vec<Missing>,
    /// The host's memory.
    pub memory: Bytes,
    /// The memory promised to what runs already.
    pub committed_memory: Bytes,
}

impl Facts {
    /// What the host lacks for this isolation.
    pub fn missing(&self, isolation: Isolation) -> &[Missing] {
        match isolation {
            Isolation::Container => &self.container,
            Isolation::Vm => &self.vm,
        }
    }

    fn usable(&self, isolation: Isolation) -> bool {
        self.missing(isolation).is_empty()
    }
}

/// A workload that policy let through. Only [`decide`] makes one, so that nothing can be run
/// past policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved {
    workload: Resolved,
    decision: Decision,
}

impl Approved {
    /// What runs.
    pub fn workload(&self) -> &Resolved {
        &self.workload
    }

    /// How, and why so.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }
}

/// What was decided, and all that led to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The isolation that it runs in.
    pub isolation: Isolation,
    /// Why this one.
    pub reason: Reason,
    /// What was asked: the command line's word, else the spec's.
    pub requested: Level,
    /// The weakest that was allowed.
    pub floor: Floor,
    /// The policy's name.
    pub policy: String,
    /// Each rule, and whether it matched.
    pub rules: Vec<RuleOutcome>,
    /// Each isolation, weakest first, and what stood against it.
    pub candidates: Vec<Candidate>,
    /// What the user should know all the same.
    pub warnings: Vec<String>,
}

/// Why an isolation was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "by", content = "name")]
pub enum Reason {
    /// `--isolation`.
    CommandLine,
    /// `isolation.level` of the spec.
    Spec,
    /// A rule with this name prefers it.
    Rule(String),
    /// The policy with this name has it as its default.
    PolicyDefault(String),
    /// Only this one is at or above the floor, which this one set.
    Floor(String),
    /// The strongest that was allowed and there.
    Strongest,
    /// The cheapest that was allowed and there.
    Cheapest,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => f.write_str("asked on the command line"),
            Self::Spec => f.write_str("asked by the spec"),
            Self::Rule(name) => write!(f, "rule {name}"),
            Self::PolicyDefault(name) => write!(f, "default of policy {name}"),
            Self::Floor(by) => f.write_str(by),
            Self::Strongest => f.write_str("the strongest that this host has"),
            Self::Cheapest => f.write_str("the cheapest that is allowed"),
        }
    }
}

/// The weakest isolation allowed, and who set it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// The weakest allowed.
    pub isolation: Isolation,
    /// Who set it: `isolation.min of the spec`, `rule untrusted-needs-vm`; nobody when there is none.
    pub by: Option<String>,
}

/// A rule and whether it matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleOutcome {
    /// The rule's name.
    pub name: String,
    /// Whether its condition held.
    pub matched: bool,
    /// What it does when it matches.
    pub effect: Effect,
    /// Why it is there.
    pub reason: String,
}

/// An isolation that could have been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Which.
    pub isolation: Isolation,
    /// Whether the floor allows it.
    pub allowed: bool,
    /// What the host lacks for it.
    pub missing: Vec<Missing>,
}

/// Why nothing may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// Rules deny it.
    #[error("policy {policy} denies workload {workload}: {}", denials(rules))]
    Denied {
        /// The workload's name.
        workload: String,
        /// The policy's name.
        policy: String,
        /// The denying rules.
        rules: Vec<RuleOutcome>,
    },
    /// What was asked is weaker than the floor.
    #[error("workload {workload} may not run as {asked}: {by} sets the floor to {floor}")]
    BelowFloor {
        /// The workload's name.
        workload: String,
        /// What was asked.
        asked: Isolation,
        /// The floor.
        floor: Isolation,
        /// Who set it.
        by: String,
    },
    /// The host can't give what was asked or is needed.
    #[error(
        "isolation {isolation} can't be had on this host for workload {workload}: {}",
        lacks(missing)
    )]
    Unavailable {
        /// The workload's name.
        workload: String,
        /// The isolation that was asked, or the weakest that was allowed.
        isolation: Isolation,
        /// What the host lacks.
        missing: Vec<Missing>,
        /// Whether something weaker was named by nobody as the floor, so that it may be asked for.
        weaker_allowed: bool,
    },
    /// The workload asks for what the isolation that was decided does not have.
    #[error("workload {workload} can't run as {isolation} ({reason}): {what}")]
    Unsupported {
        /// The workload's name.
        workload: String,
        /// The isolation.
        isolation: Isolation,
        /// Why it is this one.
        reason: Reason,
        /// What it does not have.
        what: String,
        /// What to do about it.
        hint: String,
    },
}

fn denials(rules: &[RuleOutcome]) -> String {
    let each: Vec<_> =
        rules.iter().map(|rule| format!("{} (rule {})", rule.reason, rule.name)).collect();
    each.join("; ")
}

fn lacks(missing: &[Missing]) -> String {
    let each: Vec<_> = missing.iter().map(|missing| missing.what.as_str()).collect();
    each.join("; ")
}

impl Refusal {
    /// What kind of refusal it is.
    pub const fn code(&self) -> Code {
        match self {
            Self::Denied { .. } | Self::BelowFloor { .. } => Code::Denied,
            Self::Unavailable { .. } => Code::Unavailable,
            Self::Unsupported { .. } => Code::Spec,
        }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let what = refusal.to_string();
        match refusal {
            Refusal::Denied { .. } => Self::new(Code::Denied, what)
                .hint("`moat explain` shows every rule and what it looked at"),
            Refusal::BelowFloor { floor, .. } => Self::new(Code::Denied, what)
                .hint(format!("ask for `--isolation {floor}`, or leave the choice to policy")),
            Refusal::Unsupported { hint, .. } => Self::new(Code::Spec, what).hint(hint),
            Refusal::Unavailable { missing, weaker_allowed, .. } => {
                let mut hints: Vec<_> = missing.into_iter().map(|missing| missing.hint).collect();
                hints.dedup();
                if weaker_allowed {
                    hints.push(
                        "or ask for `--isolation container` if a shared kernel will do".to_owned(),
                    );
                }
                Self::new(Code::Unavailable, what).hint(hints.join("; "))
            }
        }
    }
}

const WEAKEST_FIRST: [Isolation; 2] = [Isolation::Container, Isolation::Vm];

/// Decides how a workload runs, or why it may not.
///
/// # Errors
/// A [`Refusal`]: denied by a rule, asked for less than the floor, or nothing that is allowed can
/// be had here.
pub fn decide(policy: &Policy, workload: &Resolved, facts: &Facts) -> Result<Approved, Refusal> {
    let rules = outcomes(policy, workload, facts);
    let matched = || rules.iter().filter(|rule| rule.matched);

    let denying: Vec<_> = matched().filter(|rule| rule.effect == Effect::Deny).cloned().collect();
    if !denying.is_empty() {
        return Err(Refusal::Denied {
            workload: workload.name.to_string(),
            policy: policy.name.clone(),
            rules: denying,
        });
    }

    let floor = floor(workload, &rules);
    let (isolation, reason, warnings) = choose(policy, workload, facts, &rules, &floor)?;
    supported(workload, &floor, isolation, &reason)?;
    let candidates = WEAKEST_FIRST
        .into_iter()
        .map(|isolation| Candidate {
            isolation,
            allowed: isolation >= floor.isolation,
            missing: facts.missing(isolation).to_vec(),
        })
        .collect();
    let decision = Decision {
        isolation,
        reason,
        requested: workload.isolation.flag.unwrap_or(workload.isolation.level),
        floor,
        policy: policy.name.clone(),
        rules,
        candidates,
        warnings,
    };
    Ok(Approved { workload: workload.clone(), decision })
}

/// Refuses what the isolation does not have. It is no reason to choose a weaker one instead: then a
/// spec could choose by asking for it.
fn supported(
    workload: &Resolved,
    floor: &Floor,
    isolation: Isolation,
    reason: &Reason,
) -> Result<(), Refusal> {
    let slave = |volume: &&Volume| volume.propagation == Propagation::Slave;
    let (Isolation::Vm, Some(volume)) = (isolation, workload.volumes.iter().find(slave)) else {
        return Ok(());
    };
    let mut hint = "leave rslave out".to_owned();
    if floor.isolation == Isolation::Container {
        hint.push_str(", or ask for `--isolation container` if a shared kernel will do");
    }
    Err(Refusal::Unsupported {
        workload: workload.name.to_string(),
        isolation,
        reason: reason.clone(),
        what: format!("what the host mounts later is not seen in it, as volume {volume} asks"),
        hint,
    })
}

fn outcomes(policy: &Policy, workload: &Resolved, facts: &Facts) -> Vec<RuleOutcome> {
    policy
        .rules
        .iter()
        .map(|rule| RuleOutcome {
            name: rule.name.clone(),
            matched: rule.when.holds(workload, facts),
            effect: rule.effect,
            reason: rule.reason.clone(),
        })
        .collect()
}

/// The highest floor; among equals the spec's own is named, then the first rule by name.
fn floor(workload: &Resolved, rules: &[RuleOutcome]) -> Floor {
    let mut named: Vec<(Isolation, String)> = rules
        .iter()
        .filter(|rule| rule.matched)
        .filter_map(|rule| match rule.effect {
            Effect::MinIsolation(isolation) => Some((isolation, format!("rule {}", rule.name))),
            Effect::Deny | Effect::Prefer(_) => None,
        })
        .collect();
    named.sort_by(|a, b| a.1.cmp(&b.1));
    if let Some(min) = workload.isolation.min {
        named.insert(0, (min, "isolation.min of the spec".to_owned()));
    }
    named.into_iter().fold(
        Floor { isolation: Isolation::Container, by: None },
        |floor, (isolation, by)| match floor.by {
            Some(_) if isolation <= floor.isolation => floor,
            _ => Floor { isolation, by: Some(by) },
        },
    )
}

type Choice = (Isolation, Reason, Vec<String>);

fn choose(
    policy: &Policy,
    workload: &Resolved,
    facts: &Facts,
    rules: &[RuleOutcome],
    floor: &Floor,
) -> Result<Choice, Refusal> {
    let asked = match (workload.isolation.flag, workload.isolation.level) {
        (Some(level), _) => exact(level).map(|isolation| (isolation, Reason::CommandLine)),
        (None, level) => exact(level).map(|isolation| (isolation, Reason::Spec)),
    };
    if let Some((isolation, reason)) = asked {
        return explicit(workload, facts, floor, isolation, reason);
    }
    // The spec's own objective stands above what a policy would rather have.
    let preference = match workload.isolation.objective {
        Some(_) => None,
        None => preference(policy, rules),
    };
    let mut warnings = Vec::new();
    if let Some((isolation, reason)) = preference {
        if isolation >= floor.isolation && facts.usable(isolation) {
            return Ok((isolation, reason, warnings));
        }
        if !facts.usable(isolation) {
            warnings.push(format!(
                "policy {} prefers {isolation}, which can't be had here: {}",
                policy.name,
                lacks(facts.missing(isolation))
            ));
        }
    }
    let objective =
        workload.isolation.objective.or(policy.defaults.objective).unwrap_or(Objective::Security);
    let mut allowed = WEAKEST_FIRST
        .into_iter()
        .filter(|isolation| *isolation >= floor.isolation && facts.usable(*isolation));
    let (found, reason) = match objective {
        Objective::Security => (allowed.next_back(), Reason::Strongest),
        Objective::Density => (allowed.next(), Reason::Cheapest),
    };
    let reason = match &floor.by {
        Some(by) if floor.isolation == Isolation::Vm => Reason::Floor(by.clone()),
        _ => reason,
    };
    match found {
        Some(isolation) => Ok((isolation, reason, warnings)),
        None => Err(unavailable(workload, facts, floor.isolation, false)),
    }
}

fn exact(level: Level) -> Option<Isolation> {
    match level {
        Level::Auto => None,
        Level::Container => Some(Isolation::Container),
        Level::Vm => Some(Isolation::Vm),
    }
}

fn explicit(
    workload: &Resolved,
    facts: &Facts,
    floor: &Floor,
    isolation: Isolation,
    reason: Reason,
) -> Result<Choice, Refusal> {
    if let (true, Some(by)) = (isolation < floor.isolation, &floor.by) {
        return Err(Refusal::BelowFloor {
            workload: workload.name.to_string(),
            asked: isolation,
            floor: floor.isolation,
            by: by.clone(),
        });
    }
    if !facts.usable(isolation) {
        let weaker = isolation > floor.isolation;
        return Err(unavailable(workload, facts, isolation, weaker));
    }
    Ok((isolation, reason, Vec::new()))
}

fn unavailable(
    workload: &Resolved,
    facts: &Facts,
    isolation: Isolation,
    weaker_allowed: bool,
) -> Refusal {
    Refusal::Unavailable {
        workload: workload.name.to_string(),
        isolation,
        missing: facts.missing(isolation).to_vec(),
        weaker_allowed,
    }
}

/// What rules prefer, the strongest of them, else the policy's default.
fn preference(policy: &Policy, rules: &[RuleOutcome]) -> Option<(Isolation, Reason)> {
    let mut preferred: Vec<(Isolation, &str)> = rules
        .iter()
        .filter(|rule| rule.matched)
        .filter_map(|rule| match rule.effect {
            Effect::Prefer(isolation) => Some((isolation, rule.name.as_str())),
            Effect::Deny | Effect::MinIsolation(_) => None,
        })
        .collect();
    preferred.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    preferred
        .first()
        .map(|(isolation, name)| (*isolation, Reason::Rule((*name).to_owned())))
        .or_else(|| {
            let isolation = policy.defaults.isolation?;
            Some((isolation, Reason::PolicyDefault(policy.name.clone())))
        })
}
