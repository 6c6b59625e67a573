//! One file for each behaviour.

mod exit_status;

use anyhow::Result;
use moat_tests::moat::Seen;

use crate::wall::Wall;

/// A behaviour: runs things behind a wall, checks them, and gives what it saw for comparison.
pub struct Case {
    /// The file's name.
    pub name: &'static str,
    /// The case.
    pub run: fn(Wall) -> Result<Vec<Seen>>,
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// Every case.
        pub const ALL: &[Case] = &[$(Case { name: stringify!($name), run: $name::case }),*];
    };
}

cases![exit_status];
