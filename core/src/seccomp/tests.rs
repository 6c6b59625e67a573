use super::*;
use crate::spec::{Capability, DEFAULT_CAPABILITIES};

fn profile(text: &str) -> Profile {
    read("web.json", text.as_bytes(), DEFAULT_CAPABILITIES).expect("read").profile
}

fn mistakes(text: &str) -> Vec<String> {
    match read("web.json", text.as_bytes(), DEFAULT_CAPABILITIES) {
        Ok(read) => panic!("read as {read:?}"),
        Err(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_oci_form() {
    let read = read(
        "web.json",
        br#"{
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"],
            "syscalls": [
                {"names": ["read", "mmap2", "red", "read"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["clone"], "action": "SCMP_ACT_TRACE", "errnoRet": 7, "args": [
                    {"index": 5, "value": 18446744073709551615, "op": "SCMP_CMP_GE"},
                    {"index": 0, "value": 3, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}
                ]}
            ]
        }"#,
        &[],
    );
    let calls = vec![56];
    let conditions = vec![
        Condition { argument: 5, operator: Operator::GreaterOrEqual, value: u64::MAX },
        Condition { argument: 0, operator: Operator::MaskedEqual(3), value: 1 },
    ];
    let (since, before) = (None, None);
    let expected = Profile {
        name: "web.json".to_owned(),
        default: Action::Errno(38),
        rules: vec![
            Rule { calls: vec![0], action: Action::Allow, conditions: Vec::new(), since, before },
            Rule { calls, action: Action::Trace(7), conditions, since, before },
        ],
        log: true,
        speculation: false,
    };
    assert_eq!(read, Ok(Read { profile: expected, unknown: vec!["red".to_owned()] }));
}

#[test]
fn the_form_of_docker_and_podman() {
    let profile = profile(
        r#"{
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "defaultErrno": "ENOSYS",
            "archMap": [{"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": null}],
            "syscalls": [
                {"name": "read", "action": "SCMP_ACT_ALLOW", "args": [], "comment": ""},
                {"names": ["chroot"], "action": "SCMP_ACT_ALLOW",
                    "includes": {"caps": ["CAP_SYS_CHROOT"], "arches": ["amd64", "x32"]}},
                {"names": ["reboot"], "action": "SCMP_ACT_ALLOW",
                    "includes": {"caps": ["CAP_SYS_CHROOT", "CAP_SYS_BOOT"]}},
                {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errno": "EACCES", "errnoRet": 1,
                    "excludes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}},
                {"names": ["setns"], "action": "SCMP_ACT_ALLOW",
                    "excludes": {"caps": ["CAP_SYS_ADMIN", "CAP_CHOWN"]}},
                {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390"]}},
                {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW",
                    "includes": {"minKernel": "4.8"}, "excludes": {"minKernel": "6.18"}}
            ]
        }"#,
    );
    assert_eq!(profile.default, Action::Errno(38));
    let calls: Vec<(u32, Action)> =
        profile.rules.iter().map(|rule| (rule.calls[0], rule.action)).collect();
    let allow = Action::Allow;
    assert_eq!(calls, [(0, allow), (161, allow), (321, Action::Errno(13)), (101, allow)]);
    let last = profile.rules.last().expect("a rule");
    assert_eq!(last.since, Some(Kernel { major: 4, minor: 8 }));
    assert_eq!(last.before, Some(Kernel { major: 6, minor: 18 }));
}

#[test]
fn several_conditions_on_one_argument_are_alternatives() {
    let profile = profile(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [
                {"index": 0, "value": 38, "op": "SCMP_CMP_EQ"},
                {"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}]}]}"#,
    );
    let values: Vec<u64> =
        profile.rules.iter().flat_map(|rule| &rule.conditions).map(|one| one.value).collect();
    assert_eq!((profile.rules.len(), values), (2, vec![38, 40]));
    assert!(profile.rules.iter().all(|rule| rule.action == Action::Errno(1)), "EPERM");
}

#[test]
fn mistakes_are_all_told() {
    assert_eq!(
        mistakes(
            r#"{
                "defaultAction": "SCMP_ACT_ALOW",
                "architectures": ["SCMP_ARCH_X86_64", "X86_64"],
                "archMap": [{"architecture": "SCMP_ARCH_VAX"}],
                "flags": ["SECCOMP_FILTER_FLAG_TSINC"],
                "listenerPath": "/run/agent",
                "syscalls": [
                    {"names": ["read"], "name": "write", "action": "SCMP_ACT_NOTIFY"},
                    {"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096},
                    {"names": ["read"], "action": "SCMP_ACT_ERRNO", "errno": "EWHAT", "args": [
                        {"index": 6, "value": 0, "op": "SCMP_CMP_EQ"},
                        {"index": 0, "value": 0, "op": "=="}]},
                    {"names": ["read"], "action": "SCMP_ACT_ALLOW",
                        "includes": {"caps": ["CAP_NET_ADMN"]}, "excludes": {"minKernel": "new"}}
                ]
            }"#
        ),
        [
            "defaultAction: unknown action \"SCMP_ACT_ALOW\"; did you mean \"SCMP_ACT_ALLOW\"?",
            "architectures[1]: unknown architecture \"X86_64\", such as \"SCMP_ARCH_X86_64\"",
            "archMap[0]: unknown architecture \"SCMP_ARCH_VAX\", such as \"SCMP_ARCH_X86_64\"",
            "listenerPath: moat has no agent that decides about calls",
            "flags[0]: unknown flag \"SECCOMP_FILTER_FLAG_TSINC\"; did you mean \
             \"SECCOMP_FILTER_FLAG_TSYNC\"?",
            "syscalls[0]: has both name and names; keep one",
            "syscalls[0].action: SCMP_ACT_NOTIFY needs an agent that decides, and moat has none",
            "syscalls[1].errnoRet: out of range: 0 to 4095",
            "syscalls[2].errnoRet: unknown error \"EWHAT\"",
            "syscalls[2].args[0].index: 6, where a call has arguments 0 to 5",
            "syscalls[2].args[1].op: unknown operator \"==\"; one of SCMP_CMP_EQ, SCMP_CMP_GE, \
             SCMP_CMP_GT, SCMP_CMP_LE, SCMP_CMP_LT, SCMP_CMP_MASKED_EQ, SCMP_CMP_NE",
            "syscalls[3].includes.caps[0]: unknown capability \"CAP_NET_ADMN\"",
            "syscalls[3].excludes.minKernel: \"new\" is not a version such as \"4.8\"",
        ]
    );
}

#[test]
fn what_is_not_of_the_form_is_refused() {
    for (text, reason) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("{}", "missing field `defaultAction` at line 1 column 2"),
        ("[]", "invalid length 0, expected struct File with 10 elements at line 1 column 2"),
        (
            r#"{"defaultAction": 3}"#,
            "invalid type: integer `3`, expected a string at line 1 column 19",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "defaultAction": "SCMP_ACT_KILL"}"#,
            "duplicate field `defaultAction` at line 1 column 51",
        ),
    ] {
        assert_eq!(mistakes(text), [reason], "{text}");
    }
    for text in [
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscall": []}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ALLOW", "exclude": {}}]}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}]}]}"#,
        "{\"defaultAction\": \"SCMP_ACT_ALLOW\"} {}",
    ] {
        assert_eq!(mistakes(text).len(), 1, "{text}");
    }
}

#[test]
fn what_is_too_much_is_refused() {
    let long = vec![b' '; TEXT_LIMIT + 1];
    assert!(matches!(&*read("x", &long, &[]).unwrap_err(), [Mistake::TooLong { .. }]));
    let deep = "[".repeat(100_000);
    assert_eq!(mistakes(&deep).len(), 1);
    let condition = r#"{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"},"#.repeat(5000);
    let many = format!(
        r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": ["read"],
            "action": "SCMP_ACT_ERRNO", "args": [{}]}}]}}"#,
        condition.trim_end_matches(',')
    );
    assert_eq!(mistakes(&many), [Mistake::TooMany.to_string()]);
    let wrong = r#"{"action": "no"},"#.repeat(1000);
    let wrong =
        format!(r#"{{"defaultAction": "x", "syscalls": [{}]}}"#, wrong.trim_end_matches(','));
    assert_eq!(mistakes(&wrong).len(), 20);
    let unknown = (0..1000).map(|index| format!("\"x{index}\"")).collect::<Vec<_>>().join(",");
    let unknown = format!(
        r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": [{unknown}],
            "action": "SCMP_ACT_KILL"}}]}}"#
    );
    let read = read("x", unknown.as_bytes(), &[Capability::CHOWN]).expect("read");
    assert_eq!((read.unknown.len(), read.profile.rules.len()), (20, 0));
}

#[test]
fn kernels() {
    let kernel = |major, minor| Kernel { major, minor };
    for (text, version) in [
        ("4.8", kernel(4, 8)),
        ("6.18.44-cloud", kernel(6, 18)),
        ("7", kernel(7, 0)),
        ("6.1-rc2", kernel(6, 1)),
    ] {
        assert_eq!(text.parse(), Ok(version), "{text}");
    }
    for text in ["", "x", "6.x", "6.", "99999999999.1"] {
        assert!(text.parse::<Kernel>().is_err(), "{text}");
    }
    assert!(kernel(6, 9) < kernel(6, 18));
}
