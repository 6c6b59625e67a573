//! What every end-to-end test uses: the built moat, a small root filesystem, runs and what they
//! showed.

#![deny(unsafe_code)]

pub mod host;
pub mod kept;
pub mod kernels;
pub mod live;
pub mod moat;
pub mod remains;
pub mod rootfs;
pub mod running;
pub mod seen;
pub mod skip;
pub mod terminal;
pub mod workspace;
