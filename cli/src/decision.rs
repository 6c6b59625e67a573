//! How a decision is told: the line that every run prints, and the whole of it for `explain`.

use moat_core::policy::{Candidate, Decision, Effect, RuleOutcome};
use moat_core::spec::{Isolation, Resolved, Root, Seccomp, VolumeSource};
use moat_host::{rootfs, seccomp};
use serde_json::{Value, json};

/// What a micro-VM runs on.
const VM_ENGINE: &str = "kvm";

/// `isolation: vm (rule untrusted-needs-vm), engine kvm`.
pub(crate) fn line(decision: &Decision) -> String {
    let engine = match decision.isolation {
        Isolation::Container => String::new(),
        Isolation::Vm => format!(", engine {VM_ENGINE}"),
    };
    format!("isolation: {} ({}){engine}", decision.isolation, decision.reason)
}

/// The same as fields.
pub(crate) fn fields(decision: &Decision) -> Value {
    let engine = match decision.isolation {
        Isolation::Container => None,
        Isolation::Vm => Some(VM_ENGINE),
    };
    json!({
        "isolation": decision.isolation,
        "reason": decision.reason.to_string(),
        "requested": decision.requested,
        "policy": decision.policy,
        "engine": engine,
    })
}

/// What a spec may ask for, but not without its being said.
pub(crate) fn warnings(workload: &Resolved) -> Vec<String> {
    let mut warnings = exposed(workload);
    if let Seccomp::File(path) = &workload.security.seccomp
        && let Ok(read) = seccomp::read(path, &workload.security.capabilities())
        && !read.unknown.is_empty()
    {
        let (path, names) = (path.display(), read.unknown.join(", "));
        warnings.push(format!("{path} names what is no system call, which has no effect: {names}"));
    }
    warnings
}

/// What shows the workload that which `image = "host"` hides.
fn exposed(workload: &Resolved) -> Vec<String> {
    let volumes = workload.volumes.iter().filter_map(|volume| match &volume.source {
        VolumeSource::Bind(source) => Some(("volume", source)),
        VolumeSource::Named(_) => None,
    });
    let root = match &workload.root {
        Root::Directory(dir) => Some(("rootfs", dir)),
        Root::Host => None,
    };
    let told = volumes.chain(root).filter_map(|(what, path)| {
        let hidden = rootfs::exposed(path);
        let more = match hidden.len().checked_sub(1)? {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let (path, first) = (path.display(), hidden.first()?.display());
        Some(format!("{what} {path} shows the workload {first}{more}, hidden otherwise"))
    });
    told.collect()
}

/// All that led to it, for a person to read.
pub(crate) fn whole(workload: &Resolved, decision: &Decision) -> String {
    let mut text = format!("  {}\n", line(decision));
    text.push_str(&format!("  trust:     {}\n", workload.trust.as_str()));
    let by = decision.floor.by.as_deref().unwrap_or("nobody set one");
    text.push_str(&format!("  floor:     {} ({by})\n", decision.floor.isolation));
    text.push_str(&format!("  seccomp:   {}\n", filter(workload)));
    for candidate in &decision.candidates {
        text.push_str(&self::candidate(candidate));
    }
    for rule in &decision.rules {
        text.push_str(&self::rule(&decision.policy, rule));
    }
    for warning in warnings(workload) {
        text.push_str(&format!("  warning:   {warning}\n"));
    }
    for key in workload.inert.iter().filter(|key| key.on == decision.isolation) {
        text.push_str(&format!("  inert:     {} means nothing in a {}\n", key.key, key.on));
    }
    text
}

/// Which filter of system calls it is to have.
fn filter(workload: &Resolved) -> String {
    match &workload.security.seccomp {
        Seccomp::Default => "moat's own filter".to_owned(),
        Seccomp::File(path) => match seccomp::read(path, &workload.security.capabilities()) {
            Ok(read) => {
                format!("{}, {} rules for this workload", path.display(), read.profile.rules.len())
            }
            Err(fault) => match &fault.source {
                Some(source) => format!("{fault}: {source}"),
                None => fault.to_string(),
            },
        },
    }
}

/// A candidate, and what stands against it.
pub(crate) fn candidate(candidate: &Candidate) -> String {
    let verdict = match (candidate.allowed, candidate.missing.is_empty()) {
        (true, true) => "can be had".to_owned(),
        (false, true) => "can be had, but is below the floor".to_owned(),
        (_, false) => {
            let lacks: Vec<_> =
                candidate.missing.iter().map(|missing| missing.what.as_str()).collect();
            format!("can't be had: {}", lacks.join("; "))
        }
    };
    format!("  candidate: {} {verdict}\n", candidate.isolation)
}

fn rule(policy: &str, rule: &RuleOutcome) -> String {
    let effect = match rule.effect {
        Effect::Deny => "denies".to_owned(),
        Effect::MinIsolation(isolation) => format!("needs at least {isolation}"),
        Effect::Prefer(isolation) => format!("prefers {isolation}"),
    };
    let matched = if rule.matched { "matched" } else { "no match" };
    format!("  rule:      {} of policy {policy}: {matched}, {effect}: {}\n", rule.name, rule.reason)
}
