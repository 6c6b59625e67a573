//! What every end-to-end test uses: the built moat, a small root filesystem, runs and what they
//! showed.

#![deny(unsafe_code)]

pub mod moat;
pub mod rootfs;
