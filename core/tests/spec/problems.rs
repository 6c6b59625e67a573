//! Pins of what users read when a spec is wrong.

use moat_core::spec::{Place, Problem, Problems, parse};

/// What is said about a text; nothing when it is right.
fn said(text: &str) -> String {
    parse(text, "x.toml").map(|_| String::new()).unwrap_or_else(|problems| problems.to_string())
}

/// What is said about a workload that is right but for these lines.
fn said_of(lines: &str) -> String {
    said(&format!("[workload.x]\nimage = \"host\"\ncommand = [\"true\"]\n{lines}\n"))
}

#[test]
fn nothing_to_run() {
    let hint = r#"x.toml:1:1: no [workload.NAME] table
    a spec begins like this:
    [workload.hello]
    image = "host"
    command = ["echo", "hello"]"#;
    for text in ["", "\n\n", "\u{feff}", "# only a comment\n", "[workload]\n"] {
        assert_eq!(said(text), hint, "{text:?}");
    }
}

#[test]
fn the_hint_for_an_empty_file_is_a_spec() {
    let problems = parse("", "x.toml").expect_err("empty");
    let help = problems.problems[0].help.clone().expect("a hint");
    let (_, spec) = help.split_once('\n').expect("the spec is below the first line");
    assert_eq!(said(spec), "");
}

#[test]
fn tables_in_the_wrong_place() {
    for (text, pin) in [
        ("workload = 1", "x.toml:1:12: workload: expected a table, found integer 1"),
        (
            "[workload]\nimage = \"host\"",
            "x.toml:2:9: workload.image: expected the table of a workload, found string \"host\"; \
             write [workload.NAME] above the workload's keys",
        ),
        ("[workloads.x]", "x.toml:1:2: workloads: unknown key; did you mean \"workload\"?"),
        ("name = 1", "x.toml:1:1: name: unknown key; known: workload"),
        (
            "[workload.Bad_Name]\nimage = \"host\"\ncommand = [\"a\"]",
            "x.toml:1:11: workload.Bad_Name: \"Bad_Name\" is not a name; write a-z, 0-9 and -, \
             beginning and ending with a letter or digit",
        ),
        (
            "[[workload.x]]\nimage = \"host\"",
            "x.toml:1:1: workload.x: expected the table of a workload, found an array; \
             write [workload.NAME] above the workload's keys",
        ),
    ] {
        assert_eq!(said(text), pin, "{text}");
    }
}

#[test]
fn broken_toml() {
    for (text, pin) in [
        ("[workload.x\n", "x.toml:1:12: unclosed table, expected `]`"),
        ("a = \n", "x.toml:1:5: string values must be quoted, expected literal string"),
        ("a = \"x\n", "x.toml:1:7: invalid basic string, expected `\"`"),
        (
            "[workload.x]\nimage = \"host\"\nimage = \"host\"\ncommand = [\"a\"]\nbogus = 1\n",
            "x.toml:3:1: duplicate key \"image\"; a key or table can stand only once\n\
             x.toml:5:1: workload.x.bogus: unknown key; `moat schema` prints all keys",
        ),
        (
            "[workload.x]\nimage = \"host\"\ncommand = [\"a\"]\n[workload.x]\ntty = true\n",
            "x.toml:4:11: duplicate key \"x\"; a key or table can stand only once",
        ),
        (
            "[workload.ü]\nx = { a = 1, = 2 }\ny = = 1\n",
            "x.toml:1:11: invalid unquoted key, expected letters, numbers, `-`, `_`\n\
             x.toml:2:14: unquoted keys cannot be empty, expected letters, numbers, `-`, `_`\n\
             x.toml:3:5: extra `=`, expected nothing",
        ),
    ] {
        assert_eq!(said(text), pin, "{text}");
    }
}

#[test]
fn one_root_and_a_command() {
    let roots = "keep exactly one of image, rootfs, oci";
    for (text, pin) in [
        (
            "[workload.x]\ncomand = [\"echo\"]",
            "x.toml:1:11: workload.x: no source of its root; write one of image, rootfs, oci; \
             image = \"host\" is this machine's own root, copy-on-write\n\
             x.toml:2:1: workload.x.comand: unknown key; did you mean \"command\"?"
                .to_owned(),
        ),
        (
            "[workload.x]\nrootfs = \"./r\"\nimage = \"host\"\noci = \"./o\"\ncommand = [\"a\"]",
            format!(
                "x.toml:3:1: workload.x.image: a second source of the root, besides rootfs; {roots}\n\
                 x.toml:4:1: workload.x.oci: a second source of the root, besides rootfs; {roots}\n\
                 x.toml:4:1: workload.x.oci: not supported yet"
            ),
        ),
        (
            "[workload.x]\nimage = \"host\"",
            "x.toml:1:11: workload.x: has no command, and image = \"host\" brings none; write what \
             runs, such as command = [\"echo\", \"hello\"]"
                .to_owned(),
        ),
        (
            "[workload.x]\nrootfs = \"./r\"\ncommand = []",
            "x.toml:3:1: workload.x.command: has no command, and a rootfs brings none; write what \
             runs, such as command = [\"echo\", \"hello\"]"
                .to_owned(),
        ),
        (
            "[workload.x]\nimage = \"host\"\ncommand = [\"\"]",
            "x.toml:3:1: workload.x.command: the program's name must not be empty".to_owned(),
        ),
        (
            "[workload.x]\nimage = \"host\"\ncommand = \"echo hello\"",
            "x.toml:3:11: workload.x.command: expected an array such as [\"echo\", \"hello\"], \
             found string \"echo hello\"; write [\"echo\", \"hello\"]"
                .to_owned(),
        ),
        (
            "[workload.x]\nimage = \"host\"\ncommand = \"ls | wc\"",
            "x.toml:3:11: workload.x.command: expected an array such as [\"echo\", \"hello\"], \
             found string \"ls | wc\"; write [\"sh\", \"-c\", \"ls | wc\"]"
                .to_owned(),
        ),
        (
            "[workload.x]\nimage = \"host\"\ncommand = [\"a\", 1]",
            "x.toml:3:17: workload.x.command[1]: expected a string such as \"hello\", found \
             integer 1; put it in quotes: \"1\""
                .to_owned(),
        ),
    ] {
        assert_eq!(said(text), pin, "{text}");
    }
    assert_eq!(said("[workload.x]\nimage = \"host\"\nentrypoint = [\"a\"]\ncommand = []"), "");
}

#[test]
fn values_of_the_wrong_kind() {
    let sizes = "write a number and a unit, such as \"512MiB\"; units are B, KiB, MiB, GiB, TiB, \
                 KB, MB, GB, TB";
    for (lines, pin) in [
        ("resources.memory = 512", format!("20: workload.x.resources.memory: expected a string such as \"512MiB\", found integer 512; {sizes}")),
        ("resources.memory = \"512M\"", "20: workload.x.resources.memory: \"512M\" is not a size; did you mean \"512MiB\"?".to_owned()),
        ("resources.memory = \"8MiB\"", "20: workload.x.resources.memory: 8MiB is out of range; allowed: 16MiB to 64TiB".to_owned()),
        ("resources.cpus = \"2\"", "18: workload.x.resources.cpus: expected a number such as 2 or 0.5, found string \"2\"; write it without quotes: 2".to_owned()),
        ("resources.cpus = 0", "18: workload.x.resources.cpus: 0 is out of range; allowed: 0.01 to 256".to_owned()),
        ("resources.cpus = nan", "18: workload.x.resources.cpus: \"nan\" is not a number of processors; write a number such as 2 or 0.5, with at most three decimals".to_owned()),
        ("resources.pids = 0", "18: workload.x.resources.pids: 0 is out of range; allowed: 1 to 4194304".to_owned()),
        ("resources.pids = 9_999_999_999_999_999_999_999", "18: workload.x.resources.pids: 9999999999999999999999 is out of range; allowed: 1 to 4194304".to_owned()),
        ("user = 1000", "8: workload.x.user: expected a string such as \"1000:1000\", found integer 1000; put it in quotes: \"1000\"".to_owned()),
        ("stop_timeout = 10", "16: workload.x.stop_timeout: expected a string such as \"10s\", found integer 10; write numbers and units, such as \"10s\", \"1m30s\" or \"500ms\"; units are h, m, s, ms, us".to_owned()),
        ("stop_signal = \"SIGTREM\"", "15: workload.x.stop_signal: unknown signal \"SIGTREM\"; did you mean \"SIGTERM\"?".to_owned()),
        ("tty = \"yes\"", "7: workload.x.tty: expected true or false, found string \"yes\"".to_owned()),
        ("env = [\"A=1\"]", "7: workload.x.env: expected a table, found an array".to_owned()),
        ("env = { PORT = 8080 }", "16: workload.x.env.PORT: expected a string such as \"dev\", found integer 8080; put it in quotes: \"8080\"".to_owned()),
        ("env = { \"A=B\" = \"\" }", "9: workload.x.env.\"A=B\": \"A=B\" is not a variable's name; it must not be empty, nor hold = or NUL".to_owned()),
        ("env = { A = \"\\u0000\" }", "13: workload.x.env.A: \"\\0\" is not an argument; it holds NUL".to_owned()),
        ("labels.\"a b\" = \"x\"", "8: workload.x.labels.\"a b\": \"a b\" is not a label's name; write letters, digits, . _ / -, at most 128 of them".to_owned()),
        ("working_dir = \"app\"", "15: workload.x.working_dir: \"app\" is not a path inside the workload; it must start with /".to_owned()),
        ("hostname = \"a_b\"", "12: workload.x.hostname: \"a_b\" is not a host name; write letters, digits, - and dots; each part begins and ends with a letter or digit".to_owned()),
        ("read_only = 1979-05-27", "13: workload.x.read_only: expected true or false, found a datetime".to_owned()),
        ("isolation = \"vm\"", "13: workload.x.isolation: expected a table, found string \"vm\"".to_owned()),
        ("isolation.level = \"microvm\"", "19: workload.x.isolation.level: unknown isolation \"microvm\"; one of auto, container, vm".to_owned()),
        ("trust = \"trustd\"", "9: workload.x.trust: unknown trust \"trustd\"; did you mean \"trusted\"?".to_owned()),
        ("vm.vcpus = 64", "12: workload.x.vm.vcpus: 64 is out of range; allowed: 1 to 32".to_owned()),
        ("vm.kernel = \"../x\"", "13: workload.x.vm.kernel: \"../x\" is not a kernel's name; write a name that `moat kernel ls` shows, such as \"default\"".to_owned()),
        ("shm_size = \"4095B\"", "12: workload.x.shm_size: 4095B is out of range; allowed: 4KiB to 64TiB".to_owned()),
        ("shm_size = 64", format!("12: workload.x.shm_size: expected a string such as \"64MiB\", found integer 64; {sizes}")),
        ("container.x = 1", "11: workload.x.container.x: unknown key; known: apparmor, cpuset, io_max, io_weight, selinux, swap".to_owned()),
        ("container.cpu_set = \"0\"", "11: workload.x.container.cpu_set: unknown key; did you mean \"cpuset\"?".to_owned()),
        ("container.cpuset = 0", "20: workload.x.container.cpuset: expected a string such as \"0-3\", found integer 0; put it in quotes: \"0\"".to_owned()),
        ("container.cpuset = \"3-1\"", "20: workload.x.container.cpuset: \"3-1\" is not a set of processors; 3-1 runs backwards: write 1-3".to_owned()),
        ("container.cpuset = \"0-9000\"", "20: workload.x.container.cpuset: processor 9000 is out of range; allowed: 0 to 8191".to_owned()),
        ("container.swap = \"65TiB\"", "18: workload.x.container.swap: 65TiB is out of range; allowed: 0B to 64TiB".to_owned()),
        ("container.swap = \"64M\"", "18: workload.x.container.swap: \"64M\" is not a size; did you mean \"64MiB\"?".to_owned()),
        ("container.io_weight = 0", "23: workload.x.container.io_weight: 0 is out of range; allowed: 1 to 10000".to_owned()),
        ("container.io_max.vda = { read_iops = 1 }", "18: workload.x.container.io_max.vda: \"vda\" is not a device; write the whole path of a block device, such as \"/dev/vda\"".to_owned()),
        ("container.io_max.\"/dev/vda\" = {}", "18: workload.x.container.io_max.\"/dev/vda\": has no limit; write at least one, such as { write_bps = \"10MiB\" }".to_owned()),
        ("container.io_max.\"/dev/vda\".read_bs = 1", "29: workload.x.container.io_max.\"/dev/vda\".read_bs: unknown key; did you mean \"read_bps\"?".to_owned()),
        ("container.io_max.\"/dev/vda\".read_bps = \"0B\"", "40: workload.x.container.io_max.\"/dev/vda\".read_bps: 0B is out of range; allowed: 1B to 64TiB".to_owned()),
        ("container.io_max.\"/dev/vda\".write_iops = 0", "42: workload.x.container.io_max.\"/dev/vda\".write_iops: 0 is out of range; allowed: 1 to 4294967295".to_owned()),
        ("container.io_max = { \"/dev/a\" = { read_iops = 1 }, \"/dev/./a\" = { read_iops = 2 } }", "22: workload.x.container.io_max.\"/dev/a\": a second time; write it once".to_owned()),
        ("container.apparmor = \"\"", "22: workload.x.container.apparmor: a label must not be empty".to_owned()),
        ("container.selinux = \"a\\nb\"", "21: workload.x.container.selinux: \"a\\nb\" is not a label; it must not hold line ends or other controls".to_owned()),
        ("security.landlock.read = [\"usr\"]", "27: workload.x.security.landlock.read[0]: \"usr\" is not a path inside the workload; it must start with /".to_owned()),
        ("security.landlock.raed = [\"/\"]", "10: workload.x.security.landlock: names no path, so that nothing could be run; write what it may use, such as { read = [\"/\"], write = [\"/tmp\"] }\nx.toml:4:19: workload.x.security.landlock.raed: unknown key; did you mean \"read\"?".to_owned()),
        ("security.cap_add = [\"NET_ADMN\"]", "21: workload.x.security.cap_add[0]: unknown capability \"NET_ADMN\"; did you mean \"NET_ADMIN\"?".to_owned()),
        ("rlimits.nofiles = 1", "9: workload.x.rlimits.nofiles: unknown key; did you mean \"nofile\"?".to_owned()),
        ("rlimits.core = 5", format!("16: workload.x.rlimits.core: expected a string such as \"8MiB\", found integer 5; {sizes}")),
        ("rlimits.cpu = \"500ms\"", "15: workload.x.rlimits.cpu: 500ms is out of range; allowed: whole seconds".to_owned()),
        ("rlimits.nofile = -1", "18: workload.x.rlimits.nofile: -1 is out of range; allowed: 0 to 18446744073709551614".to_owned()),
        ("rlimits.nofile = { soft = 1 }", "9: workload.x.rlimits.nofile: expected both soft and hard; write { soft = ..., hard = ... }".to_owned()),
        ("rlimits.nofile = { soft = 2, hard = 1 }", "9: workload.x.rlimits.nofile: nofile=2:1: soft is above hard; raise hard, or lower soft".to_owned()),
        ("rlimits.nofile = { soft = \"unlimited\", hard = 1 }", "9: workload.x.rlimits.nofile: nofile=unlimited:1: soft is above hard; raise hard, or lower soft".to_owned()),
    ] {
        assert_eq!(said_of(lines), format!("x.toml:4:{pin}"), "{lines}");
    }
}

#[test]
fn mounts() {
    for (lines, pin) in [
        (
            "volumes = [\"./a:/x\", \"./b:/x/\"]\ntmpfs = [\"/y\", \"/./x:1MiB\"]",
            "x.toml:4:22: workload.x.volumes[1]: /x is taken by volumes[0]; give each a place of its own\n\
             x.toml:5:16: workload.x.tmpfs[1]: /x is taken by volumes[1]; give each a place of its own",
        ),
        (
            "volumes = [\"Cache:/var/cache\"]",
            "x.toml:4:12: workload.x.volumes[0]: \"Cache\" is not a name; write a-z, 0-9 and -, \
             beginning and ending with a letter or digit",
        ),
        (
            "volumes = [\"cache:/var/cache:rslave\"]",
            "x.toml:4:12: workload.x.volumes[0]: \"cache:/var/cache:rslave\" is not a volume; the \
             host mounts nothing below a named volume; leave rslave out",
        ),
        (
            "volumes = [\"./a:/x:rx\", \"./a:/y:ro,rslav\", \"./a:/z:shared\"]",
            "x.toml:4:12: workload.x.volumes[0]: unknown volume option \"rx\"; did you mean \"ro\"?\n\
             x.toml:4:25: workload.x.volumes[1]: unknown volume option \"rslav\"; did you mean \
             \"rslave\"?\n\
             x.toml:4:44: workload.x.volumes[2]: unknown volume option \"shared\"; one of ro, rw, \
             rprivate, rslave",
        ),
        (
            "volumes = [\"./a:/x:ro,rw\"]",
            "x.toml:4:12: workload.x.volumes[0]: \"./a:/x:ro,rw\" is not a volume; one of ro and rw, \
             and one of rprivate and rslave, each at most once",
        ),
        (
            "volumes = [\"./a:/x:ro:z\"]",
            "x.toml:4:12: workload.x.volumes[0]: \"./a:/x:ro:z\" is not a volume; write \
             \"SOURCE:TARGET\" or \"SOURCE:TARGET:ro\", such as \"./src:/app/src:ro\"; paths that \
             hold a colon can't be mounted",
        ),
        (
            "shm_size = \"1GiB\"\ntmpfs = [\"/dev/shm:2GiB\"]",
            "x.toml:4:1: workload.x.shm_size: /dev/shm is taken by tmpfs[0], to which it does not \
             apply; keep one of them",
        ),
        (
            "tmpfs = [\"/proc\"]",
            "x.toml:4:10: workload.x.tmpfs[0]: \"/proc\" is not a place for a mount; /proc, /sys and \
             /dev are moat's own; name another",
        ),
    ] {
        assert_eq!(said_of(lines), pin, "{lines}");
    }
}

#[test]
fn what_contradicts_itself() {
    for (lines, pin) in [
        (
            "isolation = { level = \"container\", min = \"vm\" }",
            "x.toml:4:15: workload.x.isolation.level: \"container\" is below isolation.min, which is \
             \"vm\"; write level = \"vm\", or lower min",
        ),
        (
            "security = { cap_add = [\"KILL\"], cap_drop = [\"cap_kill\"] }",
            "x.toml:4:34: workload.x.security.cap_drop: CAP_KILL is in cap_add too; keep it in one of \
             them",
        ),
        (
            "container = { apparmor = \"a\", selinux = \"b\" }",
            "x.toml:4:31: workload.x.container.selinux: a second label, besides apparmor; keep the \
             one that the host has",
        ),
        (
            "security.landlock = {}",
            "x.toml:4:10: workload.x.security.landlock: names no path, so that nothing could be run; \
             write what it may use, such as { read = [\"/\"], write = [\"/tmp\"] }",
        ),
    ] {
        assert_eq!(said_of(lines), pin, "{lines}");
    }
    assert_eq!(
        said("[workload.x]\nimage = \"alpine\"\ntrust = \"trusted\""),
        "x.toml:2:1: workload.x.image: \"alpine\" is not supported yet; use image = \"host\" or \
         rootfs = \"./directory\"\n\
         x.toml:3:1: workload.x.trust: a spec may lower trust, never raise it; leave it out; a \
         policy may trust what was pulled"
    );
}

/// A valid key that nothing implements is refused by name, and a typo inside it is found all the
/// same.
#[test]
fn not_supported_yet() {
    for (lines, pin) in [
        ("ports = [\"8080:80\"]", "4:1: workload.x.ports: not supported yet"),
        (
            "ports = [\"8080\"]",
            "4:1: workload.x.ports: not supported yet\n\
             x.toml:4:10: workload.x.ports[0]: \"8080\" is not a port; write \"8080:8080\" or \
             \"127.0.0.1:8080:80/udp\"",
        ),
        (
            "restart = \"always\"",
            "4:1: workload.x.restart: \"always\" is not supported yet; only \"no\" is",
        ),
        (
            "restart = \"alway\"",
            "4:11: workload.x.restart: unknown restart rule \"alway\"; did you mean \"always\"?",
        ),
        ("depends_on = { x = \"started\" }", "4:1: workload.x.depends_on: not supported yet"),
        (
            "depends_on = { y = \"startd\" }",
            "4:1: workload.x.depends_on: not supported yet\n\
             x.toml:4:16: workload.x.depends_on.y: no workload \"y\"; did you mean \"x\"?\n\
             x.toml:4:20: workload.x.depends_on.y: unknown condition \"startd\"; did you mean \
             \"started\"?",
        ),
        (
            "network.mode = \"nat\"",
            "4:9: workload.x.network.mode: \"nat\" is not supported yet; only \"none\" is",
        ),
        (
            "network.mode = \"bridge:br0\"",
            "4:9: workload.x.network.mode: \"bridge:br0\" is not supported yet; only \"none\" is",
        ),
        (
            "network.mode = \"non\"",
            "4:16: workload.x.network.mode: unknown network \"non\"; did you mean \"none\"?",
        ),
        (
            "security.seccomp = \"defualt\"",
            "4:20: workload.x.security.seccomp: unknown filter \"defualt\"; did you mean \"default\"?",
        ),
        (
            "[workload.x.healthcheck]\ncomand = [\"true\"]\nretries = 0",
            "4:13: workload.x.healthcheck: not supported yet\n\
             x.toml:5:1: workload.x.healthcheck.comand: unknown key; did you mean \"command\"?\n\
             x.toml:6:11: workload.x.healthcheck.retries: 0 is out of range; allowed: 1 to 1000",
        ),
        (
            "[workload.x.secrets]\nA = \"x\"\nB = { file = \"x\", env = \"y\" }",
            "4:13: workload.x.secrets: not supported yet\n\
             x.toml:5:5: workload.x.secrets.A: expected a table, found string \"x\"\n\
             x.toml:6:1: workload.x.secrets.B: expected exactly one of file, env, command, found 2",
        ),
    ] {
        assert_eq!(said_of(lines), format!("x.toml:{pin}"), "{lines}");
    }
    for right in ["restart = \"no\"", "network.mode = \"none\"", "security.seccomp = \"default\""] {
        assert_eq!(said_of(right), "");
    }
}

#[test]
fn hostile_text_is_escaped() {
    let said = said_of("\"\\u001b[31m\\n\" = 1\ntrust = \"\\u001b]0;x\\u0007\"");
    assert_eq!(
        said,
        "x.toml:4:1: workload.x.\"\\u{1b}[31m\\n\": unknown key; `moat schema` prints all keys\n\
         x.toml:5:9: workload.x.trust: unknown trust \"\\u{1b}]0;x\\u{7}\"; one of untrusted, trusted"
    );
}

#[test]
fn problems_are_json_too() {
    let place = Place { line: 4, column: 1 };
    let problem = Problem::new("x.toml", "unknown key").at(place).key("a.b").help("c");
    assert_eq!(
        serde_json::to_value(&problem).expect("serializes"),
        serde_json::json!({
            "file": "x.toml", "line": 4, "column": 1, "key": "a.b", "message": "unknown key",
            "help": "c",
        })
    );
    let problems = Problems::from(Problem::new("x.toml", "is empty"));
    assert_eq!(
        serde_json::to_value(&problems).expect("serializes"),
        serde_json::json!({
            "problems": [{ "file": "x.toml", "key": null, "message": "is empty", "help": null }],
            "omitted": 0,
        })
    );
}
