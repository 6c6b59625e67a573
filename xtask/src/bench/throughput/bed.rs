//! The half of `cargo xtask bench io` that runs in the bed: makes a disk and networks, lets the
//! guest and the host use them, and writes its rows as JSON.

use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use super::super::report::{Figures, Outcome, Row};
use super::{GUEST, HOST, INITRAMFS, IO, KERNEL, MOAT};

/// In memory, in the bed.
const HOT: &str = "/run/bed/bench";
const ADDRESS: &str = "192.0.2.1";
const TAP: &str = "moat0";
const NETWORK: &str = "bench";

/// The half of `bench io` that runs in the bed
#[derive(clap::Args)]
pub(in super::super) struct Args {
    /// How the kernel finds its devices: `acpi` or `cmdline`
    #[arg(long)]
    discovery: String,
    #[arg(long)]
    room: PathBuf,
}

pub(in super::super) fn run(args: &Args) -> Result<ExitCode> {
    ensure!(
        Path::new("/run/bed").is_dir(),
        "`bench io-bed` is the half of `bench io` that runs in the bed"
    );
    tool(&format!("cp -a {} {HOT}", args.room.display()))?;
    disk()?;
    let rows = [(GUEST, guest(args)), (HOST, host())].map(|(name, figures)| Row {
        name: name.to_owned(),
        outcome: match figures {
            Ok(figures) => Outcome::Figures(figures),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        },
        note: None,
    });
    println!("{}", serde_json::to_string(&rows)?);
    Ok(ExitCode::SUCCESS)
}

/// A file on a filesystem as hosts have it, all of it in memory.
fn disk() -> Result<()> {
    for line in [
        format!("truncate -s 300M {HOT}/image"),
        format!("mkfs.ext4 -q -F {HOT}/image"),
        format!("mkdir {HOT}/mount"),
        format!("mount -o loop {HOT}/image {HOT}/mount"),
        format!("dd if=/dev/zero of={HOT}/mount/disk bs=1M count=64 status=none"),
        "sync".to_owned(),
    ] {
        tool(&line)?;
    }
    Ok(())
}

fn guest(args: &Args) -> Result<Figures> {
    tool(&format!("ip tuntap add {TAP} mode tap vnet_hdr"))?;
    tool(&format!("ip addr add {ADDRESS}/24 dev {TAP}"))?;
    tool(&format!("ip link set {TAP} up"))?;
    let server = Server::start()?;
    let figures = figures(&format!(
        "{HOT}/{MOAT} microvm boot --kernel {HOT}/{KERNEL} --initramfs {HOT}/{INITRAMFS} \
         --discovery {} --disk {HOT}/mount/disk --net {TAP} --cmdline quiet",
        args.discovery
    ));
    drop(server);
    tool(&format!("ip link del {TAP}"))?;
    let figures = figures?;
    ensure!(figures.contains_key("done"), "the guest did not end: {figures:?}");
    Ok(figures)
}

fn host() -> Result<Figures> {
    for line in [
        format!("ip netns add {NETWORK}"),
        format!("ip link add bench0 type veth peer name bench1 netns {NETWORK}"),
        format!("ip addr add {ADDRESS}/24 dev bench0"),
        "ip link set bench0 up".to_owned(),
        format!("ip -n {NETWORK} addr add 192.0.2.2/24 dev bench1"),
        format!("ip -n {NETWORK} link set bench1 up"),
    ] {
        tool(&line)?;
    }
    let _server = Server::start()?;
    let mut all = figures(&format!("{HOT}/{IO} disk {HOT}/mount/disk"))?;
    all.extend(figures(&format!("ip netns exec {NETWORK} {HOT}/{IO} net {ADDRESS}"))?);
    Ok(all)
}

/// `io serve`, until it is dropped.
struct Server(Child);

impl Server {
    fn start() -> Result<Self> {
        let mut server = command(&format!("{HOT}/{IO} serve"));
        let mut server = Self(server.stdout(Stdio::piped()).spawn().context("io serve")?);
        let stdout = server.0.stdout.take().context("no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("io serve")?;
        ensure!(line.contains("ready"), "io serve says {line:?}");
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).stdin(Stdio::null());
    command
}

fn tool(line: &str) -> Result<()> {
    let status = command(line).status().with_context(|| line.to_owned())?;
    ensure!(status.success(), "`{line}` failed");
    Ok(())
}

/// What `line` writes as `io: NAME VALUE`.
fn figures(line: &str) -> Result<Figures> {
    let output =
        command(line).stderr(Stdio::inherit()).output().with_context(|| line.to_owned())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let failed = text.lines().find(|line| line.starts_with("io: failed"));
    ensure!(failed.is_none(), "{}", failed.unwrap_or_default());
    ensure!(output.status.success(), "`{line}` ended with {}", output.status);
    Ok(text.lines().filter_map(figure).collect())
}

fn figure(line: &str) -> Option<(String, f64)> {
    let (name, value) = line.trim().strip_prefix("io: ")?.split_once(' ')?;
    Some((name.to_owned(), value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_from_the_console_around_them() {
        assert_eq!(figure("io: call_us 12.50\r"), Some(("call_us".to_owned(), 12.5)));
        assert_eq!(figure("[    0.1] virtio_blk: io"), None);
        assert_eq!(figure("io: failed: read: Input/output error"), None);
    }
}
