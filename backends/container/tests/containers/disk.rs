//! A small disk for a case: a loop device with a filesystem, mounted where a volume can be made of
//! it. Gone when dropped.

use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) struct Disk {
    pub(crate) device: PathBuf,
    pub(crate) files: PathBuf,
}

impl Disk {
    /// Makes it below `dir`; `None`, said with the reason, where this machine can't.
    pub(crate) fn make(dir: &Path) -> Option<Self> {
        match Self::try_make(dir) {
            Ok(disk) => Some(disk),
            Err(reason) => {
                println!("skipped: no disk can be made here: {reason}");
                None
            }
        }
    }

    fn try_make(dir: &Path) -> Result<Self, String> {
        // A loop device on a network filesystem waits for the network: it is kept in memory.
        let (image, files) =
            (PathBuf::from("/dev/shm").join(dir.file_name().unwrap()), dir.join("disk"));
        std::fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).unwrap();
        std::fs::create_dir(&files).unwrap();
        let made = run("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()])
            .and_then(|_| run("losetup", &["--find", "--show", image.to_str().unwrap()]));
        // The device keeps the file.
        std::fs::remove_file(&image).unwrap();
        let disk = Self { device: PathBuf::from(made?.trim()), files };
        run("mount", &[disk.device.to_str().unwrap(), disk.files.to_str().unwrap()])?;
        Ok(disk)
    }

    /// The kernel's name of it.
    fn name(&self) -> &str {
        self.device.file_name().unwrap().to_str().unwrap()
    }

    /// Chooses its scheduler; false where this kernel does not have that one.
    pub(crate) fn schedule(&self, scheduler: &str) -> bool {
        std::fs::write(format!("/sys/block/{}/queue/scheduler", self.name()), scheduler).is_ok()
    }

    /// Its numbers, as the kernel writes them.
    pub(crate) fn number(&self) -> String {
        let text = std::fs::read_to_string(format!("/sys/block/{}/dev", self.name())).unwrap();
        text.trim().to_owned()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.schedule("none");
        let _ = run("umount", &[self.files.to_str().unwrap()]);
        let _ = run("losetup", &["--detach", self.device.to_str().unwrap()]);
    }
}

fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output =
        Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
