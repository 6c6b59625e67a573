//! stdin, stdout and stderr that are files of one of the workload's users.
//!
//! These bite: handed over as they were, a plain user's workload wrote to the file that it was given
//! to read, and made the one it was given to write setuid.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::Named;
use crate::run::Case;

/// Nobody's on any machine.
const UID: u32 = 54_321;

pub(super) const CASES: &[Named] = &[
    ("a file that the workload reads is not its to write", input),
    ("a log that it writes to is not its to rewrite", log),
    ("a file that it writes gets no other mode", mode),
    ("what it has not read of a file is left to the next reader", left),
    ("what can't be written to a file is told", full),
    ("stdout and stderr to one file keep their order", order),
];

fn file(case: &Case, name: &str, text: &str) -> PathBuf {
    let path = case.dir.path().join(name);
    fs::write(&path, text).unwrap();
    chown(&path, Some(UID), Some(UID)).unwrap();
    path
}

fn run(case: &Case, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> (Option<i32>, String) {
    let mut command = case.command();
    let child = command.stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn append(path: &Path) -> File {
    File::options().append(true).open(path).unwrap()
}

fn input() {
    let script = "cat; echo evil >> /proc/self/fd/0; echo evil > /dev/stdin; \
        chmod 4777 /proc/self/fd/0; chmod 4777 /dev/stdin; exit 0";
    let case = Case::shell(script).user(UID);
    let path = file(&case, "input", "good\n");
    let before = fs::metadata(&path).unwrap().mode();
    let out = file(&case, "out", "");
    let (status, _) =
        run(&case, File::open(&path).unwrap().into(), append(&out).into(), Stdio::piped());
    assert_eq!(status, Some(0));
    assert_eq!(fs::read_to_string(&out).unwrap(), "good\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "good\n");
    assert_eq!(fs::metadata(&path).unwrap().mode(), before);
}

fn log() {
    let script = "echo new; truncate -s 0 /proc/self/fd/1; \
        : > /dev/stdout; python3 -c 'import os; os.ftruncate(1, 0)'; echo last; exit 3";
    let case = Case::shell(script).user(UID);
    let path = file(&case, "log", "old\n");
    let (status, _) = run(&case, Stdio::null(), append(&path).into(), Stdio::piped());
    assert_eq!(status, Some(3));
    assert_eq!(fs::read_to_string(&path).unwrap(), "old\nnew\nlast\n");
}

fn mode() {
    let case = Case::host(&["python3", "-c", "import os; os.fchmod(1, 0o4755)"]).user(UID);
    let path = file(&case, "out", "");
    let before = fs::metadata(&path).unwrap().mode();
    run(&case, Stdio::null(), append(&path).into(), Stdio::piped());
    assert_eq!(fs::metadata(&path).unwrap().mode(), before);
}

fn left() {
    let case = Case::shell("dd bs=1 count=4 2>/dev/null >/dev/null").user(UID);
    let path = file(&case, "input", "one\ntwo\n");
    let mut input = File::open(&path).unwrap();
    let (status, said) =
        run(&case, input.try_clone().unwrap().into(), Stdio::null(), Stdio::piped());
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(input.stream_position().unwrap(), 4);
    let mut rest = String::new();
    input.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "two\n");
}

fn full() {
    let case = Case::shell("head -c 100000 /dev/zero; exit 0").user(UID);
    let place = case.dir.path().join("full");
    fs::create_dir(&place).unwrap();
    let inner = case.command();
    let mut command = std::process::Command::new("unshare");
    let script = format!(
        "mount -t tmpfs -o size=8k none {0}; touch {0}/out; chown {UID} {0}/out; \
         exec \"$@\" > {0}/out",
        place.display()
    );
    command.args(["--mount", "sh", "-ec", &script, "sh"]);
    command.arg(inner.get_program()).args(inner.get_args());
    for (key, value) in inner.get_envs() {
        command.env(key, value.unwrap_or_default());
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(125) && said.contains("could be written"), "{output:?}");
    assert!(said.contains("o space left"), "{output:?}");
}

fn order() {
    let case = Case::shell("for i in 1 2 3 4; do echo out $i; echo err $i >&2; done").user(UID);
    let path = file(&case, "log", "");
    let log = append(&path);
    run(&case, Stdio::null(), log.try_clone().unwrap().into(), log.into());
    let lines: Vec<String> = (1..5).map(|i| format!("out {i}\nerr {i}\n")).collect();
    assert_eq!(fs::read_to_string(&path).unwrap(), lines.concat());
}
