//! Files of `KEY=VALUE` lines.

use super::default::{ARGUMENT_LIMIT, FILE_LIMIT};
use super::value::Quoted;
use super::{Place, Problem};

/// The variables of an environment file, in its order; `file` is its name for messages.
///
/// Blank lines and those that begin with `#` mean nothing; so does `export ` before a name. A
/// value may stand in single quotes, where everything is itself, or in double quotes, where `\n`,
/// `\r`, `\t`, `\\`, `\"`, `\'` and `\$` are escapes. Without quotes it ends before a `#` that follows a
/// blank. Nothing is expanded.
pub(super) fn parse(text: &str, file: &str) -> Result<Vec<(String, String)>, Vec<Problem>> {
    if text.len() > FILE_LIMIT {
        let message = format!("{} bytes are too many for an environment file", text.len());
        return Err(vec![Problem::new(file, message).help(format!("at most {FILE_LIMIT} bytes"))]);
    }
    let mut variables = Vec::new();
    let mut problems = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, whole) in text.lines().enumerate() {
        let line = whole.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match variable(line) {
            Ok(variable) => variables.push(variable),
            Err((message, help)) => {
                let indent = whole.chars().take_while(|c| c.is_whitespace()).count();
                let place = Place { line: index + 1, column: indent + 1 };
                problems.push(Problem::new(file, message).at(place).help(help));
            }
        }
    }
    if problems.is_empty() { Ok(variables) } else { Err(problems) }
}

type Wrong = (String, &'static str);

fn variable(line: &str) -> Result<(String, String), Wrong> {
    let line = match line.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start(),
        _ => line,
    };
    let Some((name, value)) = line.split_once('=') else {
        return Err((format!("{} has no =", Quoted(line)), "write KEY=VALUE"));
    };
    let name = name.trim_end();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.is_empty() || !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit())
    {
        let help = "write letters, digits, _ . and -, beginning with no digit";
        return Err((format!("{} is not a variable's name", Quoted(name)), help));
    }
    let value = value.trim_start();
    let value = match value.chars().next() {
        Some('"') => double_quoted(value)?,
        Some('\'') => single_quoted(value)?,
        _ => bare(value).to_owned(),
    };
    if value.contains('\0') {
        return Err((format!("the value of {name} holds NUL"), "leave it out"));
    }
    if name.len() + 1 + value.len() >= ARGUMENT_LIMIT {
        return Err((format!("the value of {name} is too long"), "at most 128 KiB with its name"));
    }
    Ok((name.to_owned(), value))
}

/// Up to a `#` that begins a comment.
fn bare(value: &str) -> &str {
    let comment = value
        .char_indices()
        .find(|(at, c)| *c == '#' && value[..*at].ends_with(|c: char| c.is_whitespace()))
        .map(|(at, _)| at);
    let begins = if value.starts_with('#') { Some(0) } else { comment };
    value[..begins.unwrap_or(value.len())].trim_end()
}

fn single_quoted(value: &str) -> Result<String, Wrong> {
    let inner = value.strip_prefix('\'').unwrap_or(value);
    let (text, rest) = inner.split_once('\'').ok_or_else(unterminated)?;
    nothing_follows(rest)?;
    Ok(text.to_owned())
}

fn double_quoted(value: &str) -> Result<String, Wrong> {
    let mut text = String::new();
    let mut chars = value.chars();
    chars.next();
    loop {
        match chars.next().ok_or_else(unterminated)? {
            '"' => break,
            '\\' => text.push(match chars.next().ok_or_else(unterminated)? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                c @ ('\\' | '"' | '\'' | '$') => c,
                c => {
                    let message = format!("unknown escape \\{}", c.escape_debug());
                    return Err((message, "write \\\\ for a backslash"));
                }
            }),
            c => text.push(c),
        }
    }
    nothing_follows(chars.as_str())?;
    Ok(text)
}

fn unterminated() -> Wrong {
    ("the quote does not end on this line".to_owned(), "close it; write \\n for a line end")
}

fn nothing_follows(rest: &str) -> Result<(), Wrong> {
    match rest.trim_start() {
        "" => Ok(()),
        comment if comment.starts_with('#') => Ok(()),
        rest => Err((format!("{} follows the closing quote", Quoted(rest)), "take it away")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Result<String, String> {
        match parse(line, ".env") {
            Ok(variables) => Ok(variables
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
                .join("|")),
            Err(problems) => {
                Err(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("|"))
            }
        }
    }

    #[test]
    fn lines() {
        for (text, variables) in [
            ("", ""),
            ("\n  \n# x\n  # y\n", ""),
            ("A=1\nB=2", "A=1|B=2"),
            ("\u{feff}A=1\r\nB=2\r\n", "A=1|B=2"),
            ("export A=1", "A=1"),
            ("exporter=1", "exporter=1"),
            ("A=", "A="),
            ("A = x y ", "A=x y"),
            ("A=x # y", "A=x"),
            ("A=# y", "A="),
            ("A=x#y", "A=x#y"),
            ("A=a=b", "A=a=b"),
            ("A='x # \"$HOME\" \\n' # y", "A=x # \"$HOME\" \\n"),
            (r#"A="x\n\"y\" \$z # 'q'""#, "A=x\n\"y\" $z # 'q'"),
            ("A=$HOME", "A=$HOME"),
            ("A=日本", "A=日本"),
        ] {
            assert_eq!(one(text).as_deref(), Ok(variables), "{text:?}");
        }
    }

    #[test]
    fn every_problem_has_its_line() {
        let text = "A=1\nB\n  9=x\n=x\nC=\"x\nD='x' y\nE=\"\\q\"\nA B=1\n";
        let problems = one(text).expect_err("bad lines").replace('|', "\n");
        assert_eq!(
            problems,
            r#".env:2:1: "B" has no =; write KEY=VALUE
.env:3:3: "9" is not a variable's name; write letters, digits, _ . and -, beginning with no digit
.env:4:1: "" is not a variable's name; write letters, digits, _ . and -, beginning with no digit
.env:5:1: the quote does not end on this line; close it; write \n for a line end
.env:6:1: "y" follows the closing quote; take it away
.env:7:1: unknown escape \q; write \\ for a backslash
.env:8:1: "A B" is not a variable's name; write letters, digits, _ . and -, beginning with no digit"#
        );
        assert!(one(&format!("A={}", "x".repeat(ARGUMENT_LIMIT))).is_err());
        assert!(one(&"\n".repeat(FILE_LIMIT + 1)).is_err());
    }
}
