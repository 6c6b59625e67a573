//! Workloads for the cases, and what became of them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use moat_core::spec::{GuestPath, Resolved, Root};

/// A workload to run.
pub(crate) struct Case {
    pub(crate) workload: Resolved,
    pub(crate) dir: tempfile::TempDir,
    vars: Vec<(String, String)>,
    user: Option<u32>,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn argv(argv: &[&str]) -> Vec<String> {
    argv.iter().map(|word| (*word).to_owned()).collect()
}

impl Case {
    /// A command in the host's root, without volumes.
    pub(crate) fn host(command: &[&str]) -> Self {
        let mut workload = Resolved::for_command(argv(command), "/src".into(), None).unwrap();
        workload.volumes.clear();
        workload.working_dir = GuestPath::root();
        Self { workload, dir: tempfile::tempdir().unwrap(), vars: Vec::new(), user: None }
    }

    pub(crate) fn shell(script: &str) -> Self {
        Self::host(&["/bin/sh", "-c", script])
    }

    /// A command in a root of busybox alone.
    pub(crate) fn busybox(script: &str) -> Self {
        let mut case = Self::host(&["/bin/sh", "-c", script]);
        case.workload.root = Root::Directory(case.busybox_root());
        case
    }

    fn busybox_root(&self) -> PathBuf {
        let root = self.dir.path().join("rootfs");
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::copy("/usr/bin/busybox", root.join("bin/busybox")).unwrap();
        for name in [
            "sh", "ls", "cat", "id", "stat", "touch", "mkdir", "mount", "hostname", "sleep", "rm",
            "grep", "env", "true", "wc",
        ] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        std::fs::write(
            root.join("etc/passwd"),
            "root:x:0:0:r:/root:/bin/sh\nann:x:1000:1000:a:/home/ann:/bin/sh\n",
        )
        .unwrap();
        std::fs::write(root.join("etc/group"), "root:x:0:\nann:x:1000:\nwheel:x:10:ann\n").unwrap();
        root
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Resolved)) -> Self {
        change(&mut self.workload);
        self
    }

    pub(crate) fn var(mut self, key: &str, value: &str) -> Self {
        self.vars.push((key.to_owned(), value.to_owned()));
        self
    }

    /// As this plain user.
    pub(crate) fn user(mut self, uid: u32) -> Self {
        self.user = Some(uid);
        self
    }

    /// The program that is moat is then a file of its own, and of whoever starts it.
    pub(crate) fn with_own_program(self) -> Self {
        use std::os::unix::fs::chown;
        let program = self.program();
        if !program.exists() {
            copy_program(&std::env::current_exe().unwrap(), &program);
        }
        let owner = Some(self.user.unwrap_or(0));
        chown(&program, owner, owner).unwrap();
        self
    }

    /// Where that is.
    pub(crate) fn program(&self) -> PathBuf {
        self.dir.path().join("monitor")
    }

    /// The instance's directory.
    pub(crate) fn instance(&self) -> PathBuf {
        let name = format!("test-{}", self.dir.path().file_name().unwrap().to_str().unwrap());
        self.dir.path().join(name.replace('.', ""))
    }

    pub(crate) fn command(&self) -> Command {
        let instance = self.instance();
        let _ = std::fs::create_dir(&instance);
        let mut command = match self.user {
            None if self.program().exists() => Command::new(self.program()),
            None => Command::new(std::env::current_exe().unwrap()),
            Some(uid) => {
                let all = std::fs::Permissions::from_mode(0o755);
                std::fs::set_permissions(self.dir.path(), all).unwrap();
                std::os::unix::fs::chown(&instance, Some(uid), Some(uid)).unwrap();
                // Where a plain user may reach it.
                let program = self.program();
                if !program.exists() {
                    copy_program(&std::env::current_exe().unwrap(), &program);
                }
                let mut command = Command::new("setpriv");
                let ids = [format!("--reuid={uid}"), format!("--regid={uid}")];
                command.args(ids).arg("--clear-groups").arg(program);
                command
            }
        };
        use std::os::unix::fs::PermissionsExt;
        command
            .env("MOAT_TEST_WORKLOAD", serde_json::to_string(&self.workload).unwrap())
            .env("MOAT_TEST_DIR", &instance)
            .envs(self.vars.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn spawn(&self) -> Child {
        self.command().spawn().unwrap()
    }

    /// Runs it to its end, and sees that nothing is left.
    pub(crate) fn run(&self) -> Outcome {
        self.run_with(b"")
    }

    pub(crate) fn run_with(&self, input: &[u8]) -> Outcome {
        let mut child = self.command().stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let outcome = std::thread::scope(|scope| {
            scope.spawn(move || {
                let _ = stdin.write_all(input);
            });
            child.wait_with_output().unwrap()
        });
        self.assert_nothing_left();
        Outcome {
            code: outcome.status.code(),
            out: String::from_utf8_lossy(&outcome.stdout).into_owned(),
            err: String::from_utf8_lossy(&outcome.stderr).into_owned(),
        }
    }

    /// No cgroup, no mount and no process of it.
    pub(crate) fn assert_nothing_left(&self) {
        let name = self.instance().file_name().unwrap().to_str().unwrap().to_owned();
        for group in groups() {
            assert!(!group.join(&name).exists(), "cgroup {name} is left in {}", group.display());
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&name), "a mount is left: {mounts}");
    }
}

/// Copies a program, in a process aside: one of this process's own that is forked meanwhile would
/// hold the copy open for writing, and what is can't be executed.
pub(crate) fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("install").args(["-m", "755"]).args([from, to]).status().unwrap();
    assert!(copied.success());
}

/// moat's own groups.
pub(crate) fn groups() -> Vec<PathBuf> {
    let found = moat_host::cgroup::everywhere();
    assert!(!found.0.is_empty(), "this host has no cgroups");
    let parents = found.parents().into_iter().map(Path::to_owned);
    parents.chain(moat_host::cgroup::freezer()).collect()
}

impl Outcome {
    /// Ended with 0 and this output.
    #[track_caller]
    pub(crate) fn says(&self, expected: &str) {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert_eq!(self.out.trim_end(), expected.trim_end(), "{self:?}");
    }

    #[track_caller]
    pub(crate) fn ends_with(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn complains(&self, text: &str) -> &Self {
        assert!(self.err.contains(text), "{text:?} is not in {self:?}");
        self
    }
}

/// Whether this process with a command line that holds `mark` is there.
pub(crate) fn is_running(mark: &str) -> bool {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| String::from_utf8_lossy(&line).replace('\0', " ").trim() == mark)
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{what}: not within 5 s");
}

pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
