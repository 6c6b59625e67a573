//! `moat microvm boot` of Linux: what it finds of its machine, and how it ends. In as few boots as
//! will do: in the bed each takes seconds.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use moat_tests::host;
use moat_tests::kernels::{Bundle, bundles};
use moat_tests::moat::Moat;
use moat_tests::seen::Seen;
use moat_tests::workspace::Workspace;

/// What the guest's init does before its script.
const INIT: &str = "#!/bin/sh\n\
    mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev\n";

/// Packs the workspace's root as an initramfs whose init is this script.
fn initramfs(space: &Workspace, script: &str) -> Result<()> {
    let init = space.root().join("init");
    fs::write(&init, format!("{INIT}{script}\n"))?;
    fs::set_permissions(&init, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let pack = "find . | busybox cpio -o -H newc > ../initramfs";
    let packed = Command::new("sh").args(["-c", pack]).current_dir(space.root()).output()?;
    ensure!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    Ok(())
}

/// Boots what is in the workspace, on the serial port.
fn boot(space: &Workspace, kernel: &Path, discovery: &str) -> Result<Moat> {
    let moat =
        space.verb(&["microvm", "boot", "--initramfs", "initramfs", "--console", "serial"])?;
    let moat = moat.arg("--kernel").arg(kernel).arg("--discovery").arg(discovery);
    Ok(moat.arg("--cmdline").arg("quiet random.trust_cpu=off"))
}

/// The line of the guest's that begins with this name.
fn told(seen: &Seen, name: &str) -> Result<String> {
    let out = seen.out();
    let line = out.lines().find_map(|line| line.trim().strip_prefix(&format!("{name}: ")));
    let line = line.with_context(|| format!("the guest does not tell {name}\n{}", seen.shown()))?;
    Ok(line.trim().to_owned())
}

/// The kernel that `cargo xtask bed` boots, a distribution's bzImage, and its modules.
fn bed_kernel() -> Option<(PathBuf, PathBuf)> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let dir = cache.join("moat-bed/kernel");
    let only = |dir: PathBuf, name: &str| {
        let mut files = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path());
        files.find(|path| path.to_string_lossy().contains(name))
    };
    let kernel = only(dir.join("boot"), "/vmlinuz-")?;
    Some((kernel, only(dir.join("lib/modules"), "")?))
}

/// In the order in which they can be loaded.
const MODULES: [&str; 12] = [
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_mmio.ko",
    "drivers/virtio/virtio_balloon.ko",
    "drivers/block/virtio_blk.ko",
    "net/core/failover.ko",
    "drivers/net/net_failover.ko",
    "drivers/net/virtio_net.ko",
    "net/vmw_vsock/vsock.ko",
    "net/vmw_vsock/vmw_vsock_virtio_transport_common.ko",
    "net/vmw_vsock/vmw_vsock_virtio_transport.ko",
    "drivers/char/hw_random/virtio-rng.ko",
];

const DRIVERS: [&str; 5] =
    ["virtio_balloon", "virtio_blk", "virtio_net", "vmw_vsock_virtio_transport", "virtio_rng"];

/// Numbers of each processor: its own, siblings, core, APIC id.
const TELL: &str = r#"
    cpuinfo() { awk -F '[\t ]*: ' '/^(processor|siblings|core id|apicid)/ {printf "%s ", $2} /^$/ {printf "/ "}' /proc/cpuinfo; }
    echo "processors: $(cpuinfo)"
    echo "sockets: $(sort -u /sys/devices/system/cpu/cpu*/topology/physical_package_id)"
    echo "model: $(grep -m1 '^model name' /proc/cpuinfo)"
    echo "flags: $(grep -m1 '^flags' /proc/cpuinfo | cut -d: -f2)"
    echo "clock: $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
    echo "random: $(dmesg | grep 'crng init done')"
"#;

/// What [`TELL`] says of the processors of one socket of this many cores.
fn processors(count: u32) -> String {
    (0..count).map(|id| format!("{id} {count} {id} {id} / ")).collect::<String>().trim().to_owned()
}

/// Checks what a guest of [`TELL`] with this many processors says.
fn finds_its_processors(seen: &Seen, count: u32) -> Result<()> {
    let is = |name: &str, expected: &str| -> Result<()> {
        let line = told(seen, name)?;
        ensure!(line == expected, "{name}: {line:?}, not {expected:?}\n{}", seen.shown());
        Ok(())
    };
    is("processors", &processors(count))?;
    is("sockets", "0")?;
    is("clock", "kvm-clock")?;
    is("model", "model name\t: moat virtual processor")?;
    let flags = told(seen, "flags")?;
    let flags: BTreeSet<&str> = flags.split_whitespace().collect();
    for there in ["hypervisor", "x2apic", "nx", "sse2", "tsc_deadline_timer"] {
        ensure!(flags.contains(there), "it lacks {there}: {flags:?}");
    }
    for absent in ["vmx", "svm", "hle", "rtm", "mpx", "waitpkg", "arch_perfmon", "perfctr_core"] {
        ensure!(!flags.contains(absent), "it sees {absent}: {flags:?}");
    }
    Ok(())
}

/// Bytes of each disk.
const DISK: usize = 1 << 20;

/// Another text on each line, so that no block is like another.
fn text() -> Vec<u8> {
    (0..).flat_map(|line| format!("line {line}\n").into_bytes()).take(DISK).collect()
}

/// As the guest's `tr a-y b-z` changes it.
fn changed(text: &[u8]) -> Vec<u8> {
    text.iter().map(|byte| if (b'a'..=b'y').contains(byte) { byte + 1 } else { *byte }).collect()
}

/// Finds all devices, copies one disk to the other, and reaches the host.
const USE_DEVICES: &str = r#"
    for driver in virtio_balloon virtio_blk virtio_net vmw_vsock_virtio_transport virtio_rng; do
        echo "$driver: $(ls -d /sys/bus/virtio/drivers/$driver/virtio* | wc -l)"
    done
    tr a-y b-z < /dev/vda | dd of=/dev/vdb bs=64k iflag=fullblock conv=fsync 2>/dev/null
    echo "memory: $(grep -c '100000000-10fffffff : System RAM' /proc/iomem)"
    ip addr add 10.213.7.2/30 dev eth0; ip link set eth0 up
    dd if=/dev/zero of=/dev/null bs=128M count=1 2>/dev/null; echo "memory is free again"
    for try in $(seq 100); do ping -c 1 -W 1 10.213.7.1 > /dev/null 2>&1 && break; sleep 0.1; done
    echo "net: $(ping -c 3 -W 5 -s 1400 10.213.7.1 | grep -o '3 packets received')"
    poweroff -f
    sleep 60
"#;

#[test]
fn linux_finds_its_machine_uses_its_devices_and_switches_off() -> Result<()> {
    if let Some(reason) = host::lacks("vm") {
        moat_tests::skip!("{reason}");
    }
    if !host::is_bed() {
        moat_tests::skip!("networks are made, and a distribution's kernel is, in the bed alone");
    }
    let (kernel, modules) = bed_kernel().context("the bed's kernel")?;
    let space = Workspace::new(None)?;
    let mut load = String::new();
    for module in MODULES.map(Path::new) {
        let name = module.file_name().context("a module's name")?;
        fs::copy(modules.join("kernel").join(module), space.root().join(name))?;
        load.push_str(&format!("insmod /{}\n", name.display()));
    }
    initramfs(&space, &[&load, TELL, USE_DEVICES].concat())?;
    space.write("from", text())?;
    space.write("to", vec![0; DISK])?;
    let moat = boot(&space, &kernel, "acpi")?.arg("--cpus").arg("2");
    // The hole below 4 GiB begins at 3 GiB: a quarter of a GiB lies above.
    let moat = moat.arg("--memory").arg("3328MiB").arg("--disk").arg("from:ro");
    let moat = moat.arg("--disk").arg("to").arg("--net").arg("moat-linux");
    let mut live = moat.arg("--vsock").arg("socket").arg("--rng").arg("--balloon").start()?;
    live.wait_for("memory is free again")?;
    memory_comes_back(live.pid())?;
    let net =
        "busybox ip addr add 10.213.7.1/30 dev moat-linux && busybox ip link set moat-linux up";
    let set = Command::new("sh").args(["-c", net]).output()?;
    ensure!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    // Nobody listens in the guest, whose driver says so: the thread that asks it goes on.
    let mut stream = UnixStream::connect(space.path().join("socket"))?;
    stream.write_all(b"CONNECT 9\n")?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("the guest does not answer a stream")?;
    ensure!(answer.is_empty(), "{answer:?}");
    let seen = live.finish()?;
    seen.status(0)?.stderr("")?;
    finds_its_processors(&seen, 2)?;
    has_the_hosts_flags(&told(&seen, "flags")?)?;
    for driver in DRIVERS {
        let expected = if driver == "virtio_blk" { "2" } else { "1" };
        ensure!(told(&seen, driver)? == expected, "{driver}\n{}", seen.shown());
    }
    ensure!(told(&seen, "memory")? == "1", "no memory above 4 GiB\n{}", seen.shown());
    ensure!(told(&seen, "net")? == "3 packets received", "{}", seen.shown());
    ensure!(fs::read(space.path().join("to"))? == changed(&text()), "the written disk is another");
    // From the seed: nothing else makes it ready before the first console line.
    ensure!(told(&seen, "random")?.starts_with("[    0.0"), "{}", seen.shown());
    Ok(())
}

/// Waits until the VMM has given up most of the 128 MiB that a process in the guest had: its kernel
/// tells the balloon of free pages every two seconds.
fn memory_comes_back(vmm: u32) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let status = fs::read_to_string(format!("/proc/{vmm}/status"))?;
        let kib = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            Ok(number.with_context(|| format!("no {name}"))?.parse()?)
        };
        let (most, now) = (kib("VmHWM:")?, kib("VmRSS:")?);
        if most.saturating_sub(now) > 100 << 10 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{now} KiB are resident, of {most} at most");
        thread::sleep(Duration::from_millis(100));
    }
}

/// In the bed, guest and host have the same kernel, which names the same flags: the guest has all of
/// the host's that it is to have.
fn has_the_hosts_flags(guest: &str) -> Result<()> {
    // moat's doing: hv/cpuid/table.rs. `acpi` is thermal.
    const TAKEN: [&str; 6] = ["acpi", "monitor", "mpx", "svm", "npt", "vgif"];
    // QEMU 7.2 does not intercept XSETBV, so that Linux finds its XSAVE area too small and leaves it
    // and all that needs it.
    const WITH_XSAVE: [&str; 8] =
        ["xsave", "avx", "avx2", "fma", "vaes", "xsaveopt", "xgetbv1", "pku"];
    let host = fs::read_to_string("/proc/cpuinfo")?;
    let host = host.lines().find_map(|line| line.strip_prefix("flags")).context("no flags")?;
    let guest: BTreeSet<&str> = guest.split_whitespace().collect();
    let expected = |flag: &&str| {
        !TAKEN.contains(flag) && !WITH_XSAVE.contains(flag) && *flag != ":" && *flag != "ospke"
    };
    let lost: Vec<_> =
        host.split_whitespace().filter(expected).filter(|flag| !guest.contains(flag)).collect();
    ensure!(lost.is_empty(), "the guest lacks {lost:?}");
    Ok(())
}

/// The kernel of a bundle.
fn image(bundle: &Bundle) -> Result<PathBuf> {
    let files = ["vmlinux", "bzImage"].map(|name| bundle.dir.join(name));
    files.into_iter().find(|path| path.exists()).context("a bundle without a kernel")
}

#[test]
fn linux_of_every_bundle_boots_and_its_reboot_is_a_success() -> Result<()> {
    if let Some(reason) = host::lacks("vm") {
        moat_tests::skip!("{reason}");
    }
    let space = Workspace::new(None)?;
    initramfs(&space, &[TELL, "reboot -f; sleep 60"].concat())?;
    let mut images = BTreeSet::new();
    for bundle in bundles()? {
        // The default one is listed twice.
        if images.insert(fs::canonicalize(image(&bundle)?)?) {
            let seen = boot(&space, &image(&bundle)?, "auto")?.run()?;
            seen.status(0)?.stderr("")?;
            finds_its_processors(&seen, 1)?;
        }
    }
    Ok(())
}

#[test]
fn linux_that_panics_ends_its_machine() -> Result<()> {
    if let Some(reason) = host::lacks("vm") {
        moat_tests::skip!("{reason}");
    }
    let space = Workspace::new(None)?;
    initramfs(&space, "echo up; exit 3")?;
    let bundles = bundles()?;
    let bundle = bundles.first().context("no kernel is installed")?;
    let seen = boot(&space, &image(bundle)?, &bundle.discovery)?.run()?;
    seen.status(0)?.stdout_has("up")?.stdout_has("Attempted to kill init")?.stderr("")?;
    Ok(())
}
