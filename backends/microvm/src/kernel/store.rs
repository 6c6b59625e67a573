//! The directory of bundles: finding them, and putting new ones there whole.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::bundle::{self, Bundle, Manifest, Source, hexadecimal};
use super::{Error, Report, image, modules, step};
use crate::boot::Discovery;

const DEFAULT: &str = "default";
/// Directories that are being made or thrown away; nobody reads them.
const DRAFT_PREFIX: &str = ".draft-";
const NAME_MAX: usize = 64;

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The bundles below a data directory.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

/// What is under one name in the store.
#[derive(Debug)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// The directory.
    pub dir: PathBuf,
    /// The bundle in it, or why it can't be used.
    pub bundle: Result<Bundle, Error>,
}

impl Store {
    /// The store in `data`, moat's data directory. Touches nothing.
    pub fn in_data_dir(data: &Path) -> Self {
        Self { dir: data.join("kernels") }
    }

    /// Every bundle, sorted by name, broken ones too.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn list(&self) -> Result<Vec<Entry>, Error> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io("read", &self.dir))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("read", &self.dir))?;
            let (name, dir) = (entry.file_name(), entry.path());
            if let Some(name) = name.to_str().filter(|name| is_name(name))
                && dir.is_dir()
            {
                let bundle = Bundle::open(&dir);
                found.push(Entry { name: name.to_owned(), dir, bundle });
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The bundle of that name; `default` is whichever is the default.
    ///
    /// # Errors
    /// When there is none, or it can't be used.
    pub fn find(&self, name: &str) -> Result<Bundle, Error> {
        Bundle::open(&self.dir_of(name)?)
    }

    /// The name of the default bundle, if there is one, usable or not.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn default_name(&self) -> Result<Option<String>, Error> {
        let link = self.dir.join(DEFAULT);
        let target = match fs::read_link(&link) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            target => target.map_err(Error::io("read", &link))?,
        };
        let is_there = |name: &&str| is_name(name) && self.dir.join(name).is_dir();
        Ok(target.to_str().filter(is_there).map(str::to_owned))
    }

    /// Makes the bundle of that name the default.
    ///
    /// # Errors
    /// When there is none of that name, it can't be used, or the link can't be written.
    pub fn set_default(&self, name: &str, report: Report<'_>) -> Result<Bundle, Error> {
        let bundle = self.find(name)?;
        self.draft(report)?.make_default(bundle.name())?;
        Ok(bundle)
    }

    /// Removes the bundle of that name, usable or not, and gives its name; machines that run keep
    /// their kernel.
    ///
    /// # Errors
    /// When there is none of that name, or it can't be removed.
    pub fn remove(&self, name: &str, report: Report<'_>) -> Result<String, Error> {
        self.dir_of(name)?;
        let draft = self.draft(report)?;
        // Another moat may have removed it in the meantime.
        let dir = self.dir_of(name)?;
        let grave = draft.room().join("removed");
        fs::rename(&dir, &grave).map_err(Error::io("remove", &dir))?;
        Ok(dir.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }

    /// The directory of the bundle of that name, which is there.
    fn dir_of(&self, name: &str) -> Result<PathBuf, Error> {
        if name == DEFAULT {
            return match self.default_name()? {
                Some(name) => Ok(self.dir.join(name)),
                None => {
                    let others = self.list()?.into_iter().map(|entry| entry.name).collect();
                    Err(Error::NoDefault { dir: self.dir.clone(), others })
                }
            };
        }
        let dir = self.place(name)?;
        if !dir.is_dir() {
            return Err(Error::NoSuchBundle { name: name.to_owned(), dir: self.dir.clone() });
        }
        Ok(dir)
    }

    /// Waits for its turn to make a bundle.
    pub(super) fn draft(&self, report: Report<'_>) -> Result<Draft<'_>, Error> {
        self.make_dir()?;
        let lock = self.lock(report)?;
        self.sweep(report)?;
        Ok(Draft { store: self, room: self.temporary()?, _lock: lock })
    }

    /// Where a bundle of that name belongs.
    pub(super) fn place(&self, name: &str) -> Result<PathBuf, Error> {
        if is_name(name) {
            Ok(self.dir.join(name))
        } else {
            Err(Error::Name { name: name.to_owned() })
        }
    }

    fn make_dir(&self) -> Result<(), Error> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&self.dir).map_err(Error::io("make", &self.dir))
    }

    fn temporary(&self) -> Result<TempDir, Error> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(DRAFT_PREFIX).tempdir_in(&self.dir).map_err(Error::io("write in", &self.dir))
    }

    /// One bundle is made at a time, so that two first runs don't both download.
    fn lock(&self, report: Report<'_>) -> Result<Flock<File>, Error> {
        let path = self.dir.join(".lock");
        let mut file = File::create(&path).map_err(Error::io("write", &path))?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(lock),
                Err((same, Errno::EWOULDBLOCK)) => file = same,
                Err((_, errno)) => return Err(Error::io("lock", &path)(errno.into())),
            }
            step(report, "waiting for another moat that makes a guest kernel ready")?;
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Removes what a killed moat left half-made. Only with the lock held.
    fn sweep(&self, report: Report<'_>) -> Result<(), Error> {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(DRAFT_PREFIX) {
                step(report, "removing what a moat that was killed has left")?;
                // A leftover that stays costs disk only; making a new bundle says what is wrong.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    name != DEFAULT
        && name.len() <= NAME_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(plain)
}

/// What a new bundle is made of.
pub(super) struct Ingredients<'a> {
    pub(super) name: &'a str,
    pub(super) kernel: &'a Path,
    /// A directory as `/lib/modules/VERSION`; none when the kernel has all it needs built in.
    pub(super) modules: Option<&'a Path>,
    /// None: by what the kernel has.
    pub(super) discovery: Option<Discovery>,
    pub(super) source: Source,
}

/// The right to make a bundle, and a directory to make it in, gone when this is dropped.
pub(super) struct Draft<'a> {
    store: &'a Store,
    room: TempDir,
    _lock: Flock<File>,
}

impl Draft<'_> {
    /// A directory for what is needed on the way.
    pub(super) fn room(&self) -> &Path {
        self.room.path()
    }

    /// Makes the bundle, puts it in its place, and makes it the default if there is none.
    pub(super) fn finish(
        &self,
        what: Ingredients<'_>,
        report: Report<'_>,
    ) -> Result<Bundle, Error> {
        let place = self.store.place(what.name)?;
        step(report, "unpacking the kernel")?;
        let image = image::read(what.kernel)?;
        let dir = self.room.path().join("bundle");
        fs::create_dir(&dir).map_err(Error::io("make", &dir))?;
        write_synced(&dir.join(bundle::kernel_file(image.format)), &image.bytes)?;
        let modules = match what.modules {
            Some(from) => modules::collect(from, &image.release, &dir.join(bundle::MODULES))?,
            None => Vec::new(),
        };
        let discovery = what.discovery.unwrap_or_else(|| image.discovery());
        let manifest = Manifest {
            name: what.name.to_owned(),
            version: image.release,
            format: image.format,
            size: u64::try_from(image.bytes.len()).unwrap_or(u64::MAX),
            discovery,
            sha256: hexadecimal(&Sha256::digest(&image.bytes)),
            modules,
            source: what.source,
        };
        let text = toml::to_string(&manifest)
            .map_err(|source| Error::WriteManifest { name: what.name.to_owned(), source })?;
        write_synced(&dir.join(bundle::MANIFEST), text.as_bytes())?;
        step(report, "putting the kernel in its place")?;
        self.publish(&dir, &place)?;
        self.default_if_none(what.name)?;
        Bundle::open(&place)
    }

    /// In place of an older bundle of that name in one step, so that none is ever half there.
    fn publish(&self, dir: &Path, place: &Path) -> Result<(), Error> {
        let flags = RenameFlags::RENAME_EXCHANGE;
        match renameat2(AT_FDCWD, dir, AT_FDCWD, place, flags) {
            Ok(()) => Ok(()),
            Err(Errno::ENOENT) => fs::rename(dir, place).map_err(Error::io("write", place)),
            // Filesystems need not have it (rename(2)).
            Err(Errno::EINVAL) => {
                let old = self.room().join("old");
                fs::rename(place, &old).map_err(Error::io("replace", place))?;
                fs::rename(dir, place).map_err(Error::io("write", place))
            }
            Err(errno) => Err(Error::io("write", place)(errno.into())),
        }
    }

    /// Makes the bundle of that name the default if none is.
    pub(super) fn default_if_none(&self, name: &str) -> Result<(), Error> {
        match self.store.default_name()? {
            Some(_) => Ok(()),
            None => self.make_default(name),
        }
    }

    fn make_default(&self, name: &str) -> Result<(), Error> {
        let fresh = self.room().join(DEFAULT);
        symlink(name, &fresh).map_err(Error::io("write", &fresh))?;
        let link = self.store.dir.join(DEFAULT);
        fs::rename(&fresh, &link).map_err(Error::io("write", &link))
    }
}

/// Written so that it is whole even after a power failure.
pub(super) fn write_synced(path: &Path, data: &[u8]) -> Result<(), Error> {
    let write = |mut file: File| file.write_all(data).and_then(|()| file.sync_all());
    File::create_new(path).and_then(write).map_err(Error::io("write", path))
}
