//! Files that nobody means well with: each gives an error, soon, and never a crash.

use std::time::{Duration, Instant};

use moat_core::spec::{FILE_LIMIT, Problems, parse};

/// Far above what a debug build on a loaded machine needs (about a second), far below what
/// anything quadratic would take for a megabyte.
const SOON: Duration = Duration::from_secs(60);

/// A quarter is enough to tell a line from a parabola, where a line costs seconds.
const QUARTER: usize = FILE_LIMIT / 4;

fn refused(text: &[u8]) -> Problems {
    parse(text, "x.toml").expect_err("refused")
}

#[test]
fn not_text() {
    for (bytes, pin) in [
        (&b"a = 1\0"[..], "x.toml: is a binary file: NUL at byte 5; a spec is a TOML file"),
        (
            b"\x7fELF\x02\x01\x01\0\0",
            "x.toml: is a binary file: NUL at byte 7; a spec is a TOML file",
        ),
        (b"a = \"\xff\"", "x.toml: is not UTF-8: 0xff at byte 5; a spec is a TOML file"),
        (b"a = \"\xe6\x97", "x.toml: is not UTF-8: 0xe6 at byte 5; a spec is a TOML file"),
    ] {
        assert_eq!(refused(bytes).to_string(), pin);
    }
}

#[test]
fn too_large() {
    let large = vec![b'#'; FILE_LIMIT + 1];
    assert_eq!(
        refused(&large).to_string(),
        "x.toml: 1048577 bytes are too many for a spec; at most 1048576 bytes"
    );
    let mut just_fits = b"[workload.x]\nimage=\"host\"\ncommand=[\"a\"]\n".to_vec();
    just_fits.resize(FILE_LIMIT, b'#');
    assert!(parse(just_fits, "x.toml").is_ok());
}

/// A megabyte of each of these once made some parser overflow its stack or take minutes.
#[test]
fn a_megabyte_of_anything() {
    let fill = |head: &str, piece: &str, tail: &str| {
        let room = FILE_LIMIT - head.len() - tail.len();
        format!("{head}{}{tail}", piece.repeat(room / piece.len()))
    };
    let numbered = |head: &str, piece: &dyn Fn(usize) -> String| {
        let mut text = head.to_owned();
        for index in 0.. {
            let piece = piece(index);
            if text.len() + piece.len() > QUARTER {
                break;
            }
            text.push_str(&piece);
        }
        text
    };
    let workload = "[workload.x]\nimage = \"host\"\ncommand = [\"a\"]\n";
    let volumes = format!("{workload}volumes = [");
    let env = format!("{workload}[workload.x.env]\n");
    let cases = [
        ("open arrays", fill("a = ", "[", "")),
        ("nested arrays", format!("a = {}{}", "[".repeat(500_000), "]".repeat(500_000))),
        ("open inline tables", fill("a = ", "{a=", "")),
        ("table headers", fill("", "[", "")),
        ("dotted key", fill("a", ".a", " = 1")),
        ("dotted header", fill("[a", ".a", "]")),
        ("quotes", fill("a = ", "\"", "")),
        ("equals", fill("a ", "=", "")),
        ("commas", fill("a = [", ",", "]")),
        ("lines of nonsense", "=\n".repeat(QUARTER / 2)),
        ("the same table", fill("", "[workload.x]\n", "")),
        ("the same key", format!("{workload}{}", "a=1\n".repeat(QUARTER / 4))),
        ("array of tables", fill("", "[[a]]\n", "")),
        ("unknown keys", numbered(workload, &|n| format!("comand{n}=1\n"))),
        ("wrong volumes on a line", fill(&volumes, "\"x\",", "]")),
        (
            "wrong environment on a line",
            numbered(&format!("{workload}env={{"), &|n| format!("A{n}=1,")),
        ),
        ("environment", numbered(&env, &|n| format!("A{n}=1\n"))),
        ("workloads", numbered("", &|n| format!("[workload.x{n}]\ntrust=\"trustd\"\n"))),
        (
            "dependencies",
            numbered(&format!("{workload}[workload.x.depends_on]\n"), &|n| {
                format!("a{n}=\"startd\"\n")
            }),
        ),
        ("a long line of characters", fill("a = \"", "日", "")),
    ];
    for (what, text) in cases {
        let begin = Instant::now();
        let problems = refused(text.as_bytes());
        let took = begin.elapsed();
        println!("{what}: {took:?}, {} problems", problems.count());
        assert!(took < SOON, "{what} took {took:?}");
        assert!(problems.problems.len() <= Problems::LIMIT, "{what}");
        assert!(problems.to_string().len() < 100_000, "{what}");
    }
}

#[test]
fn what_is_not_shown_is_counted() {
    let mut text = "[workload.x]\nimage = \"host\"\ncommand = [\"a\"]\n".to_owned();
    for index in 0..150 {
        text.push_str(&format!("unheard_of_{index} = 1\n"));
    }
    let problems = refused(text.as_bytes());
    assert_eq!((problems.problems.len(), problems.omitted), (100, 50));
    assert_eq!(problems.to_string().lines().last(), Some("and 50 more"));
}
