//! Stands between a hostile guest and the passthrough file server.
//!
//! The guest's kernel handles device nodes, FIFOs and sockets by itself, and walks `..` in its own
//! cache: it never needs the host for either. So what is refused here costs an honest guest
//! nothing:
//! - opening anything but files and directories (the server's own check), and making device nodes;
//! - looking up `..`, which could leave the share after a directory was moved out of it;
//! - open flags that reach past the file (`O_DIRECT`, `O_ASYNC`, ...), in `open` and in `read` and
//!   `write`, which would set them on the open file;
//! - sizes for which the server would reserve memory before it knows that they make sense;
//! - setting attributes that give power on the host (`security.*`, `trusted.*`).

use std::ffi::{CStr, OsStr};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::{CreateIn, stat64, statvfs64};
use fuse_backend_rs::api::filesystem::{
    Context, DirEntry, Entry, FileSystem, FsOptions, GetxattrReply, ListxattrReply, OpenOptions,
    ROOT_ID, SetattrValid, ZeroCopyReader, ZeroCopyWriter,
};
use fuse_backend_rs::passthrough::{CachePolicy, Config, PassthroughFs};

/// How long the guest may believe what it knows of a name or a file. Host edits show after this.
const CACHE_TIME: Duration = Duration::from_secs(1);
/// Flags that reach the host's `open`.
const OPEN_FLAGS: u32 =
    flags(libc::O_ACCMODE | libc::O_APPEND | libc::O_TRUNC | libc::O_DIRECTORY | libc::O_SYNC);
/// Flags that stay on an open file.
const FILE_FLAGS: u32 = flags(libc::O_ACCMODE | libc::O_APPEND | libc::O_SYNC);
/// The most that one directory read returns.
const MAX_READDIR: u32 = 1 << 20;
/// The most that an extended attribute, or the list of their names, has (Linux limits.h).
const MAX_XATTR: u32 = 1 << 16;
/// What the guest's kernel may do on top of what the server asks for. Cached pages are kept over
/// opens, and dropped when size or time of change differ.
const OPTIONS: FsOptions = FsOptions::ASYNC_READ
    .union(FsOptions::ATOMIC_O_TRUNC)
    .union(FsOptions::AUTO_INVAL_DATA)
    .union(FsOptions::BIG_WRITES)
    .union(FsOptions::CACHE_SYMLINKS)
    .union(FsOptions::MAX_PAGES)
    .union(FsOptions::PARALLEL_DIROPS);

const fn flags(flags: i32) -> u32 {
    flags.cast_unsigned()
}

fn errno(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// A passthrough file system that refuses what only a hostile guest asks.
pub(super) struct Guard {
    inner: PassthroughFs,
    /// Attributes to fill a negative entry, which has none.
    none: stat64,
}

impl Guard {
    pub(super) fn new(root: &Path) -> io::Result<Self> {
        let root_dir = root.to_str().ok_or_else(|| errno(libc::EINVAL))?.to_owned();
        if root_dir.contains('\0') || !root.is_dir() {
            return Err(errno(libc::ENOTDIR));
        }
        let inner = PassthroughFs::new(Config {
            root_dir,
            entry_timeout: CACHE_TIME,
            attr_timeout: CACHE_TIME,
            cache_policy: CachePolicy::Auto,
            writeback: false,
            xattr: true,
            killpriv_v2: true,
            allow_direct_io: false,
            ..Default::default()
        })?;
        // Opens the root now, so that a bad share is an error before the guest runs.
        inner.import()?;
        let (none, _) = inner.getattr(&Context::default(), ROOT_ID, None)?;
        Ok(Self { inner, none })
    }

    /// Links a file by the name it has now. All that a guest gains by renaming directories in the
    /// middle of it is a link to another file of the same share: this process sees nothing else,
    /// and the kernel links nothing across mounts. `name` has been found to be one name.
    fn link_by_name(&self, inode: u64, parent: u64, name: &CStr) -> io::Result<()> {
        let from = self.inner.readlinkat_proc_file(inode)?;
        let to = self.inner.readlinkat_proc_file(parent)?.join(OsStr::from_bytes(name.to_bytes()));
        fs::hard_link(from, to)
    }
}

fn refuse_parent(name: &CStr) -> io::Result<()> {
    if name.to_bytes() == b".." { Err(errno(libc::EINVAL)) } else { Ok(()) }
}

fn refuse_power(name: &CStr) -> io::Result<()> {
    let name = name.to_bytes();
    if name.starts_with(b"security.") || name.starts_with(b"trusted.") {
        return Err(errno(libc::EPERM));
    }
    Ok(())
}

/// Keeps the guest's pages over opens; `OPTIONS` says when they are dropped.
fn keep_cache(options: OpenOptions) -> OpenOptions {
    options | OpenOptions::KEEP_CACHE
}

type Opened = (Option<u64>, OpenOptions, Option<u32>);

impl FileSystem for Guard {
    type Inode = u64;
    type Handle = u64;

    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        Ok(self.inner.init(capable & !FsOptions::PERFILE_DAX)? | OPTIONS)
    }

    fn destroy(&self) {
        self.inner.destroy();
    }

    fn lookup(&self, ctx: &Context, parent: u64, name: &CStr) -> io::Result<Entry> {
        refuse_parent(name)?;
        match self.inner.lookup(ctx, parent, name) {
            // Inode 0 lets the guest remember that there is no such name.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Entry {
                inode: 0,
                generation: 0,
                attr: self.none,
                attr_flags: 0,
                attr_timeout: CACHE_TIME,
                entry_timeout: CACHE_TIME,
            }),
            found => found,
        }
    }

    fn forget(&self, ctx: &Context, inode: u64, count: u64) {
        self.inner.forget(ctx, inode, count);
    }

    fn batch_forget(&self, ctx: &Context, requests: Vec<(u64, u64)>) {
        self.inner.batch_forget(ctx, requests);
    }

    fn getattr(
        &self,
        ctx: &Context,
        inode: u64,
        handle: Option<u64>,
    ) -> io::Result<(stat64, Duration)> {
        self.inner.getattr(ctx, inode, handle)
    }

    fn setattr(
        &self,
        ctx: &Context,
        inode: u64,
        attr: stat64,
        handle: Option<u64>,
        valid: SetattrValid,
    ) -> io::Result<(stat64, Duration)> {
        self.inner.setattr(ctx, inode, attr, handle, valid)
    }

    fn readlink(&self, ctx: &Context, inode: u64) -> io::Result<Vec<u8>> {
        self.inner.readlink(ctx, inode)
    }

    fn symlink(
        &self,
        ctx: &Context,
        linkname: &CStr,
        parent: u64,
        name: &CStr,
    ) -> io::Result<Entry> {
        self.inner.symlink(ctx, linkname, parent, name)
    }

    fn mknod(
        &self,
        ctx: &Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        rdev: u32,
        umask: u32,
    ) -> io::Result<Entry> {
        if matches!(mode & libc::S_IFMT, libc::S_IFCHR | libc::S_IFBLK) {
            return Err(errno(libc::EPERM));
        }
        self.inner.mknod(ctx, parent, name, mode, rdev, umask)
    }

    fn mkdir(
        &self,
        ctx: &Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        umask: u32,
    ) -> io::Result<Entry> {
        self.inner.mkdir(ctx, parent, name, mode, umask)
    }

    fn unlink(&self, ctx: &Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.inner.unlink(ctx, parent, name)
    }

    fn rmdir(&self, ctx: &Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.inner.rmdir(ctx, parent, name)
    }

    fn rename(
        &self,
        ctx: &Context,
        olddir: u64,
        oldname: &CStr,
        newdir: u64,
        newname: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        refuse_parent(oldname)?;
        refuse_parent(newname)?;
        self.inner.rename(ctx, olddir, oldname, newdir, newname, flags)
    }

    fn link(&self, ctx: &Context, inode: u64, parent: u64, name: &CStr) -> io::Result<Entry> {
        match self.inner.link(ctx, inode, parent, name) {
            // Before Linux 6.10 a file is linked by its descriptor only with CAP_DAC_READ_SEARCH
            // (linkat(2), AT_EMPTY_PATH), which this process has given up.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                self.link_by_name(inode, parent, name)?;
                self.lookup(ctx, parent, name)
            }
            linked => linked,
        }
    }

    fn open(&self, ctx: &Context, inode: u64, flags: u32, fuse_flags: u32) -> io::Result<Opened> {
        let (handle, options, id) = self.inner.open(ctx, inode, flags & OPEN_FLAGS, fuse_flags)?;
        Ok((handle, keep_cache(options), id))
    }

    fn create(
        &self,
        ctx: &Context,
        parent: u64,
        name: &CStr,
        mut args: CreateIn,
    ) -> io::Result<(Entry, Option<u64>, OpenOptions, Option<u32>)> {
        args.flags &= OPEN_FLAGS | self::flags(libc::O_CREAT | libc::O_EXCL);
        let (entry, handle, options, id) = self.inner.create(ctx, parent, name, args)?;
        Ok((entry, handle, keep_cache(options), id))
    }

    fn read(
        &self,
        ctx: &Context,
        inode: u64,
        handle: u64,
        w: &mut dyn ZeroCopyWriter,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        flags: u32,
    ) -> io::Result<usize> {
        let flags = flags & FILE_FLAGS;
        self.inner.read(ctx, inode, handle, w, size, offset, lock_owner, flags)
    }

    fn write(
        &self,
        ctx: &Context,
        inode: u64,
        handle: u64,
        r: &mut dyn ZeroCopyReader,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        delayed_write: bool,
        flags: u32,
        fuse_flags: u32,
    ) -> io::Result<usize> {
        let flags = flags & FILE_FLAGS;
        self.inner.write(
            ctx,
            inode,
            handle,
            r,
            size,
            offset,
            lock_owner,
            delayed_write,
            flags,
            fuse_flags,
        )
    }

    fn flush(&self, ctx: &Context, inode: u64, handle: u64, lock_owner: u64) -> io::Result<()> {
        self.inner.flush(ctx, inode, handle, lock_owner)
    }

    fn fsync(&self, ctx: &Context, inode: u64, datasync: bool, handle: u64) -> io::Result<()> {
        self.inner.fsync(ctx, inode, datasync, handle)
    }

    fn fallocate(
        &self,
        ctx: &Context,
        inode: u64,
        handle: u64,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        self.inner.fallocate(ctx, inode, handle, mode, offset, length)
    }

    fn release(
        &self,
        ctx: &Context,
        inode: u64,
        flags: u32,
        handle: u64,
        flush: bool,
        flock_release: bool,
        lock_owner: Option<u64>,
    ) -> io::Result<()> {
        self.inner.release(ctx, inode, flags, handle, flush, flock_release, lock_owner)
    }

    fn statfs(&self, ctx: &Context, inode: u64) -> io::Result<statvfs64> {
        self.inner.statfs(ctx, inode)
    }

    fn setxattr(
        &self,
        ctx: &Context,
        inode: u64,
        name: &CStr,
        value: &[u8],
        flags: u32,
    ) -> io::Result<()> {
        refuse_power(name)?;
        self.inner.setxattr(ctx, inode, name, value, flags)
    }

    fn getxattr(
        &self,
        ctx: &Context,
        inode: u64,
        name: &CStr,
        size: u32,
    ) -> io::Result<GetxattrReply> {
        self.inner.getxattr(ctx, inode, name, size.min(MAX_XATTR))
    }

    fn listxattr(&self, ctx: &Context, inode: u64, size: u32) -> io::Result<ListxattrReply> {
        self.inner.listxattr(ctx, inode, size.min(MAX_XATTR))
    }

    fn removexattr(&self, ctx: &Context, inode: u64, name: &CStr) -> io::Result<()> {
        refuse_power(name)?;
        self.inner.removexattr(ctx, inode, name)
    }

    fn opendir(
        &self,
        ctx: &Context,
        inode: u64,
        flags: u32,
    ) -> io::Result<(Option<u64>, OpenOptions)> {
        self.inner.opendir(ctx, inode, flags & OPEN_FLAGS)
    }

    fn readdir(
        &self,
        ctx: &Context,
        inode: u64,
        handle: u64,
        size: u32,
        offset: u64,
        add_entry: &mut dyn FnMut(DirEntry<'_>) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.inner.readdir(ctx, inode, handle, size.min(MAX_READDIR), offset, add_entry)
    }

    fn readdirplus(
        &self,
        ctx: &Context,
        inode: u64,
        handle: u64,
        size: u32,
        offset: u64,
        add_entry: &mut dyn FnMut(DirEntry<'_>, Entry) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.inner.readdirplus(ctx, inode, handle, size.min(MAX_READDIR), offset, add_entry)
    }

    fn fsyncdir(&self, ctx: &Context, inode: u64, datasync: bool, handle: u64) -> io::Result<()> {
        self.inner.fsyncdir(ctx, inode, datasync, handle)
    }

    fn releasedir(&self, ctx: &Context, inode: u64, flags: u32, handle: u64) -> io::Result<()> {
        self.inner.releasedir(ctx, inode, flags, handle)
    }

    fn access(&self, ctx: &Context, inode: u64, mask: u32) -> io::Result<()> {
        self.inner.access(ctx, inode, mask)
    }

    fn lseek(
        &self,
        ctx: &Context,
        inode: u64,
        handle: u64,
        offset: u64,
        whence: u32,
    ) -> io::Result<u64> {
        self.inner.lseek(ctx, inode, handle, offset, whence)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn guard() -> (tempfile::TempDir, Guard, Context) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), b"text").unwrap();
        fs::create_dir(dir.path().join("dir")).unwrap();
        symlink("/etc/passwd", dir.path().join("link")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let guard = Guard::new(dir.path()).unwrap();
        (dir, guard, Context::default())
    }

    fn raw(error: io::Error) -> i32 {
        error.raw_os_error().unwrap()
    }

    #[test]
    fn only_files_and_directories_are_opened() {
        let (_dir, guard, ctx) = guard();
        let inode = |name: &CStr| guard.lookup(&ctx, ROOT_ID, name).unwrap().inode;
        assert!(guard.open(&ctx, inode(c"file"), 0, 0).is_ok());
        for special in [c"fifo", c"link"] {
            // A FIFO without a writer would block; a symbolic link would leave the share.
            assert_eq!(raw(guard.open(&ctx, inode(special), 0, 0).unwrap_err()), libc::EBADF);
        }
    }

    #[test]
    fn the_parent_is_never_looked_up() {
        let (_dir, guard, ctx) = guard();
        let dir = guard.lookup(&ctx, ROOT_ID, c"dir").unwrap().inode;
        assert_eq!(raw(guard.lookup(&ctx, dir, c"..").unwrap_err()), libc::EINVAL);
        assert_eq!(raw(guard.lookup(&ctx, ROOT_ID, c"dir/..").unwrap_err()), libc::EINVAL);
    }

    #[test]
    fn a_missing_name_is_remembered_as_missing() {
        let (_dir, guard, ctx) = guard();
        let entry = guard.lookup(&ctx, ROOT_ID, c"none").unwrap();
        assert_eq!((entry.inode, entry.entry_timeout), (0, CACHE_TIME));
    }

    #[test]
    fn device_nodes_and_powerful_attributes_are_refused() {
        let (_dir, guard, ctx) = guard();
        for kind in [libc::S_IFCHR, libc::S_IFBLK] {
            let made = guard.mknod(&ctx, ROOT_ID, c"null", kind | 0o666, 0x103, 0);
            assert_eq!(raw(made.unwrap_err()), libc::EPERM);
        }
        let file = guard.lookup(&ctx, ROOT_ID, c"file").unwrap().inode;
        let set = guard.setxattr(&ctx, file, c"security.capability", &[0; 20], 0);
        assert_eq!(raw(set.unwrap_err()), libc::EPERM);
    }

    #[test]
    fn huge_sizes_reserve_little() {
        let (_dir, guard, ctx) = guard();
        let file = guard.lookup(&ctx, ROOT_ID, c"file").unwrap().inode;
        assert!(guard.listxattr(&ctx, file, u32::MAX).is_ok());
        let (handle, _) = guard.opendir(&ctx, ROOT_ID, 0).unwrap();
        let mut names = 0;
        guard
            .readdir(&ctx, ROOT_ID, handle.unwrap(), u32::MAX, 0, &mut |entry| {
                names += 1;
                Ok(entry.name.len())
            })
            .unwrap();
        assert_eq!(names, 4);
    }
}
