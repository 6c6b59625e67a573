//! The decision, over every combination of what it looks at.
// Test helpers fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use moat_core::diagnose::{Code, Fault, Missing};
use moat_core::policy::{
    Condition, Decision, Defaults, Effect, Facts, NAMES, Policy, Reason, Refusal, Rule, builtin,
    decide,
};
use moat_core::spec::{
    Bytes, ContainerOptions, Cpus, GuestPath, Isolation, IsolationRequest, Level, NetworkMode,
    Objective, Propagation, Resolved, Resources, Root, Seccomp, Security, Signal, Trust, User,
    VmOptions, Volume, VolumeSource,
};

fn workload(trust: Trust, isolation: IsolationRequest) -> Resolved {
    Resolved {
        name: "api".parse().unwrap(),
        root: Root::Host,
        argv: vec!["true".to_owned()],
        working_dir: GuestPath::root(),
        user: User::ROOT,
        hostname: "api".parse().unwrap(),
        trust,
        labels: BTreeMap::new(),
        env: BTreeMap::new(),
        volumes: Vec::new(),
        tmpfs: Vec::new(),
        shm_size: Bytes::mib(64),
        read_only: false,
        init: true,
        tty: None,
        stop_signal: Signal::TERM,
        stop_timeout: Duration::from_secs(10),
        isolation,
        resources: Resources { cpus: Cpus::from_milli(1000), memory: Bytes::mib(512), pids: 512 },
        network: NetworkMode::None,
        security: Security {
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            no_new_privileges: true,
            seccomp: Seccomp::Default,
            landlock: None,
        },
        rlimits: Vec::new(),
        vm: VmOptions { vcpus: 1, kernel: None },
        container: ContainerOptions::default(),
        inert: Vec::new(),
    }
}

fn facts(container: bool, vm: bool) -> Facts {
    let lack = |usable: bool, what: &str| match usable {
        true => Vec::new(),
        false => vec![Missing { what: what.to_owned(), hint: format!("mend {what}") }],
    };
    Facts {
        container: lack(container, "no user namespaces"),
        vm: lack(vm, "/dev/kvm is not there"),
        memory: Bytes::mib(8192),
        committed_memory: Bytes::mib(0),
    }
}

fn decided(policy: &Policy, workload: &Resolved, facts: &Facts) -> Result<Decision, Refusal> {
    decide(policy, workload, facts).map(|approved| approved.decision().clone())
}

fn default_of(policy: &str, trust: Trust) -> Result<Decision, Refusal> {
    let workload = workload(trust, IsolationRequest::default());
    decided(&builtin(policy).unwrap(), &workload, &facts(true, true))
}

/// Every request there can be.
fn requests() -> impl Iterator<Item = IsolationRequest> {
    let levels = [Level::Auto, Level::Container, Level::Vm];
    let flags = [None, Some(Level::Auto), Some(Level::Container), Some(Level::Vm)];
    let mins = [None, Some(Isolation::Container), Some(Isolation::Vm)];
    let objectives = [None, Some(Objective::Security), Some(Objective::Density)];
    levels.into_iter().flat_map(move |level| {
        flags.into_iter().flat_map(move |flag| {
            mins.into_iter().flat_map(move |min| {
                objectives.into_iter().map(move |objective| IsolationRequest {
                    level,
                    flag,
                    min,
                    objective,
                })
            })
        })
    })
}

fn every_decision(mut check: impl FnMut(&Policy, &Resolved, &Facts, Result<Decision, Refusal>)) {
    for name in NAMES {
        let policy = builtin(name).unwrap();
        for trust in [Trust::Trusted, Trust::Untrusted] {
            for request in requests() {
                for (container, vm) in [(true, true), (true, false), (false, true), (false, false)]
                {
                    let (workload, facts) = (workload(trust, request), facts(container, vm));
                    check(&policy, &workload, &facts, decided(&policy, &workload, &facts));
                }
            }
        }
    }
}

#[test]
fn nothing_runs_below_a_floor_or_where_it_can_not() {
    every_decision(|policy, workload, facts, decision| {
        let Ok(decision) = decision else { return };
        let spec = workload.isolation.min.unwrap_or(Isolation::Container);
        let untrusted = policy.name == "security" && workload.trust == Trust::Untrusted;
        let floor = if untrusted { Isolation::Vm } else { spec };
        assert_eq!(decision.floor.isolation, floor);
        assert!(decision.isolation >= floor, "{decision:?}");
        assert!(facts.missing(decision.isolation).is_empty(), "{decision:?}");
    });
}

#[test]
fn what_was_asked_is_what_runs_or_nothing_runs() {
    every_decision(|_, workload, _, decision| {
        let asked = workload.isolation.flag.unwrap_or(workload.isolation.level);
        match (asked, decision) {
            (Level::Container, Ok(decision)) => {
                assert_eq!(decision.isolation, Isolation::Container);
            }
            (Level::Vm, Ok(decision)) => assert_eq!(decision.isolation, Isolation::Vm),
            _ => {}
        }
    });
}

#[test]
fn auto_is_refused_only_when_nothing_allowed_can_be_had() {
    every_decision(|policy, workload, facts, decision| {
        let asked = workload.isolation.flag.unwrap_or(workload.isolation.level);
        let (Level::Auto, Err(refusal)) = (asked, decision) else { return };
        assert!(matches!(refusal, Refusal::Unavailable { .. }), "{refusal}");
        let untrusted = policy.name == "security" && workload.trust == Trust::Untrusted;
        let needs_vm = untrusted || workload.isolation.min == Some(Isolation::Vm);
        assert!(!facts.vm.is_empty(), "{refusal}");
        assert!(needs_vm || !facts.container.is_empty(), "{refusal}");
        assert_eq!(Fault::from(refusal).code, Code::Unavailable);
    });
}

#[test]
fn rules_in_any_order_decide_the_same() {
    every_decision(|policy, workload, facts, decision| {
        let mut turned = policy.clone();
        turned.rules.reverse();
        let again = decided(&turned, workload, facts);
        let essence = |decision: Result<Decision, Refusal>| {
            decision.map(|it| (it.isolation, it.reason, it.floor)).map_err(|it| it.to_string())
        };
        assert_eq!(essence(decision), essence(again));
    });
}

#[test]
fn a_preference_that_can_not_be_had_is_a_warning() {
    every_decision(|policy, workload, facts, decision| {
        let Ok(decision) = decision else { return };
        let fell_back = policy.name == "dev"
            && decision.requested == Level::Auto
            && workload.isolation.objective.is_none()
            && match workload.trust {
                Trust::Trusted => !facts.container.is_empty(),
                Trust::Untrusted => !facts.vm.is_empty(),
            };
        assert_eq!(!decision.warnings.is_empty(), fell_back, "{decision:?}");
    });
}

#[test]
fn built_in_policies_do_what_the_design_says() {
    let by = |policy, trust| default_of(policy, trust).unwrap();
    assert_eq!(by("dev", Trust::Trusted).isolation, Isolation::Container);
    assert_eq!(by("dev", Trust::Untrusted).isolation, Isolation::Vm);
    assert_eq!(by("security", Trust::Trusted).isolation, Isolation::Vm);
    assert_eq!(by("security", Trust::Untrusted).isolation, Isolation::Vm);
    assert_eq!(by("density", Trust::Trusted).isolation, Isolation::Container);
    assert_eq!(by("density", Trust::Untrusted).isolation, Isolation::Container);

    let reason = by("security", Trust::Untrusted).reason;
    assert_eq!(reason, Reason::Floor("rule untrusted-needs-vm".to_owned()));
    assert_eq!(by("security", Trust::Trusted).reason, Reason::Strongest);
    assert_eq!(by("density", Trust::Untrusted).reason, Reason::Cheapest);
    assert_eq!(builtin("lax"), None);
}

#[test]
fn an_ask_below_the_floor_names_who_set_it() {
    let ask = IsolationRequest { flag: Some(Level::Container), ..IsolationRequest::default() };
    let policy = builtin("security").unwrap();
    let refusal =
        decided(&policy, &workload(Trust::Untrusted, ask), &facts(true, true)).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "workload api may not run as container: rule untrusted-needs-vm sets the floor to vm"
    );
    let fault = Fault::from(refusal);
    assert_eq!(fault.code, Code::Denied);
    assert_eq!(fault.hint.unwrap(), "ask for `--isolation vm`, or leave the choice to policy");

    let ask = IsolationRequest { min: Some(Isolation::Vm), ..ask };
    let refusal =
        decided(&builtin("dev").unwrap(), &workload(Trust::Trusted, ask), &facts(true, true));
    assert!(refusal.unwrap_err().to_string().contains("isolation.min of the spec"));
}

#[test]
fn a_spent_memory_budget_denies_whatever_is_asked() {
    let ask = IsolationRequest { flag: Some(Level::Vm), ..IsolationRequest::default() };
    let workload = workload(Trust::Trusted, ask);
    let mut facts = facts(true, true);
    let density = builtin("density").unwrap();
    // 80 % of 8192 MiB is 6553.6 MiB, of which the workload itself takes 512.
    facts.committed_memory = Bytes::mib(6041);
    assert!(decided(&density, &workload, &facts).is_ok());
    facts.committed_memory = Bytes::mib(6042);
    let refusal = decided(&density, &workload, &facts).unwrap_err();
    assert!(refusal.to_string().contains("memory-budget"), "{refusal}");
    assert_eq!(Fault::from(refusal).code, Code::Denied);
    facts.committed_memory = Bytes::new(u64::MAX);
    assert!(decided(&density, &workload, &facts).is_err(), "a sum past 64 bits is over any budget");
}

/// A spec must not come to a weaker wall by asking for what the stronger one does not have.
#[test]
fn what_a_micro_vm_does_not_have_is_refused_and_nothing_weaker_is_chosen_for_it() {
    let slave = |trust, request| {
        let mut workload = workload(trust, request);
        workload.volumes.push(Volume {
            source: VolumeSource::Bind("/media".into()),
            target: "/m".parse().unwrap(),
            read_only: true,
            propagation: Propagation::Slave,
        });
        workload
    };
    let request = IsolationRequest::default();
    let dev = builtin("dev").unwrap();
    let both = facts(true, true);
    let trusted = decided(&dev, &slave(Trust::Trusted, request), &both).unwrap();
    assert_eq!(trusted.isolation, Isolation::Container);
    let refusal = decided(&dev, &slave(Trust::Untrusted, request), &both).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "workload api can't run as vm (rule untrusted-prefers-vm): what the host mounts later is \
         not seen in it, as volume /media:/m:ro,rslave asks"
    );
    let fault = Fault::from(refusal);
    assert_eq!(fault.code, Code::Spec);
    assert_eq!(
        fault.hint.unwrap(),
        "leave rslave out, or ask for `--isolation container` if a shared kernel will do"
    );
    let request = IsolationRequest { min: Some(Isolation::Vm), ..request };
    let refusal = decided(&dev, &slave(Trust::Trusted, request), &both).unwrap_err();
    assert_eq!(Fault::from(refusal).hint.unwrap(), "leave rslave out");
    every_decision(|policy, workload, facts, decision| {
        let asking = slave(workload.trust, workload.isolation);
        match (decision, decided(policy, &asking, facts)) {
            (Ok(plain), Ok(same)) => {
                assert_eq!(
                    (plain.isolation, same.isolation),
                    (Isolation::Container, plain.isolation)
                );
            }
            (Ok(plain), Err(Refusal::Unsupported { .. })) => {
                assert_eq!(plain.isolation, Isolation::Vm);
            }
            (plain, other) => assert_eq!(plain, other),
        }
    });
}

#[test]
fn any_denial_wins_over_all_else() {
    let rule = |name: &str, effect| Rule {
        name: name.to_owned(),
        when: Condition::Trust(Trust::Trusted),
        effect,
        reason: "because".to_owned(),
    };
    let policy = Policy {
        name: "mine".to_owned(),
        defaults: Defaults { isolation: Some(Isolation::Vm), objective: None },
        rules: vec![rule("ask", Effect::Prefer(Isolation::Vm)), rule("no", Effect::Deny)],
    };
    let trusted = workload(Trust::Trusted, IsolationRequest::default());
    let refusal = decided(&policy, &trusted, &facts(true, true)).unwrap_err();
    assert_eq!(refusal.to_string(), "policy mine denies workload api: because (rule no)");
    let untrusted = workload(Trust::Untrusted, IsolationRequest::default());
    let decision = decided(&policy, &untrusted, &facts(true, true)).unwrap();
    assert_eq!(decision.reason, Reason::PolicyDefault("mine".to_owned()));
}
