//! The command line.

mod instance;

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use moat_core::spec::{Bytes, GuestPath, Level, Name, Trust, User, ValueError};
use moat_microvm::boot::Discovery;
use tracing_subscriber::filter::Targets;

pub(crate) use self::instance::{Kill, Logs, Named, Ps, Rm, Stop};
use crate::deferred::Deferred;

/// Where [`Cli::log`] is taken from when it is not given.
pub(crate) const LOG_VARIABLE: &str = "MOAT_LOG";

/// Runs a workload, declared once, in a container or in a micro-VM.
#[derive(Debug, Parser)]
#[command(name = "moat", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit status: run gives the workload's own; 125 moat failed, 126 the command \
    can't be executed, 127 it was not found, 128+n it was ended by signal n. Before anything \
    runs: 2 usage, 3 spec, 4 denied by policy, 5 the host lacks something."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
    /// How results and errors are written
    #[arg(long, global = true, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Say nothing that is not a result, a warning or an error
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Which of moat's own events to log on stderr, such as `debug` or `moat_microvm=trace`
    #[arg(long, global = true, value_name = "FILTER", env = LOG_VARIABLE)]
    pub(crate) log: Option<Targets>,
}

/// How results and errors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON value, for scripts.
    Json,
}

impl Format {
    /// What a command line asks for that can't be understood as a whole.
    pub(crate) fn asked_for() -> Self {
        let args: Vec<_> = std::env::args_os().collect();
        let given = args.windows(2).any(|pair| pair[0] == "--format" && pair[1] == "json");
        let joined = args.iter().any(|arg| arg == "--format=json");
        if given || joined { Self::Json } else { Self::Text }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a workload and wait for its end
    #[command(after_help = "Examples:\n  \
        moat run specs/hello.toml                   the one workload of the file\n  \
        moat run specs/hello.toml --isolation vm    the same, behind a micro-VM\n  \
        moat run -- make test                       no file: this directory mounted, the host's \
        root copy-on-write")]
    Run(Deferred<Run>),
    /// Start one more process in a running workload, and wait for its end
    #[command(after_help = "Examples:\n  \
        moat exec web -- ps                         a command in the workload `web`\n  \
        moat exec -e DEBUG=1 -u 1000 web -- sh      as another user, on a terminal if moat has one")]
    Exec(Deferred<Exec>),
    /// List the workloads that run
    Ps(Deferred<Ps>),
    /// Show what a workload in the background has written
    #[command(after_help = "Examples:\n  \
        moat logs --tail 20 --follow web            the last lines, and what comes\n  \
        moat logs --since 10m --timestamps web      what came in the last ten minutes, and when")]
    Logs(Deferred<Logs>),
    /// Ask running workloads to end, and wait until they have
    Stop(Deferred<Stop>),
    /// Send a signal to running workloads
    Kill(Deferred<Kill>),
    /// Wait for a workload's end; gives its exit status and prints it
    Wait(Deferred<Named>),
    /// Remove what is kept of workloads that have ended
    Rm(Deferred<Rm>),
    /// Tell all that is known of a workload, as JSON
    Inspect(Deferred<Named>),
    /// Tell what a running workload uses: processor, memory, processes, block devices
    Stats(Deferred<Stats>),
    /// Stop all processes of a running workload where they are
    Pause(Deferred<Named>),
    /// Let a paused workload go on
    Resume(Deferred<Named>),
    /// Show what would be decided for each workload, and why; touches nothing
    Explain(Deferred<Explain>),
    /// Try what this host can run, and say what to do about what it can't
    Doctor,
    /// Print the spec's JSON Schema, for editors
    Schema,
    /// Install, import, build and list the guest kernels that micro-VMs boot
    #[command(subcommand)]
    Kernel(Deferred<Kernel>),
    /// The bare VMM, for those who want just that
    #[command(subcommand)]
    Microvm(Deferred<Microvm>),
}

/// Which workload, and how it is to be isolated.
#[derive(Debug, Args)]
pub(crate) struct Selection {
    /// The spec [default: moat.toml, unless a COMMAND is given]
    pub(crate) spec: Option<PathBuf>,
    /// The workload in it; may be left out when there is one alone
    pub(crate) name: Option<String>,
    /// How it is isolated, whatever the spec asks for; never below a floor
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub(crate) isolation: Option<LevelArg>,
    /// The policy that decides
    #[arg(long, value_name = "NAME", default_value = moat_core::policy::DEFAULT,
        value_parser = clap::builder::PossibleValuesParser::new(moat_core::policy::NAMES))]
    pub(crate) policy: String,
    /// Trust the workload less than its spec does
    #[arg(long, value_enum, value_name = "TRUST")]
    pub(crate) trust: Option<TrustArg>,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Start it in the background, print its id, and keep what is known of it until `moat rm`
    #[arg(long, short, conflicts_with = "dry_run")]
    pub(crate) detach: bool,
    /// Remove it when it has ended
    #[arg(long, requires = "detach")]
    pub(crate) rm: bool,
    /// In which project its name is its alone [default: the name of the spec's directory]
    #[arg(long, short, requires = "detach")]
    pub(crate) project: Option<Name>,
    /// Print the steps that would be taken, and take none
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Fetch nothing: refuse where a guest kernel would have to be downloaded
    #[arg(long)]
    pub(crate) offline: bool,
    /// The command to run instead of the spec's
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Insist on a terminal; one is found by itself
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// Give it no terminal, whether moat has one or not
    #[arg(long, short = 'T', conflicts_with = "tty")]
    pub(crate) no_tty: bool,
    /// Pass stdin on; done in any case, and known for the habit
    #[arg(long, short)]
    pub(crate) interactive: bool,
    /// A variable beside or instead of the workload's; without a value, moat's own
    #[arg(long, short, value_name = "KEY[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Whom it runs as [default: the workload's user]
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<User>,
    /// The directory it starts in [default: the workload's]
    #[arg(long, short, value_name = "DIR")]
    pub(crate) workdir: Option<GuestPath>,
    /// The workload's name, or how its id begins
    pub(crate) name: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// The workload's name, or how its id begins [default: all that run]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// The command to explain instead of the spec's
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Kernel {
    /// Fetch the distribution's cloud kernel and the modules that a guest needs
    Install,
    /// Take any vmlinux or bzImage
    Import(Import),
    /// Build moat's own small kernel from the distribution's source package
    Build {
        /// The bundle's name
        #[arg(long, default_value = "moat")]
        name: String,
    },
    /// List the kernels that are there
    Ls,
    /// Make a kernel the one that is booted when the spec names none
    Default {
        /// Its name, as `moat kernel ls` has it
        name: String,
    },
    /// Remove kernels
    Rm {
        /// Their names, as `moat kernel ls` has them
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The kernel: an ELF vmlinux or a bzImage
    pub(crate) file: PathBuf,
    /// The directory of its modules, as /lib/modules/VERSION
    #[arg(long, value_name = "DIR")]
    pub(crate) modules: Option<PathBuf>,
    /// The bundle's name [default: the file's name]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// How this kernel finds its virtio devices [default: as its code shows]
    #[arg(long, value_enum)]
    pub(crate) discovery: Option<DiscoveryArg>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum DiscoveryArg {
    /// By ACPI, as distributions build theirs.
    Acpi,
    /// By `virtio_mmio.device=` on its command line.
    Cmdline,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Microvm {
    /// Boot a kernel in this process, its console on stdin and stdout
    #[command(after_help = "\
        On a terminal every key goes to the guest, but for ctrl-a x, which ends the machine, and \
        ctrl-a ctrl-a, which is ctrl-a.\n\n\
        Exit status: 0 when the guest switched itself off, halted or reset (as it does after a \
        panic, too), and after ctrl-a x; 125 when it crashed or could not be made; 128+n when \
        moat was ended by signal n; 2 usage, 5 no KVM.\n\n\
        Examples:\n  \
        moat microvm boot --kernel vmlinux --initramfs initramfs.cpio\n  \
        moat microvm boot --kernel bzImage --cpus 4 --memory 2GiB --share src=. --cmdline quiet")]
    Boot(Boot),
}

/// A bare machine.
#[derive(Debug, Args)]
pub(crate) struct Boot {
    /// The kernel: an ELF vmlinux or a bzImage
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: PathBuf,
    /// An archive of its initramfs; several are unpacked in this order
    #[arg(long, value_name = "FILE")]
    pub(crate) initramfs: Vec<PathBuf>,
    /// Added to the kernel's command line
    #[arg(long, value_name = "TEXT")]
    pub(crate) cmdline: Option<String>,
    /// vCPUs, 1 to 32
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) cpus: u8,
    /// Guest memory, from 32MiB on
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size)]
    pub(crate) memory: Bytes,
    /// A raw image or block device as a disk; `:ro` after it lets the guest only read
    #[arg(long = "disk", value_name = "FILE[:ro]")]
    pub(crate) disks: Vec<DiskArg>,
    /// A tap device as a network, made if it is not there; several are eth0, eth1, ...
    #[arg(long = "net", value_name = "TAP")]
    pub(crate) nets: Vec<String>,
    /// Streams to and from the guest: `CONNECT PORT` on this unix socket reaches the guest, and the
    /// guest's port PORT of the host is the socket PATH_PORT
    #[arg(long, value_name = "PATH")]
    pub(crate) vsock: Option<PathBuf>,
    /// A directory that the guest may mount: `mount -t virtiofs TAG /mnt`
    #[arg(long = "share", value_name = "TAG=DIR")]
    pub(crate) shares: Vec<Share>,
    /// An entropy device
    #[arg(long)]
    pub(crate) rng: bool,
    /// A balloon, by which the guest gives back memory that it does not use
    #[arg(long)]
    pub(crate) balloon: bool,
    /// Where the guest's console is
    #[arg(long, value_enum, default_value_t = ConsoleArg::Virtio)]
    pub(crate) console: ConsoleArg,
    /// How the kernel finds its devices; `auto` looks into an ELF image, and takes a bzImage for one
    /// with ACPI
    #[arg(long, value_enum, default_value_t = BootDiscovery::Auto)]
    pub(crate) discovery: BootDiscovery,
}

/// A size, as a spec has it.
fn size(text: &str) -> Result<Bytes, String> {
    text.parse().map_err(told)
}

/// What clap is to say of a value that makes no sense.
fn told(error: ValueError) -> String {
    match error.help() {
        Some(help) => format!("{error}: {help}"),
        None => error.to_string(),
    }
}

/// A disk's backing file.
#[derive(Debug, Clone)]
pub(crate) struct DiskArg {
    pub(crate) file: PathBuf,
    pub(crate) read_only: bool,
}

impl FromStr for DiskArg {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read_only = text.strip_suffix(":ro");
        Ok(Self { file: read_only.unwrap_or(text).into(), read_only: read_only.is_some() })
    }
}

/// A directory under a tag.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    pub(crate) tag: String,
    pub(crate) dir: PathBuf,
}

impl FromStr for Share {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (tag, dir) = text.split_once('=').ok_or("write TAG=DIR, such as src=/home/me/src")?;
        Ok(Self { tag: tag.to_owned(), dir: dir.into() })
    }
}

/// Where a bare machine's console is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConsoleArg {
    /// A virtio console, hvc0: fast; what the kernel said before its driver came is shown then.
    Virtio,
    /// COM1, ttyS0: from the kernel's first line on, and an exit to the VMM for each byte.
    Serial,
    /// Nowhere.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BootDiscovery {
    /// As its code shows.
    Auto,
    /// By ACPI, as distributions build theirs.
    Acpi,
    /// By `virtio_mmio.device=` on its command line.
    Cmdline,
}

impl BootDiscovery {
    /// What the user knows of it.
    pub(crate) fn known(self) -> Option<Discovery> {
        match self {
            Self::Auto => None,
            Self::Acpi => Some(Discovery::Acpi),
            Self::Cmdline => Some(Discovery::Cmdline),
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LevelArg {
    /// Policy decides.
    Auto,
    /// Linux namespaces: the host's kernel is shared.
    Container,
    /// A kernel of its own behind KVM.
    Vm,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum TrustArg {
    /// Someone else's code.
    Untrusted,
}

impl From<LevelArg> for Level {
    fn from(level: LevelArg) -> Self {
        match level {
            LevelArg::Auto => Self::Auto,
            LevelArg::Container => Self::Container,
            LevelArg::Vm => Self::Vm,
        }
    }
}

impl From<DiscoveryArg> for Discovery {
    fn from(discovery: DiscoveryArg) -> Self {
        match discovery {
            DiscoveryArg::Acpi => Self::Acpi,
            DiscoveryArg::Cmdline => Self::Cmdline,
        }
    }
}

impl From<TrustArg> for Trust {
    fn from(trust: TrustArg) -> Self {
        match trust {
            TrustArg::Untrusted => Self::Untrusted,
        }
    }
}
