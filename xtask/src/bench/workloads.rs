//! `cargo xtask bench workloads`: what people put in containers, behind both walls, in the bed.
//!
//! Whether a guest kernel runs it at all is the first question, and what it costs the second.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use super::kernel::Kernel;
use super::report::{Column, Figures, Machine, Outcome, Report, Row};
use super::{Format, build};

/// Run git, python, node, cargo, postgres and others behind both walls
#[derive(clap::Args)]
pub(super) struct Args {
    /// The guest kernel; else the one that `moat kernel build` keeps
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Run this moat instead of building one
    #[arg(long, value_name = "FILE")]
    moat: Option<PathBuf>,
    /// Only these
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

const COLUMNS: [Column; 3] = [Column("container_s", 1), Column("vm_s", 1), Column("ratio", 2)];

const IN_BED: &str = include_str!("workloads/in_bed.sh");

struct Program {
    name: &'static str,
    /// What it does, for a shell in the workload.
    script: &'static str,
    /// Lines that its spec has besides.
    spec: &'static str,
    /// The walls that it runs behind, a word each.
    walls: &'static str,
}

const fn program(name: &'static str, script: &'static str) -> Program {
    Program { name, script, spec: "", walls: "container vm" }
}

const PROGRAMS: [Program; 7] = [
    program("busybox", include_str!("workloads/busybox.sh")),
    program("cargo", include_str!("workloads/cargo.sh")),
    program("git", include_str!("workloads/git.sh")),
    // moat's filter, as Docker's and Podman's, lets nobody else make namespaces; and it gives nobody
    // that right in a container whose user 0 is the host's, as on the bed's own root.
    Program {
        spec: "security = { cap_add = [\"SYS_ADMIN\"] }",
        walls: "vm",
        ..program("nested", include_str!("workloads/nested.sh"))
    },
    program("node", include_str!("workloads/node.sh")),
    program("postgres", include_str!("workloads/postgres.sh")),
    program("python", include_str!("workloads/python.sh")),
];

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let room = build::room()?;
    let kernel = prepare(room.path(), args)?;
    let machine = Machine::here()?;
    let rows = rows(&in_bed(room.path())?)?;
    let failed = rows.iter().any(|row| matches!(row.outcome, Outcome::Failed(_)));
    let report = Report {
        benchmark: "workloads",
        method: "each once, on this machine's own root (9p, copy-on-write), 1 vCPU, 1 GiB, start \
                 to exit, in the bed: whether it runs; the seconds go with what else this machine does"
            .to_owned(),
        versions: vec![kernel.said],
        machine,
        rows,
    };
    report.print(&COLUMNS, args.format)?;
    Ok(ExitCode::from(u8::from(failed)))
}

/// Gathers everything in `room`, which the bed copies to its memory.
fn prepare(room: &Path, args: &Args) -> Result<Kernel> {
    let moat = args.moat.clone().map_or_else(build::moat, Ok)?;
    let kernel = Kernel::chosen(args.kernel.as_deref(), &moat)?;
    kernel.install(&moat, &room.join("data"))?;
    fs::copy(&moat, room.join("moat")).with_context(|| moat.display().to_string())?;
    let inside = room.join("inside");
    fs::create_dir(&inside)?;
    let wanted = |name: &str| args.names.is_empty() || args.names.iter().any(|own| own == name);
    let unknown =
        args.names.iter().find(|own| PROGRAMS.iter().all(|program| program.name != **own));
    ensure!(unknown.is_none(), "there is no program {}", unknown.map_or("", String::as_str));
    for Program { name, script, spec, walls } in PROGRAMS.iter().filter(|one| wanted(one.name)) {
        fs::write(inside.join(format!("{name}.sh")), script)?;
        fs::write(room.join(format!("{name}.walls")), walls)?;
        fs::write(room.join(format!("{name}.toml")), own_spec(name, spec))?;
    }
    fs::write(room.join("in_bed.sh"), IN_BED)?;
    Ok(kernel)
}

/// The spec of a program. It finds its tools where whoever runs the benchmark does.
fn own_spec(name: &str, lines: &str) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!(
        "[workload.{name}]\nimage = \"host\"\ncommand = [\"sh\", \"/inside/{name}.sh\"]\n\
         volumes = [\"./inside:/inside:ro\"]\n{lines}\n[workload.{name}.env]\nPATH = \"{path}\"\n\
         [workload.{name}.resources]\nmemory = \"1GiB\"\n"
    )
}

/// Runs the script in the bed; what it printed.
fn in_bed(room: &Path) -> Result<String> {
    let xtask = std::env::current_exe().context("own path")?;
    let output = Command::new(xtask)
        .args(["bed", "--memory", "6144", "--timeout", "7200", "--", "/bin/sh"])
        .arg(room.join("in_bed.sh"))
        .arg(room)
        .stderr(Stdio::inherit())
        .output()
        .context("bed")?;
    ensure!(output.status.success(), "the bed ended with {}", output.status);
    String::from_utf8(output.stdout).context("what the bed wrote")
}

/// A row for each program of `NAME WALL STATUS SECONDS`.
fn rows(said: &str) -> Result<Vec<Row>> {
    let mut all: BTreeMap<&str, Outcome> = BTreeMap::new();
    for line in said.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, wall, status, seconds] = words[..] else { continue };
        let seconds: f64 = seconds.parse().with_context(|| line.to_owned())?;
        let outcome = all.entry(name).or_insert_with(|| Outcome::Figures(Figures::new()));
        match outcome {
            _ if status != "0" => *outcome = Outcome::Failed(format!("{wall}: status {status}")),
            Outcome::Figures(figures) => {
                figures.insert(format!("{wall}_s"), seconds);
                if let (Some(vm), Some(container)) =
                    (figures.get("vm_s"), figures.get("container_s"))
                {
                    figures.insert("ratio".to_owned(), vm / container);
                }
            }
            _ => {}
        }
    }
    ensure!(!all.is_empty(), "the bed wrote {said:?}");
    let row = |(name, outcome): (&str, Outcome)| Row { name: name.to_owned(), outcome, note: None };
    Ok(all.into_iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_both_walls_or_a_failure() {
        let said = "git container 0 1.5\ngit vm 0 3\nnode container 0 1\nnode vm 125 2\n";
        let rows = rows(said).unwrap();
        let [git, node] = &rows[..] else { panic!("{} rows", rows.len()) };
        assert!(matches!(&git.outcome, Outcome::Figures(figures) if figures["ratio"] == 2.0));
        assert!(matches!(&node.outcome, Outcome::Failed(why) if why == "vm: status 125"));
        assert!(super::rows("nothing").is_err());
    }
}
