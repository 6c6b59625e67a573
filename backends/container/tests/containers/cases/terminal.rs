//! The workload's terminal.

use super::Named;
use crate::run::Case;

pub(super) const CASES: &[Named] = &[
    ("a terminal has the size it was given", size),
    ("a terminal's size can change", resize),
    ("stdin reaches the terminal, and its end", input),
    ("all output of a terminal arrives", output),
    ("the terminal is the user's", owner),
];

fn on_terminal(script: &str) -> Case {
    Case::shell(script).var("MOAT_TEST_TERMINAL", "91x37")
}

fn size() {
    on_terminal("stty size; test -t 0 && test -t 1 && test -t 2 && echo all; tty; test -c /dev/console && echo console")
        .run()
        .says("37 91\r\nall\r\n/dev/pts/0\r\nconsole");
}

fn resize() {
    let script = "trap 'stty size; exit' WINCH; echo; while :; do sleep 0.05; done";
    let outcome = on_terminal(script).var("MOAT_TEST_RESIZE", "120x50").run();
    outcome.says("\r\n50 120");
}

fn input() {
    let outcome = on_terminal("stty -echo; echo ready; cat; echo end").run_with(b"one\ntwo\n");
    assert!(outcome.out.ends_with("one\r\ntwo\r\nend\r\n"), "{outcome:?}");
}

fn output() {
    let outcome = on_terminal("seq 1 100000").run();
    assert_eq!(outcome.out.lines().count(), 100_000);
    assert!(outcome.out.ends_with("100000\r\n"));
}

fn owner() {
    let case = on_terminal("stat -c %u /dev/pts/0; echo x > /dev/tty && echo y > /dev/pts/0");
    case.with(|workload| workload.user = "1000:1000".parse().unwrap()).run().says("1000\r\nx\r\ny");
}
