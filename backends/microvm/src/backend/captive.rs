//! A VMM that was taken over, but for its filters of system calls: what it can't reach all the
//! same. Each runs as this executable once more, which has one thread, as moat has; `jail::tests`
//! has the filters.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use caps::{CapSet, Capability};
use moat_core::spec::{self, GuestPath, Propagation, VolumeSource};
use moat_host::mapping::Mapping;
use moat_host::volume::Volume;
use moat_init::cgroup::JoinFiles;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::kill;
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::{Pid, Uid, chroot, getgroups, pivot_root, setegid, seteuid, sethostname};
use vmm_sys_util::eventfd::EventFd;

use super::plan;
use super::share::{Shared, SharedVolume};
use super::vmm::{Ending, Failure, Parts, launch_to, run};
use crate::boot::{Discovery, KernelFormat};

const ASKED: &str = "MOAT_TEST_CAPTIVE";
const ABSTRACT: &str = "moat-test-captive";

/// What went through, of all that must not; and what must and did not.
fn attempts(_: Parts, _: UnixStream, _: File, _: EventFd) -> Result<Ending, Failure> {
    let mut wrong = Vec::new();
    let mut never = |what: &str, went_through: bool| {
        if went_through {
            wrong.push(format!("went through: {what}"));
        }
    };
    let none = None::<&str>;
    for path in [
        "/etc/passwd",
        "/dev/kvm",
        "/dev/null",
        "/sys/kernel",
        "/proc/1",
        "/proc/self/root",
        "/proc/self/exe",
        "/proc/self/mem",
        "/proc/self/fd/../root/etc/passwd",
        "/share/../../etc/passwd",
        "/share/root/out",
        "/share/root/hidden/secret",
    ] {
        never(path, File::open(path).is_ok());
    }
    let fds = openat(nix::fcntl::AT_FDCWD, "/proc/self/fd", OFlag::O_PATH, Mode::empty())?;
    never("up from /proc/self/fd", openat(&fds, "../exe", OFlag::O_PATH, Mode::empty()).is_ok());
    for path in ["/x", "/share/x", "/share/root/x", "/proc/x", "/share/volumes/x"] {
        never(path, fs::write(path, "x").is_ok() || fs::create_dir(path).is_ok());
    }
    never("a device", mknod("/share/volumes/0/n", SFlag::S_IFCHR, Mode::S_IRWXU, 0x103).is_ok());
    never("mount", mount(Some("n"), "/share", Some("tmpfs"), MsFlags::empty(), none).is_ok());
    let again = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    never("remount", mount(none, "/share/root", none, again, none).is_ok());
    never("umount", umount2("/share/root", MntFlags::MNT_DETACH).is_ok());
    never("pivot_root", pivot_root("/share", "/share/root").is_ok());
    never("chroot", chroot("/share").is_ok());
    never("sethostname", sethostname("x").is_ok());
    never("kill", kill(Pid::from_raw(2), None).is_ok());
    never("more than itself in /proc", fs::read_dir("/proc").is_ok_and(|found| found.count() != 1));
    never("mounts known", fs::read("/proc/self/mountinfo").is_ok_and(|found| !found.is_empty()));
    never("host's abstract socket", {
        let address = SocketAddr::from_abstract_name(ABSTRACT)?;
        UnixStream::connect_addr(&address).is_ok()
    });
    let address = ([127, 0, 0, 1], 22).into();
    never("network", TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_ok());
    never("program", Command::new("/share/volumes/0/program").exec().raw_os_error() != Some(13));
    for cap in [Capability::CAP_SYS_ADMIN, Capability::CAP_MKNOD, Capability::CAP_SYS_PTRACE] {
        never("capability", caps::has_cap(None, CapSet::Permitted, cap)?);
        never("raise", caps::raise(None, CapSet::Effective, cap).is_ok());
    }
    never("dumpable", nix::sys::prctl::get_dumpable()?);
    let mut open = 0;
    for number in 0..4096 {
        let Ok(link) = fs::read_link(format!("/proc/self/fd/{number}")) else { continue };
        open += 1;
        // Its own way to its descriptors, and what a test gives for KVM and kernel.
        let known = ["/proc", "/dev/null", "socket:", "pipe:", "anon_inode:[eventfd]"];
        never(
            &link.display().to_string(),
            !known.iter().any(|start| link.as_os_str().to_string_lossy().starts_with(start)),
        );
    }
    never("descriptors", open > 10);
    if Uid::effective().is_root() && getgroups()?.iter().any(|group| group.as_raw() != 65534) {
        wrong.push(format!("groups: {:?}", getgroups()?));
    }
    // What it is there for.
    if fs::read("/share/root/file").ok().as_deref() != Some(b"text") {
        wrong.push("can't read the root".to_owned());
    }
    fs::write("/share/volumes/0/of-root", "x")?;
    // One id is all that a plain user may have.
    if setegid(77.into()).and_then(|()| seteuid(1234.into())).is_ok() {
        fs::write("/share/volumes/0/of-1234", "x")?;
        seteuid(0.into())?;
    }
    Ok(Ending::Failed { reasons: wrong })
}

/// What the test below runs; as a test of its own, nothing.
#[test]
fn captive() {
    let Some(dir) = std::env::var_os(ASKED).map(PathBuf::from) else { return };
    let has_guest = dir.join("kernel").exists();
    let (root, volume, stage) = (dir.join("root"), dir.join("volume"), dir.join("stage"));
    let source = spec::Volume {
        source: VolumeSource::Bind(volume.clone()),
        target: "/volume".parse().unwrap(),
        read_only: false,
        propagation: Propagation::Private,
    };
    let shared = Shared {
        root,
        visible: vec![GuestPath::root()],
        hidden: vec!["/hidden".parse().unwrap()],
        volumes: vec![SharedVolume {
            source: Volume::find(&source).unwrap(),
            target: "/volume".parse().unwrap(),
            read_only: false,
        }],
    };
    let mapping = plan::mapping(&shared).unwrap();
    let null = || File::options().read(true).write(true).open("/dev/null").unwrap();
    let open = |path| File::options().read(true).write(true).open(path).unwrap();
    let (kvm, kernel) = match has_guest {
        true => (open(PathBuf::from("/dev/kvm")), open(dir.join("kernel"))),
        false => (null(), null()),
    };
    let parts = Parts {
        kvm: kvm.into(),
        kernel,
        kernel_format: KernelFormat::Elf,
        discovery: Discovery::Cmdline,
        initramfs: Vec::new(),
        cmdline: String::new(),
        vcpus: 1,
        memory: 32 << 20,
        shared,
        stage,
        mapping: mapping.clone(),
    };
    let work = if has_guest { run } else { attempts };
    let mut vmm = launch_to(parts, None, &JoinFiles::default(), work).unwrap();
    assert!(vmm.process.wait(Duration::from_secs(30)));
    vmm.process.end();
    if has_guest {
        assert_eq!(vmm.process.ending(), Some(Ending::Reset));
        return;
    }
    assert_eq!(vmm.process.ending(), Some(Ending::Failed { reasons: Vec::new() }));
    let owner = |name: &str| fs::metadata(volume.join(name)).map(|seen| (seen.uid(), seen.gid()));
    if !mapping.is_plain_user() {
        // As the container's would be, whatever id of the host the VMM has.
        assert_eq!(owner("of-root").unwrap(), (0, 0));
        assert_eq!(owner("of-1234").unwrap(), (1234, 77));
    }
    if let Mapping::Identity { path } = mapping {
        eprintln!("ids mapped to themselves: {}", path.display());
    }
}

/// An executable of one segment at 1 MiB (elf(5)), as kernels are.
fn elf(code: &[u8]) -> Vec<u8> {
    const CODE: u64 = 1 << 20;
    let size = u64::try_from(code.len()).unwrap();
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    // ET_EXEC, EM_X86_64, version; entry, program headers, section headers.
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    elf.extend([CODE, 64, 0].map(u64::to_le_bytes).concat());
    elf.extend([0; 4]);
    elf.extend([64u16, 56, 1, 64, 0, 0].map(u16::to_le_bytes).concat());
    // PT_LOAD, all rights.
    elf.extend([1u32, 7].map(u32::to_le_bytes).concat());
    elf.extend([120, CODE, CODE, size, size, 4096].map(u64::to_le_bytes).concat());
    elf.extend(code);
    elf
}

#[test]
fn a_guest_runs_in_the_jail_and_its_end_is_heard() {
    if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
        eprintln!("skipped: /dev/kvm: {error}");
        return;
    }
    if let Err(errno) = super::vmm::try_namespaces() {
        eprintln!("skipped: no namespaces here: {errno}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // Writes 0xfe to port 0x64, which is a reset (the keyboard controller's), and halts.
    fs::write(dir.path().join("kernel"), elf(&[0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd])).unwrap();
    jailed(dir.path());
}

#[test]
fn a_vmm_that_was_taken_over_reaches_nothing() {
    if let Err(errno) = super::vmm::try_namespaces() {
        eprintln!("skipped: no namespaces here: {errno}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let address = SocketAddr::from_abstract_name(ABSTRACT).unwrap();
    let _heard = UnixListener::bind_addr(&address).unwrap();
    jailed(dir.path());
}

fn jailed(dir: &Path) {
    let path = |name: &str| dir.join(name);
    for name in ["root", "root/hidden", "volume", "stage"] {
        fs::create_dir(path(name)).unwrap();
    }
    fs::write(path("root/file"), "text").unwrap();
    fs::write(path("root/hidden/secret"), "text").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", path("root/out")).unwrap();
    fs::write(path("volume/program"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(path("volume/program"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(path("volume"), fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "backend::captive::captive", "--test-threads=1", "--nocapture"]);
    let output = command.env(ASKED, dir).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
}
