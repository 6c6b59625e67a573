use moat_core::sandbox::StartError;
use moat_core::seccomp::{Kernel, LAST, numbered, read};
use seccompiler::sock_filter;

use super::super::{program, users};
use super::machine::{Call, run};

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KERNEL: Kernel = Kernel { major: 6, minor: 18 };

fn compiled(json: &str) -> Result<Vec<sock_filter>, StartError> {
    let read = read("web.json", json.as_bytes(), &[]).unwrap_or_else(|error| panic!("{error:?}"));
    program(&users(&read.profile, KERNEL), &read.profile.name)
}

fn filter(default: &str, rules: &str) -> Vec<sock_filter> {
    compiled(&format!("{{\"defaultAction\": \"SCMP_ACT_{default}\", \"syscalls\": [{rules}]}}"))
        .expect("compile")
}

fn errno(number: u32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number
}

fn ask(program: &[sock_filter], name: &str, arguments: &[u64]) -> u32 {
    let (number, _) = numbered().find(|(_, known)| *known == name).expect(name);
    run(program, Call::new(number, arguments)).value
}

#[test]
fn each_action() {
    let rule = |name: &str, action: &str| {
        format!("{{\"names\": [\"{name}\"], \"action\": \"SCMP_ACT_{action}\", \"errnoRet\": 13}}")
    };
    let rules = [
        rule("read", "KILL"),
        rule("write", "KILL_PROCESS"),
        rule("open", "KILL_THREAD"),
        rule("close", "TRAP"),
        rule("stat", "ERRNO"),
        rule("fstat", "TRACE"),
        rule("lstat", "LOG"),
    ];
    let program = filter("ALLOW", &rules.join(","));
    for (name, value) in [
        ("read", libc::SECCOMP_RET_KILL_THREAD),
        ("write", libc::SECCOMP_RET_KILL_PROCESS),
        ("open", libc::SECCOMP_RET_KILL_THREAD),
        ("close", libc::SECCOMP_RET_TRAP),
        ("stat", errno(13)),
        ("fstat", libc::SECCOMP_RET_TRACE | 13),
        ("lstat", libc::SECCOMP_RET_LOG),
        ("poll", ALLOW),
    ] {
        assert_eq!(ask(&program, name, &[]), value, "{name}");
    }
}

#[test]
fn each_operator_compares_64_bits() {
    const BIG: u64 = 1 << 32;
    for (operator, value, two, yes, no) in [
        ("EQ", 5, 0, vec![5], vec![4, 6, BIG + 5]),
        ("NE", 5, 0, vec![4, 6, BIG + 5], vec![5]),
        ("LT", BIG + 5, 0, vec![0, BIG, BIG + 4, 9], vec![BIG + 5, BIG + 6, 2 * BIG]),
        ("LE", BIG + 5, 0, vec![0, 9, BIG + 5], vec![BIG + 6, 2 * BIG]),
        ("GT", BIG + 5, 0, vec![BIG + 6, 2 * BIG, u64::MAX], vec![0, 9, BIG + 5]),
        ("GE", BIG + 5, 0, vec![BIG + 5, 2 * BIG], vec![0, 9, BIG + 4]),
        (
            "MASKED_EQ",
            BIG | 6,
            BIG | 4,
            vec![BIG | 4, BIG | 5, (3 * BIG) | 12],
            vec![4, BIG | 6, BIG],
        ),
    ] {
        let program = filter(
            "ALLOW",
            &format!(
                "{{\"names\": [\"mkdir\"], \"action\": \"SCMP_ACT_ERRNO\", \"args\": [{{\
                 \"index\": 3, \"value\": {value}, \"valueTwo\": {two}, \"op\": \"SCMP_CMP_{operator}\"\
                 }}]}}"
            ),
        );
        for (values, said) in [(yes, errno(1)), (no, ALLOW)] {
            for value in values {
                let arguments = [0, 0, 0, value];
                assert_eq!(ask(&program, "mkdir", &arguments), said, "{operator} {value:#x}");
            }
        }
    }
}

/// Podman's own rules for sockets: several actions, in order, with conditions that overlap.
#[test]
fn the_first_rule_that_matches_decides() {
    let is = |index: u8, op: &str, value: u64| {
        format!("{{\"index\": {index}, \"value\": {value}, \"op\": \"SCMP_CMP_{op}\"}}")
    };
    let rule = |action: &str, errno: u8, args: &[String]| {
        format!(
            "{{\"names\": [\"socket\"], \"action\": \"SCMP_ACT_{action}\", \"errnoRet\": {errno}, \
             \"args\": [{}]}}",
            args.join(",")
        )
    };
    let rules = [
        rule("ERRNO", 1, &[is(0, "EQ", 40)]),
        rule("ERRNO", 22, &[is(0, "EQ", 16), is(2, "EQ", 9)]),
        rule("ALLOW", 0, &[is(0, "EQ", 16), is(2, "NE", 9)]),
        rule("ALLOW", 0, &[is(0, "NE", 16)]),
        rule("KILL", 0, &[]),
        rule("ALLOW", 0, &[]),
    ];
    let program = filter("ERRNO", &rules[..4].join(","));
    for (arguments, said) in
        [([40, 1, 0], errno(1)), ([16, 3, 9], errno(22)), ([16, 3, 0], ALLOW), ([2, 1, 0], ALLOW)]
    {
        assert_eq!(ask(&program, "socket", &arguments), said, "{arguments:?}");
    }
    assert_eq!(ask(&program, "socketpair", &[]), errno(1), "the default");
    let program = filter("ERRNO", &[&rules[0..1], &rules[4..]].concat().join(","));
    assert_eq!(ask(&program, "socket", &[40]), errno(1));
    assert_eq!(ask(&program, "socket", &[2]), libc::SECCOMP_RET_KILL_THREAD, "the first for all");
    let program = filter("ERRNO", &[&rules[5..], &rules[0..1]].concat().join(","));
    assert_eq!(ask(&program, "socket", &[40]), ALLOW, "the first for all");
}

#[test]
fn kernels_that_a_rule_is_not_for() {
    let rule = |name: &str, key: &str, kernel: &str| {
        format!(
            "{{\"names\": [\"{name}\"], \"action\": \"SCMP_ACT_ALLOW\", \
             \"{key}\": {{\"minKernel\": \"{kernel}\"}}}}"
        )
    };
    let rules = [
        rule("read", "includes", "6.18"),
        rule("write", "includes", "6.19"),
        rule("open", "excludes", "6.18"),
        rule("close", "excludes", "7.0"),
    ];
    let program = filter("ERRNO", &rules.join(","));
    for (name, said) in [("read", ALLOW), ("write", errno(1)), ("open", errno(1)), ("close", ALLOW)]
    {
        assert_eq!(ask(&program, name, &[]), said, "{name}");
    }
}

#[test]
fn calls_newer_than_the_profile_do_not_exist_for_it() {
    let old = r#"{"names": ["read"], "action": "SCMP_ACT_ALLOW"}"#;
    let program = filter("ERRNO", old);
    assert_eq!(ask(&program, "rseq", &[]), errno(1));
    assert_eq!(ask(&program, "io_uring_setup", &[]), errno(38));
    assert_eq!(ask(&program, "file_setattr", &[]), errno(38));
    let program = filter("ERRNO", r#"{"names": ["openat2"], "action": "SCMP_ACT_ALLOW"}"#);
    assert_eq!(ask(&program, "io_uring_setup", &[]), errno(1), "older than openat2");
    assert_eq!(ask(&program, "openat2", &[]), ALLOW);
    assert_eq!(ask(&program, "faccessat2", &[]), errno(38));
    // Another default is for all that there will ever be.
    for (default, said) in [("KILL_PROCESS", libc::SECCOMP_RET_KILL_PROCESS), ("ALLOW", ALLOW)] {
        let rule = r#"{"names": ["read"], "action": "SCMP_ACT_ERRNO"}"#;
        let program = filter(default, rule);
        assert_eq!(ask(&program, "file_setattr", &[]), said);
        assert_eq!(run(&program, Call::new(LAST + 1, &[])).value, said);
    }
}

/// x32's numbers and other architectures' calls stay closed, whatever the profile says.
#[test]
fn other_tables_of_calls_are_closed() {
    for default in ["ALLOW", "LOG", "ERRNO", "TRAP"] {
        let program = filter(default, r#"{"names": ["read"], "action": "SCMP_ACT_ALLOW"}"#);
        for number in [0x4000_0000, 0x4000_0027, u32::MAX] {
            assert_eq!(run(&program, Call::new(number, &[])).value, errno(38), "{default}");
        }
        let call = Call { architecture: 0x4000_0003, ..Call::new(0, &[]) };
        assert_eq!(run(&program, call).value, libc::SECCOMP_RET_KILL_PROCESS, "{default}");
    }
}

/// Every call another error, so that nothing is shared: jumps over more than 255 steps.
#[test]
fn a_long_profile() {
    let rule = |(number, name): (u32, &str)| {
        format!(
            "{{\"names\": [\"{name}\"], \"action\": \"SCMP_ACT_ERRNO\", \"errnoRet\": {}, \"args\": \
             [{{\"index\": 0, \"value\": {number}, \"op\": \"SCMP_CMP_EQ\"}}]}}",
            number + 100
        )
    };
    let rules: Vec<String> = numbered().map(rule).collect();
    let program = filter("ALLOW", &rules.join(","));
    assert!(program.len() > 2000, "{}", program.len());
    for (number, name) in numbered() {
        let said = |argument| run(&program, Call::new(number, &[argument]));
        assert_eq!(said(number.into()).value, errno(number + 100), "{name}");
        assert_eq!(said(9999).value, ALLOW, "{name}");
        assert!(said(9999).steps < 30, "{name}: {}", said(9999).steps);
    }
    let json = format!(
        "{{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": [{},{},{}]}}",
        rules.join(","),
        rules.join(",").replace("\"index\": 0", "\"index\": 1"),
        rules.join(",").replace("\"index\": 0", "\"index\": 2")
    );
    let error = compiled(&json).expect_err("too long").to_string();
    assert!(error.starts_with("make the seccomp filter: web.json: it takes "), "{error}");
    assert!(error.ends_with(" instructions, and the kernel 4096 at most"), "{error}");
}
