//! Finds the modules that a guest needs, with all that they need, in an order that loads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use object::Endianness;
use object::read::elf::ElfFile64;
use object::read::{Object, ObjectSection};

use super::Error;
use super::decompress::decompress;
use super::image::{NO_RELEASE, read_limited};
use super::store::write_synced;

/// What moat's guest uses: virtio devices over MMIO, the shared root, its overlay, the agent
/// channel. The guest's kernel has each built in or as a module.
const NEEDED: [&str; 4] = ["virtio_mmio", "virtiofs", "overlay", "vmw_vsock_virtio_transport"];

/// What its guest uses where the kernel has it at all: memory that goes back to the host.
const WANTED: [&str; 1] = ["virtio_balloon"];

/// The most that one module may have, packed or unpacked, in bytes.
const LIMIT: usize = 64 << 20;
/// Distributions have less than ten thousand modules, six directories deep.
const FILES_MAX: usize = 100_000;
const DEPTH_MAX: usize = 16;

/// Copies the modules that a guest with this kernel needs from `from` (as `/lib/modules/VERSION`)
/// to the new directory `to`, unpacked. Their file names, each after those it needs.
pub(super) fn collect(from: &Path, release: &str, to: &Path) -> Result<Vec<String>, Error> {
    let tree = Tree::read(from, release)?;
    let mut chosen = Chosen::default();
    for name in NEEDED {
        chosen.add(&tree, name)?;
    }
    for name in WANTED.into_iter().filter(|name| tree.files.contains_key(*name)) {
        chosen.add(&tree, name)?;
    }
    fs::create_dir(to).map_err(Error::io("make", to))?;
    let mut names = Vec::with_capacity(chosen.ordered.len());
    for (name, data) in chosen.ordered {
        let file = format!("{name}.ko");
        let path = to.join(&file);
        write_synced(&path, &data)?;
        names.push(file);
    }
    Ok(names)
}

/// A directory of modules, by name.
struct Tree<'a> {
    dir: &'a Path,
    /// The kernel that they are for.
    release: &'a str,
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
}

impl<'a> Tree<'a> {
    fn read(dir: &'a Path, release: &'a str) -> Result<Self, Error> {
        let mut files = BTreeMap::new();
        find_modules(dir, DEPTH_MAX, &mut files)?;
        let list = dir.join("modules.builtin");
        let builtin = match fs::read_to_string(&list) {
            Ok(text) => text.lines().filter_map(|line| module_name(Path::new(line))).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(Error::io("read", &list)(error)),
        };
        Ok(Self { dir, release, files, builtin })
    }

    fn differs(&self, release: &str) -> bool {
        self.release != NO_RELEASE && self.release != release
    }
}

/// Symbolic links (`build`, `source`) are not followed.
fn find_modules(
    dir: &Path,
    depth: usize,
    files: &mut BTreeMap<String, PathBuf>,
) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let entry = entry.map_err(Error::io("read", dir))?;
        let kind = entry.file_type().map_err(Error::io("read", dir))?;
        let path = entry.path();
        if kind.is_dir() && depth > 0 {
            find_modules(&path, depth - 1, files)?;
        } else if kind.is_file()
            && files.len() < FILES_MAX
            && let Some(name) = module_name(&path)
        {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// `kernel/fs/fuse/virtio-fs.ko.xz` is `virtio_fs`: the kernel makes no difference between `-` and
/// `_` in a module's name.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (name, packing) = file.split_once(".ko")?;
    let known = ["", ".xz", ".zst", ".gz"].contains(&packing) && !name.is_empty();
    known.then(|| name.replace('-', "_"))
}

#[derive(Default)]
struct Chosen {
    ordered: Vec<(String, Vec<u8>)>,
    seen: BTreeSet<String>,
}

impl Chosen {
    /// Adds what `name` needs, then `name`. A module that needs itself, by whatever way, is added
    /// once: the kernel will refuse it.
    fn add(&mut self, tree: &Tree<'_>, name: &str) -> Result<(), Error> {
        if tree.builtin.contains(name) || !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let missing = || Error::NoModule { name: name.to_owned(), dir: tree.dir.to_owned() };
        let path = tree.files.get(name).ok_or_else(missing)?;
        let data = unpacked(path)?;
        let info = Info::read(&data).map_err(|why| not_a_module(path, why))?;
        if let Some(found) = info.release.filter(|found| tree.differs(found)) {
            let (path, release) = (path.clone(), tree.release.to_owned());
            return Err(Error::OtherKernel { path, found, release });
        }
        for needed in info.depends {
            self.add(tree, &needed)?;
        }
        self.ordered.push((name.to_owned(), data));
        Ok(())
    }
}

fn not_a_module(path: &Path, why: impl ToString) -> Error {
    Error::NotAModule { path: path.to_owned(), why: why.to_string() }
}

fn unpacked(path: &Path) -> Result<Vec<u8>, Error> {
    let data = read_limited(path, LIMIT)?;
    if data.starts_with(&object::elf::ELFMAG) {
        return Ok(data);
    }
    decompress(&data, LIMIT).map_err(|error| not_a_module(path, error))
}

/// What a module says of itself in its section `.modinfo`, in NUL-separated strings.
#[derive(Default)]
pub(super) struct Info {
    /// The modules that it needs: `depends=a,b`.
    pub(super) depends: Vec<String>,
    /// The kernel that it was built for: the first word of `vermagic=`.
    release: Option<String>,
}

impl Info {
    pub(super) fn read(module: &[u8]) -> Result<Self, object::Error> {
        let elf = ElfFile64::<Endianness>::parse(module)?;
        let info = match elf.section_by_name(".modinfo") {
            Some(section) => section.data()?,
            None => return Ok(Self::default()),
        };
        let value = |key: &[u8]| {
            let line = info.split(|&byte| byte == 0).find_map(|line| line.strip_prefix(key))?;
            Some(String::from_utf8_lossy(line))
        };
        let names = value(b"depends=").unwrap_or_default();
        let names = names.split(',').filter(|name| !name.is_empty());
        let magic = value(b"vermagic=");
        let release = magic.and_then(|magic| magic.split_whitespace().next().map(str::to_owned));
        Ok(Self { depends: names.map(|name| name.replace('-', "_")).collect(), release })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::decompress::tests::lz4_legacy;
    use super::*;

    const RELEASE: &str = "6.1.0-tiny";

    /// An ELF object whose only section besides the names is `.modinfo`.
    fn module(depends: &str) -> Vec<u8> {
        let info =
            format!("license=GPL\0depends={depends}\0name=x\0vermagic=6.1.0-tiny SMP preempt \0");
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(16, 0);
        elf.extend(1u16.to_le_bytes()); // e_type: ET_REL
        elf.extend(62u16.to_le_bytes());
        elf.extend(1u32.to_le_bytes());
        let sections = 64 + info.len() + names.len();
        for field in [0, 0, u64::try_from(sections).unwrap()] {
            elf.extend(field.to_le_bytes()); // e_entry, e_phoff, e_shoff
        }
        elf.extend(0u32.to_le_bytes());
        for field in [64u16, 0, 0, 64, 3, 2] {
            elf.extend(field.to_le_bytes());
        }
        elf.extend(info.as_bytes());
        elf.extend(names);
        let section = |name: u32, kind: u32, offset: usize, size: usize| {
            let mut header = Vec::new();
            header.extend(name.to_le_bytes());
            header.extend(kind.to_le_bytes());
            for field in [0, 0, offset, size, 0, 1, 0] {
                header.extend(u64::try_from(field).unwrap().to_le_bytes());
            }
            // sh_link and sh_info are 32 bits each, together one of the fields above.
            header.truncate(64);
            header
        };
        elf.extend(section(0, 0, 0, 0));
        elf.extend(section(1, 1, 64, info.len()));
        elf.extend(section(10, 3, 64 + info.len(), names.len()));
        elf
    }

    /// A directory like a distribution's, some modules packed, some built in.
    pub(in super::super) fn tree() -> tempfile::TempDir {
        let room = tempfile::tempdir().unwrap();
        let put = |path: &str, data: &[u8]| {
            let path = room.path().join("kernel").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, data).unwrap();
        };
        put("drivers/virtio/virtio.ko", &module("virtio_ring"));
        put("drivers/virtio/virtio_ring.ko", &module(""));
        put("drivers/virtio/virtio_mmio.ko", &module("virtio,virtio_ring"));
        put("fs/fuse/virtiofs.ko", &module("fuse,virtio,virtio-ring"));
        put("fs/overlayfs/overlay.ko", &module(""));
        put("net/vmw_vsock/vsock.ko", &module(""));
        put("net/vmw_vsock/vmw_vsock_virtio_transport.ko.gz", &gzip(&module("vsock,virtio")));
        put("net/other.ko", b"not even an ELF");
        fs::write(room.path().join("modules.builtin"), "kernel/fs/fuse/fuse.ko\n").unwrap();
        std::os::unix::fs::symlink("/", room.path().join("build")).unwrap();
        room
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        use std::io::Read;
        let mut packed = Vec::new();
        let mut encoder = flate2::read::GzEncoder::new(data, flate2::Compression::fast());
        encoder.read_to_end(&mut packed).unwrap();
        packed
    }

    #[test]
    fn modules_come_after_those_they_need() {
        let (room, to) = (tree(), tempfile::tempdir().unwrap());
        let to = to.path().join("modules");
        let names = collect(room.path(), RELEASE, &to).unwrap();
        let expected = [
            "virtio_ring.ko",
            "virtio.ko",
            "virtio_mmio.ko",
            "virtiofs.ko",
            "overlay.ko",
            "vsock.ko",
            "vmw_vsock_virtio_transport.ko",
        ];
        assert_eq!(names, expected);
        for name in expected {
            assert!(fs::read(to.join(name)).unwrap().starts_with(b"\x7fELF"), "{name}");
        }
    }

    #[test]
    fn what_is_wanted_is_taken_where_it_is() {
        let (room, to) = (tree(), tempfile::tempdir().unwrap());
        let balloon = room.path().join("kernel/drivers/virtio/virtio_balloon.ko");
        fs::write(balloon, module("virtio,virtio_ring")).unwrap();
        let names = collect(room.path(), RELEASE, &to.path().join("modules")).unwrap();
        assert_eq!((names.len(), names[7].as_str()), (8, "virtio_balloon.ko"));
    }

    #[test]
    fn a_module_that_is_nowhere_is_named() {
        let (room, to) = (tree(), tempfile::tempdir().unwrap());
        fs::remove_file(room.path().join("modules.builtin")).unwrap();
        match collect(room.path(), RELEASE, &to.path().join("modules")) {
            Err(Error::NoModule { name, .. }) => assert_eq!(name, "fuse"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn modules_of_another_kernel_are_refused() {
        let (room, to) = (tree(), tempfile::tempdir().unwrap());
        match collect(room.path(), "6.1.1-tiny", &to.path().join("modules")) {
            Err(Error::OtherKernel { found, .. }) => assert_eq!(found, RELEASE),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn modules_that_need_each_other_come_to_an_end() {
        let (room, to) = (tree(), tempfile::tempdir().unwrap());
        let ring = room.path().join("kernel/drivers/virtio/virtio_ring.ko");
        fs::write(ring, module("virtio")).unwrap();
        assert_eq!(collect(room.path(), RELEASE, &to.path().join("modules")).unwrap().len(), 7);
    }

    #[test]
    fn what_is_no_module_is_refused() {
        for data in [b"junk".to_vec(), b"\x7fELF\x02\x01\x01".to_vec(), lz4_legacy(b"junk")] {
            let (room, to) = (tree(), tempfile::tempdir().unwrap());
            fs::write(room.path().join("kernel/fs/overlayfs/overlay.ko"), data).unwrap();
            let result = collect(room.path(), RELEASE, &to.path().join("modules"));
            assert!(matches!(result, Err(Error::NotAModule { .. })), "{result:?}");
        }
    }

    #[test]
    fn names_are_the_kernels() {
        let name = |path: &str| module_name(Path::new(path));
        assert_eq!(name("a/kvm-amd.ko").as_deref(), Some("kvm_amd"));
        assert_eq!(name("x.ko.zst").as_deref(), Some("x"));
        for other in ["x.kov", "x.ko.bak", ".ko", "modules.dep", ""] {
            assert_eq!(name(other), None, "{other}");
        }
    }
}
