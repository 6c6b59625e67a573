//! From a workload as written to one as meant.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::default::{
    ARGUMENTS_LIMIT, DEFAULT_PATH, DEFAULT_RESOURCES, DEFAULT_SHM_SIZE, DEFAULT_STOP_SIGNAL,
    DEFAULT_STOP_TIMEOUT, VCPUS,
};
use super::nearest::nearest;
use super::value::Quoted;
use super::written::{ContainerTable, SecurityTable, VmTable, Workload};
use super::{
    Capability, CapabilitySet, ContainerOptions, Cpus, GuestPath, Hostname, InertKey, Isolation,
    IsolationRequest, Landlock, Level, Name, NetworkMode, Place, Problem, Problems, Propagation,
    Resolved, Resources, Root, Seccomp, Security, Trust, User, VmOptions, Volume, VolumeSource,
    WrittenSeccomp, env_file,
};

/// The workloads of a spec as written, all of them checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    pub(super) file: String,
    pub(super) workloads: BTreeMap<Name, Workload>,
}

/// What a workload as meant depends on besides its spec.
pub struct Context<'a> {
    /// The directory of the spec, to which its paths are relative; absolute.
    pub base_dir: &'a Path,
    /// The user's home, for paths that begin with `~`.
    pub home: Option<&'a Path>,
    /// Reads an environment file, given its absolute path.
    pub read_env_file: &'a dyn Fn(&Path) -> io::Result<String>,
    /// `--isolation` of the command line.
    pub isolation: Option<Level>,
    /// The command line's own command, which stands in for the spec's; empty when there is none.
    /// A spec's entrypoint stays before it.
    pub command: &'a [String],
}

impl Spec {
    /// The file's name, for messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The workloads as written, by name. Never empty.
    pub fn workloads(&self) -> &BTreeMap<Name, Workload> {
        &self.workloads
    }

    /// The workload of this name; without a name the only one there is.
    ///
    /// # Errors
    /// When there is none of this name, or none is named and there are several.
    pub fn pick(&self, name: Option<&str>) -> Result<&Name, Problems> {
        let names = || self.workloads.keys().map(Name::as_str);
        let all = || names().take(20).collect::<Vec<_>>().join(", ");
        let problem = |message: String, help| Problem::new(&self.file, message).help(help).into();
        match name {
            Some(name) => {
                self.workloads.keys().find(|known| known.as_str() == name).ok_or_else(|| {
                    let help = match nearest(name, names()) {
                        Some(near) => format!("did you mean \"{near}\"?"),
                        None => format!("it has {}", all()),
                    };
                    problem(format!("no workload {}", Quoted(name)), help)
                })
            }
            None => match (self.workloads.len(), self.workloads.keys().next()) {
                (1, Some(name)) => Ok(name),
                (count, _) => {
                    Err(problem(format!("has {count} workloads"), format!("name one: {}", all())))
                }
            },
        }
    }

    /// A workload as meant.
    ///
    /// # Errors
    /// When there is none of this name, an environment file can't be read or is wrong, or a path
    /// begins with `~` and there is no home.
    pub fn resolve(&self, name: &str, context: &Context<'_>) -> Result<Resolved, Problems> {
        let name = self.pick(Some(name))?;
        let Some(written) = self.workloads.get(name) else {
            return Err(Problem::new(&self.file, format!("no workload {name}")).into());
        };
        Resolver { file: &self.file, context, problems: Vec::new() }.resolve(name, written)
    }
}

struct Resolver<'a> {
    file: &'a str,
    context: &'a Context<'a>,
    problems: Vec<Problem>,
}

impl Resolver<'_> {
    fn resolve(mut self, name: &Name, written: &Workload) -> Result<Resolved, Problems> {
        let own = written.command.as_deref().unwrap_or_default();
        let command = if self.context.command.is_empty() { own } else { self.context.command };
        let argv = written.entrypoint.iter().flatten().chain(command).cloned().collect();
        let resources = Resources {
            cpus: written.resources.cpus.unwrap_or(DEFAULT_RESOURCES.cpus),
            memory: written.resources.memory.unwrap_or(DEFAULT_RESOURCES.memory),
            pids: written.resources.pids.unwrap_or(DEFAULT_RESOURCES.pids),
        };
        let resolved = Resolved {
            root: self.root(written),
            argv,
            working_dir: written.working_dir.clone().unwrap_or_else(GuestPath::root),
            user: written.user.clone().unwrap_or(User::ROOT),
            hostname: written.hostname.clone().unwrap_or_else(|| Hostname::from(name)),
            trust: written.trust.unwrap_or(Trust::Trusted),
            labels: written.labels.clone().unwrap_or_default(),
            env: self.environment(written),
            volumes: self.volumes(written),
            tmpfs: written.tmpfs.iter().flatten().map(|tmpfs| tmpfs.value.clone()).collect(),
            shm_size: written.shm_size.unwrap_or(DEFAULT_SHM_SIZE),
            read_only: written.read_only.unwrap_or(false),
            init: written.init.unwrap_or(true),
            tty: written.tty,
            stop_signal: written.stop_signal.unwrap_or(DEFAULT_STOP_SIGNAL),
            stop_timeout: written.stop_timeout.unwrap_or(DEFAULT_STOP_TIMEOUT),
            isolation: IsolationRequest {
                level: written.isolation.level.unwrap_or_default(),
                flag: self.context.isolation,
                min: written.isolation.min,
                objective: written.isolation.objective,
            },
            resources,
            network: NetworkMode::None,
            security: self.security(&written.security),
            rlimits: written.rlimits.clone(),
            vm: vm(&written.vm, resources.cpus),
            container: container(&written.container),
            inert: inert(&written.vm, &written.container),
            name: name.clone(),
        };
        if self.problems.is_empty() {
            check_size(self.file, &resolved, &mut self.problems);
        }
        Problems::from_list(self.problems, 0)?;
        Ok(resolved)
    }

    /// The parser lets through `image = "host"` and `rootfs` alone.
    fn root(&mut self, written: &Workload) -> Root {
        let Some(rootfs) = &written.rootfs else { return Root::Host };
        match rootfs.value.resolve(self.context.base_dir, self.context.home) {
            Ok(path) => Root::Directory(path),
            Err(error) => {
                self.wrong(&rootfs.key, rootfs.place, Problem::value(self.file, &error));
                Root::Host
            }
        }
    }

    fn volumes(&mut self, written: &Workload) -> Vec<Volume> {
        let mut volumes = Vec::new();
        for volume in written.volumes.iter().flatten() {
            match volume.value.resolve(self.context.base_dir, self.context.home) {
                Ok(meant) => volumes.push(meant),
                Err(error) => {
                    self.wrong(&volume.key, volume.place, Problem::value(self.file, &error));
                }
            }
        }
        volumes
    }

    fn security(&mut self, written: &SecurityTable) -> Security {
        let landlock = written.landlock.as_ref().map(|table| Landlock {
            read: table.read.clone().unwrap_or_default(),
            write: table.write.clone().unwrap_or_default(),
        });
        let seccomp = written.seccomp.as_ref().and_then(|at| match &at.value {
            WrittenSeccomp::Default => None,
            WrittenSeccomp::File(path) => Some((at, path)),
        });
        let seccomp = seccomp.map_or(Seccomp::Default, |(at, path)| {
            match path.resolve(self.context.base_dir, self.context.home) {
                Ok(path) => Seccomp::File(path),
                Err(error) => {
                    self.wrong(&at.key, at.place, Problem::value(self.file, &error));
                    Seccomp::Default
                }
            }
        });
        Security { seccomp, landlock, ..security(written) }
    }

    /// moat's defaults, then each `env_file`, then `env`.
    fn environment(&mut self, written: &Workload) -> BTreeMap<String, String> {
        let mut env = default_env();
        for file in written.env_file.iter().flatten() {
            let path = match file.value.resolve(self.context.base_dir, self.context.home) {
                Ok(path) => path,
                Err(error) => {
                    self.wrong(&file.key, file.place, Problem::value(self.file, &error));
                    continue;
                }
            };
            let text = match (self.context.read_env_file)(&path) {
                Ok(text) => text,
                Err(error) => {
                    let message = format!("can't read {}: {error}", path.display());
                    self.wrong(&file.key, file.place, Problem::new(self.file, message));
                    continue;
                }
            };
            match env_file::parse(&text, &path.display().to_string()) {
                Ok(variables) => env.extend(variables),
                Err(problems) => self.problems.extend(problems),
            }
        }
        env.extend(written.env.clone().unwrap_or_default());
        env
    }

    fn wrong(&mut self, key: &str, place: Place, problem: Problem) {
        self.problems.push(problem.key(key).at(place));
    }
}

impl Resolved {
    /// What `moat run -- COMMAND` means: this machine's root, and the current directory, writable,
    /// at its own path.
    ///
    /// # Errors
    /// When there is no command, or the directory can't be mounted at its own path: `/` and the
    /// kernel's own filesystems can't, nor can a path that is not UTF-8.
    pub fn for_command(
        argv: Vec<String>,
        cwd: PathBuf,
        isolation: Option<Level>,
    ) -> Result<Self, Problems> {
        const FILE: &str = "command line";
        let mut problems = Vec::new();
        if argv.first().is_none_or(String::is_empty) {
            let help = "write what runs after --, such as moat run -- make test";
            problems.push(Problem::new(FILE, "no command").help(help));
        }
        let target = GuestPath::try_from(cwd.as_path())
            .and_then(|path| super::value::mount_target(path.as_str()));
        let target = target.unwrap_or_else(|error| {
            let message = format!("the current directory can't be mounted: {error}");
            let help = "change to a directory of your own, or write a spec";
            problems.push(Problem::new(FILE, message).help(help));
            GuestPath::root()
        });
        let name = cwd.file_name().unwrap_or_default().to_string_lossy();
        let name = Name::nearest_to(&name);
        let (source, propagation) = (VolumeSource::Bind(cwd), Propagation::default());
        let resolved = Self {
            root: Root::Host,
            argv,
            working_dir: target.clone(),
            user: User::ROOT,
            hostname: Hostname::from(&name),
            trust: Trust::Trusted,
            labels: BTreeMap::new(),
            env: default_env(),
            volumes: vec![Volume { source, target, read_only: false, propagation }],
            tmpfs: Vec::new(),
            shm_size: DEFAULT_SHM_SIZE,
            read_only: false,
            init: true,
            tty: None,
            stop_signal: DEFAULT_STOP_SIGNAL,
            stop_timeout: DEFAULT_STOP_TIMEOUT,
            isolation: IsolationRequest { flag: isolation, ..IsolationRequest::default() },
            resources: DEFAULT_RESOURCES,
            network: NetworkMode::None,
            security: security(&SecurityTable::default()),
            rlimits: Vec::new(),
            vm: vm(&VmTable::default(), DEFAULT_RESOURCES.cpus),
            container: ContainerOptions::default(),
            inert: Vec::new(),
            name,
        };
        check_size(FILE, &resolved, &mut problems);
        Problems::from_list(problems, 0)?;
        Ok(resolved)
    }
}

/// What every workload has in its environment. `HOME` and `TERM` depend on the root's users and
/// on the terminal, which are known later.
fn default_env() -> BTreeMap<String, String> {
    BTreeMap::from([("PATH".to_owned(), DEFAULT_PATH.to_owned())])
}

/// More than this the kernel would refuse, and the guest's wire too.
fn check_size(file: &str, resolved: &Resolved, problems: &mut Vec<Problem>) {
    let arguments: usize = resolved.argv.iter().map(|argument| argument.len() + 1).sum();
    let env: usize = resolved.env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let bytes = arguments.saturating_add(env);
    if bytes > ARGUMENTS_LIMIT {
        let message = format!("arguments and environment of {bytes} bytes are too large");
        let help = format!("at most {ARGUMENTS_LIMIT} bytes together");
        problems.push(Problem::new(file, message).help(help));
    }
}

fn security(written: &SecurityTable) -> Security {
    let (add, drop) = (set(&written.cap_add), set(&written.cap_drop));
    // ALL stands for all that the other list does not name.
    let but = |list: Vec<Capability>, other: &[CapabilitySet]| {
        list.into_iter().filter(|one| !other.contains(&CapabilitySet::One(*one))).collect()
    };
    Security {
        cap_add: but(add, written.cap_drop.as_deref().unwrap_or_default()),
        cap_drop: but(drop, written.cap_add.as_deref().unwrap_or_default()),
        no_new_privileges: written.no_new_privileges.unwrap_or(true),
        seccomp: Seccomp::Default,
        landlock: None,
    }
}

/// The capabilities of a list, each once, in the order of their numbers.
fn set(list: &Option<Vec<CapabilitySet>>) -> Vec<Capability> {
    let has = |one: &Capability| {
        let mut entries = list.iter().flatten();
        entries
            .any(|entry| matches!(entry, CapabilitySet::All) || *entry == CapabilitySet::One(*one))
    };
    Capability::ALL.iter().copied().filter(has).collect()
}

fn vm(written: &VmTable, cpus: Cpus) -> VmOptions {
    let by_cpus = || u8::try_from(cpus.ceil()).map_or(*VCPUS.end(), |cpus| cpus.min(*VCPUS.end()));
    let kernel =
        written.kernel.as_ref().map(|name| name.as_str()).filter(|name| *name != "default");
    VmOptions { vcpus: written.vcpus.unwrap_or_else(by_cpus), kernel: kernel.map(str::to_owned) }
}

fn container(written: &ContainerTable) -> ContainerOptions {
    ContainerOptions {
        cpuset: written.cpuset.clone(),
        swap: written.swap.unwrap_or_default(),
        io_weight: written.io_weight,
        io_max: written.io_max.clone().unwrap_or_default(),
        apparmor: written.apparmor.clone(),
        selinux: written.selinux.clone(),
    }
}

/// Keys that mean nothing on one isolation.
fn inert(vm: &VmTable, container: &ContainerTable) -> Vec<InertKey> {
    let (in_container, in_vm) = (Isolation::Container, Isolation::Vm);
    let given = [
        ("vm.vcpus", in_container, vm.vcpus.is_some()),
        ("vm.kernel", in_container, vm.kernel.is_some()),
        ("container.cpuset", in_vm, container.cpuset.is_some()),
        ("container.swap", in_vm, container.swap.is_some()),
        ("container.io_weight", in_vm, container.io_weight.is_some()),
        ("container.io_max", in_vm, container.io_max.is_some()),
        ("container.apparmor", in_vm, container.apparmor.is_some()),
        ("container.selinux", in_vm, container.selinux.is_some()),
    ];
    let given = given.into_iter().filter(|(_, _, given)| *given);
    given.map(|(key, on, _)| InertKey { key: key.to_owned(), on }).collect()
}
