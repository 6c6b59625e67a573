//! What a spec means.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use moat_core::spec::{
    Bytes, Capability, ContainerOptions, Context, Cpus, DEFAULT_CAPABILITIES, IoMax, Isolation,
    Landlock, Level, Resolved, Resource, Rlimit, Root, Seccomp, Trust, User, VolumeSource, parse,
};

fn no_file(_: &Path) -> io::Result<String> {
    Err(io::Error::from(io::ErrorKind::NotFound))
}

fn context() -> Context<'static> {
    Context {
        base_dir: Path::new("/repo"),
        home: Some(Path::new("/home/me")),
        read_env_file: &no_file,
        isolation: None,
        command: &[],
    }
}

/// A workload with these lines besides `image = "host"`.
fn resolved(lines: &str) -> Resolved {
    let text = format!("[workload.x]\nimage = \"host\"\ncommand = [\"true\"]\n{lines}\n");
    let spec = parse(&text, "x.toml").unwrap_or_else(|problems| panic!("{problems}"));
    spec.resolve("x", &context()).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn defaults() {
    let workload = resolved("");
    assert_eq!(workload.name.as_str(), "x");
    assert_eq!(workload.hostname.as_str(), "x");
    assert_eq!(workload.root, Root::Host);
    assert_eq!(workload.argv, ["true"]);
    assert_eq!(workload.working_dir.as_str(), "/");
    assert_eq!(workload.user, User::ROOT);
    assert_eq!(workload.trust, Trust::Trusted);
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(workload.env, BTreeMap::from([("PATH".to_owned(), path.to_owned())]));
    assert_eq!((workload.read_only, workload.init, workload.tty), (false, true, None));
    assert_eq!(workload.stop_signal.to_string(), "SIGTERM");
    assert_eq!(workload.stop_timeout, Duration::from_secs(10));
    assert_eq!(workload.isolation.level, Level::Auto);
    assert_eq!((workload.isolation.min, workload.isolation.flag), (None, None));
    assert_eq!(workload.resources.cpus, Cpus::from_milli(1000));
    assert_eq!(workload.resources.memory, Bytes::mib(512));
    assert_eq!(workload.resources.pids, 512);
    assert!(workload.security.no_new_privileges);
    assert_eq!(workload.security.capabilities(), DEFAULT_CAPABILITIES);
    assert_eq!((workload.vm.vcpus, workload.vm.kernel), (1, None));
    assert!(workload.volumes.is_empty() && workload.tmpfs.is_empty());
    assert_eq!(workload.shm_size, Bytes::mib(64));
    assert_eq!((workload.security.seccomp, workload.security.landlock), (Seccomp::Default, None));
    assert_eq!(workload.container, ContainerOptions::default());
    assert!(workload.rlimits.is_empty() && workload.inert.is_empty());
}

#[test]
fn a_command_of_the_command_line_stands_in_for_the_specs_own() {
    let text =
        "[workload.x]\nimage = \"host\"\nentrypoint = [\"echo\", \"-n\"]\ncommand = [\"own\"]\n";
    let spec = parse(text, "x.toml").expect("valid");
    let command = ["given".to_owned()];
    let resolved = spec.resolve("x", &Context { command: &command, ..context() });
    assert_eq!(resolved.expect("valid").argv, ["echo", "-n", "given"]);
}

#[test]
fn everything_that_is_supported() {
    let text = r#"
[workload.api]
rootfs = "./rootfs"
entrypoint = ["serve"]
command = ["--port", "8080"]
working_dir = "/app/"
user = "1000:1000"
hostname = "api.local"
trust = "untrusted"
labels = { team = "payments" }
env = { MODE = "dev", PATH = "/bin" }
env_file = [".env", "~/.env"]
volumes = ["./src:/app/src:ro", "~/.npmrc:/root/.npmrc", "cache:/var/cache", "/m:/m:rslave"]
shm_size = "1GiB"
tmpfs = ["/tmp:64MiB", "/run"]
read_only = true
init = false
tty = false
restart = "no"
stop_signal = "INT"
stop_timeout = "1m30s"
[workload.api.isolation]
level = "vm"
min = "container"
objective = "density"
[workload.api.resources]
cpus = 1.5
memory = "1GiB"
pids = 64
[workload.api.network]
mode = "none"
[workload.api.security]
cap_add = ["NET_ADMIN"]
cap_drop = ["CAP_KILL"]
no_new_privileges = false
seccomp = "filters/web.json"
landlock = { read = ["/usr/"], write = ["/tmp"] }
[workload.api.rlimits]
nofile = { soft = 1024, hard = "unlimited" }
core = 0
stack = "8MiB"
cpu = "1m"
rttime = "200ms"
[workload.api.vm]
kernel = "6.12"
[workload.api.container]
cpuset = "3,0-1"
swap = "64MiB"
io_weight = 50
io_max = { "/dev/../dev/vda" = { read_bps = "10MiB", write_iops = 100 } }
apparmor = "web"
"#;
    let spec = parse(text, "api.toml").unwrap_or_else(|problems| panic!("{problems}"));
    let read = |path: &Path| match path.to_str() {
        Some("/repo/.env") => Ok("A=1\nB=1\nMODE=x\n".to_owned()),
        Some("/home/me/.env") => Ok("B=2\n".to_owned()),
        _ => no_file(path),
    };
    let context = Context { read_env_file: &read, isolation: Some(Level::Container), ..context() };
    let name = spec.pick(None).expect("one workload").as_str();
    let workload = spec.resolve(name, &context).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(workload.root, Root::Directory(PathBuf::from("/repo/rootfs")));
    assert_eq!(workload.argv, ["serve", "--port", "8080"]);
    assert_eq!(workload.working_dir.as_str(), "/app");
    assert_eq!(workload.user.to_string(), "1000:1000");
    assert_eq!(workload.hostname.as_str(), "api.local");
    assert_eq!(workload.trust, Trust::Untrusted);
    assert_eq!(workload.labels["team"], "payments");
    let env: Vec<_> = workload.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(env, ["A=1", "B=2", "MODE=dev", "PATH=/bin"]);
    let volumes: Vec<_> = workload.volumes.iter().map(ToString::to_string).collect();
    assert_eq!(
        volumes,
        [
            "/repo/src:/app/src:ro",
            "/home/me/.npmrc:/root/.npmrc",
            "cache:/var/cache",
            "/m:/m:rslave"
        ]
    );
    assert_eq!(workload.volumes[2].source, VolumeSource::Named("cache".parse().unwrap()));
    assert_eq!(workload.shm_size, Bytes::gib(1));
    let tmpfs: Vec<_> = workload.tmpfs.iter().map(ToString::to_string).collect();
    assert_eq!(tmpfs, ["/tmp:64MiB", "/run"]);
    assert_eq!((workload.read_only, workload.init, workload.tty), (true, false, Some(false)));
    assert_eq!(workload.stop_signal.to_string(), "SIGINT");
    assert_eq!(workload.stop_timeout, Duration::from_secs(90));
    assert_eq!(
        (workload.isolation.level, workload.isolation.flag),
        (Level::Vm, Some(Level::Container))
    );
    assert_eq!(workload.isolation.min, Some(Isolation::Container));
    assert_eq!(workload.resources.cpus, Cpus::from_milli(1500));
    assert_eq!((workload.resources.memory, workload.resources.pids), (Bytes::gib(1), 64));
    assert!(!workload.security.no_new_privileges);
    assert_eq!(workload.security.seccomp, Seccomp::File("/repo/filters/web.json".into()));
    let paths = |path: &str| vec![path.parse().unwrap()];
    let landlock = Landlock { read: paths("/usr"), write: paths("/tmp") };
    assert_eq!(workload.security.landlock, Some(landlock));
    let io_max =
        IoMax { read_bps: Some(Bytes::mib(10)), write_iops: Some(100), ..IoMax::default() };
    assert_eq!(
        workload.container,
        ContainerOptions {
            cpuset: Some("0-1,3".parse().unwrap()),
            swap: Bytes::mib(64),
            io_weight: Some(50),
            io_max: BTreeMap::from([("/dev/vda".into(), io_max)]),
            apparmor: Some("web".to_owned()),
            selinux: None,
        }
    );
    let limit = |resource, soft, hard| Rlimit { resource, soft, hard };
    assert_eq!(
        workload.rlimits,
        [
            limit(Resource::Core, Some(0), Some(0)),
            limit(Resource::Cpu, Some(60), Some(60)),
            limit(Resource::Nofile, Some(1024), None),
            limit(Resource::Rttime, Some(200_000), Some(200_000)),
            limit(Resource::Stack, Some(8 << 20), Some(8 << 20)),
        ]
    );
    assert_eq!((workload.vm.vcpus, workload.vm.kernel.as_deref()), (2, Some("6.12")));
    let inert: Vec<_> = workload.inert.iter().map(|inert| (inert.key.as_str(), inert.on)).collect();
    assert_eq!(
        inert,
        [
            ("vm.kernel", Isolation::Container),
            ("container.cpuset", Isolation::Vm),
            ("container.swap", Isolation::Vm),
            ("container.io_weight", Isolation::Vm),
            ("container.io_max", Isolation::Vm),
            ("container.apparmor", Isolation::Vm),
        ]
    );
}

#[test]
fn vcpus_follow_cpus() {
    for (lines, vcpus) in [
        ("resources.cpus = 0.1", 1),
        ("resources.cpus = 2", 2),
        ("resources.cpus = 2.5", 3),
        ("resources.cpus = 200", 32),
        ("resources.cpus = 4\nvm.vcpus = 2", 2),
    ] {
        assert_eq!(resolved(lines).vm.vcpus, vcpus, "{lines}");
    }
    assert_eq!(resolved("vm.kernel = \"default\"").vm.kernel, None);
}

#[test]
fn capabilities_are_the_default_less_dropped_and_added() {
    let kept = |lines: &str| resolved(lines).security.capabilities();
    assert_eq!(kept("security.cap_drop = [\"ALL\"]"), []);
    assert_eq!(
        kept("security = { cap_drop = [\"ALL\"], cap_add = [\"NET_ADMIN\", \"chown\"] }"),
        [Capability::CHOWN, Capability::NET_ADMIN]
    );
    assert_eq!(kept("security.cap_add = [\"ALL\"]"), Capability::ALL);
    let but_one = kept("security = { cap_add = [\"ALL\"], cap_drop = [\"SYS_ADMIN\"] }");
    assert_eq!(but_one.len(), Capability::ALL.len() - 1);
    assert!(!but_one.contains(&Capability::SYS_ADMIN));
    assert!(!kept("security.cap_drop = [\"KILL\"]").contains(&Capability::KILL));
}

#[test]
fn environment_files_have_their_own_lines() {
    let text = "[workload.x]\nimage = \"host\"\ncommand = [\"a\"]\nenv_file = [\"a\", \"b\"]";
    let spec = parse(text, "x.toml").expect("valid");
    let read = |path: &Path| {
        if path.ends_with("a") { Ok("A=1\nB\n".to_owned()) } else { no_file(path) }
    };
    let context = Context { read_env_file: &read, ..context() };
    let problems = spec.resolve("x", &context).expect_err("wrong files");
    assert_eq!(
        problems.to_string(),
        "/repo/a:2:1: \"B\" has no =; write KEY=VALUE\n\
         x.toml:4:18: workload.x.env_file[1]: can't read /repo/b: entity not found"
    );
}

#[test]
fn a_home_is_needed_for_its_sign_alone() {
    let text = "[workload.x]\nimage = \"host\"\ncommand = [\"a\"]\nvolumes = [\"~/a:/a\"]";
    let spec = parse(text, "x.toml").expect("valid");
    let problems = spec.resolve("x", &Context { home: None, ..context() }).expect_err("no home");
    assert_eq!(
        problems.to_string(),
        "x.toml:4:12: workload.x.volumes[0]: \"~/a\" is not a path that can be found; HOME is not \
         set; write the whole path"
    );
}

#[test]
fn too_much_for_the_kernel() {
    let text = "[workload.x]\nimage = \"host\"\ncommand = [\"a\"]\nenv_file = [\"a\",\"b\",\"c\",\"d\",\"e\"]";
    let spec = parse(text, "x.toml").expect("valid");
    let read = |path: &Path| {
        let lines = (0..9).map(|n| {
            format!("{}{n}={}\n", path.display().to_string().replace('/', "_"), "x".repeat(100_000))
        });
        Ok(lines.collect())
    };
    let problems = spec.resolve("x", &Context { read_env_file: &read, ..context() });
    assert_eq!(
        problems.expect_err("too much").to_string(),
        "x.toml: arguments and environment of 4500518 bytes are too large; at most 4194304 bytes \
         together"
    );
}

#[test]
fn a_workload_is_picked() {
    let body = "image = \"host\"\ncommand = [\"a\"]\n";
    let text = format!("[workload.api]\n{body}[workload.db]\n{body}");
    let spec = parse(&text, "x.toml").expect("valid");
    let said = |name| spec.pick(name).map(ToString::to_string).map_err(|p| p.to_string());
    assert_eq!(said(Some("db")).as_deref(), Ok("db"));
    assert_eq!(said(Some("apo")), Err("x.toml: no workload \"apo\"; did you mean \"api\"?".into()));
    assert_eq!(said(Some("zzz")), Err("x.toml: no workload \"zzz\"; it has api, db".into()));
    assert_eq!(said(None), Err("x.toml: has 2 workloads; name one: api, db".into()));
    assert!(spec.resolve("zzz", &context()).is_err());
}

#[test]
fn a_command_without_a_file() {
    let argv = || vec!["make".to_owned(), "test".to_owned()];
    let workload = Resolved::for_command(argv(), "/home/me/My Project".into(), Some(Level::Vm));
    let workload = workload.unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(workload.name.as_str(), "my-project");
    assert_eq!(workload.argv, argv());
    assert_eq!(workload.root, Root::Host);
    assert_eq!(workload.working_dir.as_str(), "/home/me/My Project");
    let volumes: Vec<_> = workload.volumes.iter().map(ToString::to_string).collect();
    assert_eq!(volumes, ["/home/me/My Project:/home/me/My Project"]);
    assert_eq!(workload.trust, Trust::Trusted);
    assert_eq!(workload.isolation.flag, Some(Level::Vm));
    let same = resolved("");
    assert_eq!((workload.resources, workload.security), (same.resources, same.security));
    assert_eq!(workload.env, same.env);

    for (argv, cwd, pin) in [
        (
            argv(),
            "/",
            "command line: the current directory can't be mounted: \"/\" is not a place for a mount; change to a directory of your own, or write a spec",
        ),
        (
            argv(),
            "/proc/1",
            "command line: the current directory can't be mounted: \"/proc/1\" is not a place for a mount; change to a directory of your own, or write a spec",
        ),
        (
            vec![],
            "/x",
            "command line: no command; write what runs after --, such as moat run -- make test",
        ),
        (
            vec![String::new()],
            "/x",
            "command line: no command; write what runs after --, such as moat run -- make test",
        ),
    ] {
        let problems = Resolved::for_command(argv, cwd.into(), None).expect_err(cwd);
        assert_eq!(problems.to_string(), pin);
    }
}
