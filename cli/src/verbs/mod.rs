//! One file for each verb.

pub(crate) mod doctor;
pub(crate) mod exec;
pub(crate) mod explain;
pub(crate) mod inspect;
pub(crate) mod kernel;
pub(crate) mod kill;
pub(crate) mod logs;
pub(crate) mod microvm;
pub(crate) mod pause;
pub(crate) mod ps;
pub(crate) mod resume;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod wait;
