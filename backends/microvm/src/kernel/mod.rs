//! Kernel bundles: the guest kernels that a micro-VM can boot, each with the modules it needs.
//!
//! A bundle is a directory `<data>/kernels/NAME` of `vmlinux` (ELF) or `bzImage`, `modules/*.ko`
//! and `manifest.toml`. It appears whole, by a rename, or not at all. The symbolic link
//! `<data>/kernels/default` names the one that is booted when nobody asks for another.
//! A moat that is killed on the way leaves a draft that nobody reads; the next one sweeps it.
//!
//! Bundles come from the distribution's package ([`Store::install`]), from any file
//! ([`Store::import`]), or from the distribution's kernel source ([`Store::build`]). A bzImage is
//! unpacked where its compression is known, since a guest that needs not unpack itself boots
//! sooner. Nothing here prints: what goes on is told to a [`Report`].

mod apt;
mod bundle;
mod decompress;
mod distribution;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod image;
mod import;
mod look;
mod modules;
mod recipe;
mod store;
mod tether;
mod tool;

pub use bundle::{Bundle, Manifest, Source};
pub use error::Error;
pub use import::Import;
pub use look::{Looked, look};
pub use store::{Entry, Store};

use std::ops::ControlFlow;

/// What is going on in a slow function of this module.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// What is being done, as a user reads it: `downloading linux-image-6.1.0-56-cloud-amd64`.
    pub step: &'a str,
    /// How much of the step is done, of how much, in the same unit; `None` when nobody knows.
    pub done: Option<(u64, u64)>,
}

/// Where a slow function tells its progress, ten times a second or so, and hears whether to go on.
/// After a break it undoes what it began and gives [`Error::Interrupted`].
pub type Report<'a> = &'a mut dyn FnMut(Progress<'_>) -> ControlFlow<()>;

fn tell(report: Report<'_>, progress: Progress<'_>) -> Result<(), Error> {
    match report(progress) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Interrupted),
    }
}

fn step(report: Report<'_>, step: &str) -> Result<(), Error> {
    tell(report, Progress { step, done: None })
}
