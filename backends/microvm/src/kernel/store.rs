//! The directory of bundles: finding them, and putting new ones there whole.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::bundle::{self, Bundle, Manifest, Source};
use super::{Error, Report, image, modules, step};
use crate::boot::Discovery;

const DEFAULT: &str = "default";
/// Directories that are being made or thrown away; nobody reads them.
const DRAFT_PREFIX: &str = ".draft-";
const NAME_MAX: usize = 64;

/// The bundles below a data directory.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// The store in `data`, moat's data directory. Touches nothing.
    pub fn in_data_dir(data: &Path) -> Self {
        Self { dir: data.join("kernels") }
    }

    /// Every bundle, sorted by name.
    ///
    /// # Errors
    /// When the directory or a manifest can't be read.
    pub fn list(&self) -> Result<Vec<Bundle>, Error> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io("read", &self.dir))?,
        };
        let mut bundles = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("read", &self.dir))?;
            let name = entry.file_name();
            if name.to_str().is_some_and(is_name) && entry.path().is_dir() {
                bundles.push(Bundle::open(&entry.path())?);
            }
        }
        bundles.sort_by(|a, b| a.name().cmp(b.name()));
        Ok(bundles)
    }

    /// The bundle of that name; `default` is whichever is the default.
    ///
    /// # Errors
    /// When there is none, or it can't be read.
    pub fn find(&self, name: &str) -> Result<Bundle, Error> {
        if name == DEFAULT {
            let none = || Error::NoDefault { dir: self.dir.clone() };
            return self.default_bundle()?.ok_or_else(none);
        }
        let dir = self.place(name)?;
        if !dir.is_dir() {
            return Err(Error::NoSuchBundle { name: name.to_owned(), dir: self.dir.clone() });
        }
        Bundle::open(&dir)
    }

    /// The default bundle, if there is one.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn default_bundle(&self) -> Result<Option<Bundle>, Error> {
        let link = self.dir.join(DEFAULT);
        let target = match fs::read_link(&link) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            target => target.map_err(Error::io("read", &link))?,
        };
        match target.to_str() {
            Some(name) if is_name(name) && self.dir.join(name).is_dir() => {
                Bundle::open(&self.dir.join(name)).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Makes the bundle of that name the default.
    ///
    /// # Errors
    /// When there is none of that name, or the link can't be written.
    pub fn set_default(&self, name: &str) -> Result<(), Error> {
        let bundle = self.find(name)?;
        let room = self.temporary()?;
        let fresh = room.path().join(DEFAULT);
        symlink(bundle.name(), &fresh).map_err(Error::io("write", &fresh))?;
        let link = self.dir.join(DEFAULT);
        fs::rename(&fresh, &link).map_err(Error::io("write", &link))
    }

    /// Removes the bundle of that name; machines that run keep their kernel.
    ///
    /// # Errors
    /// When there is none of that name, or it can't be removed.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let bundle = self.find(name)?;
        let room = self.temporary()?;
        let grave = room.path().join("removed");
        fs::rename(bundle.dir(), &grave).map_err(Error::io("remove", bundle.dir()))
    }

    /// Waits for its turn to make a bundle.
    pub(super) fn draft(&self, report: Report<'_>) -> Result<Draft<'_>, Error> {
        self.make_dir()?;
        let lock = self.lock(report)?;
        self.sweep();
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
        let file = File::create(&path).map_err(Error::io("write", &path))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, Errno::EWOULDBLOCK)) => {
                step(report, "waiting for another moat that makes a guest kernel ready");
                Flock::lock(file, FlockArg::LockExclusive)
            }
            failed => failed,
        }
        .map_err(|(_, errno)| Error::io("lock", &path)(errno.into()))
    }

    /// Removes what a killed moat left half-made. Only with the lock held.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(DRAFT_PREFIX) {
                // A leftover that stays costs disk only; making a new bundle says what is wrong.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
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
    pub(super) discovery: Discovery,
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
        step(report, "unpacking the kernel");
        let image = image::read(what.kernel)?;
        let dir = self.room.path().join("bundle");
        fs::create_dir(&dir).map_err(Error::io("make", &dir))?;
        write_synced(&dir.join(bundle::kernel_file(image.format)), &image.bytes)?;
        let modules = match what.modules {
            Some(from) => modules::collect(from, &dir.join(bundle::MODULES))?,
            None => Vec::new(),
        };
        let manifest = Manifest {
            name: what.name.to_owned(),
            version: image.release,
            format: image.format,
            discovery: what.discovery,
            sha256: hexadecimal(&Sha256::digest(&image.bytes)),
            modules,
            source: what.source,
        };
        let text = toml::to_string(&manifest)
            .map_err(|source| Error::WriteManifest { name: what.name.to_owned(), source })?;
        write_synced(&dir.join(bundle::MANIFEST), text.as_bytes())?;
        self.publish(&dir, &place)?;
        if self.store.default_bundle()?.is_none() {
            self.store.set_default(what.name)?;
        }
        Bundle::open(&place)
    }

    fn publish(&self, dir: &Path, place: &Path) -> Result<(), Error> {
        if place.exists() {
            let old = self.room.path().join("old");
            fs::rename(place, &old).map_err(Error::io("replace", place))?;
        }
        fs::rename(dir, place).map_err(Error::io("write", place))
    }
}

fn write_synced(path: &Path, data: &[u8]) -> Result<(), Error> {
    let write = |mut file: File| file.write_all(data).and_then(|()| file.sync_all());
    File::create_new(path).and_then(write).map_err(Error::io("write", path))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
