//! The cases.

mod asked_limits;
mod executable;
mod life;
mod limits;
mod pause;
mod plain_user;
mod process;
mod root;
mod streams;
mod terminal;
mod wall;

/// A case with its name.
pub(crate) type Named = (&'static str, fn());

pub(crate) fn all() -> Vec<Named> {
    [
        process::CASES,
        root::CASES,
        wall::CASES,
        limits::CASES,
        asked_limits::CASES,
        pause::CASES,
        life::CASES,
        terminal::CASES,
        streams::CASES,
        plain_user::CASES,
        executable::CASES,
    ]
    .concat()
}
