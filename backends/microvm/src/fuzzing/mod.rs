//! What the fuzz targets in `tests/fuzz` call: everything in this crate that reads what a guest, a
//! kernel file or a module says, under any bytes, with what must hold of the result. Only in test
//! and fuzzing builds; the hostile guests of `crate::hostile` drive devices through it, too.
// A finding is a panic.
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod blk;
pub(crate) mod driver;
pub(crate) mod files;
pub(crate) mod fs;
pub(crate) mod input;
mod net;
mod queue;
mod small;
mod vsock;

pub use blk::blk;
pub use files::{bundle, kernel};
pub use fs::fs;
pub use net::net;
pub use queue::{queue, registers};
pub use small::small;
pub use vsock::vsock;

#[cfg(test)]
#[path = "../../../../tests/fuzz/replay.rs"]
mod replay;

#[test]
fn the_corpora_find_nothing() {
    let targets: [replay::Target; 9] = [
        ("queue", queue),
        ("registers", registers),
        ("fs", fs),
        ("vsock", vsock),
        ("net", net),
        ("blk", blk),
        ("small", small),
        ("kernel", kernel),
        ("bundle", bundle),
    ];
    replay::replay(env!("CARGO_MANIFEST_DIR"), &targets);
}
