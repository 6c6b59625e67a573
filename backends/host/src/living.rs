//! Which instances have a living monitor, told by one look at each and without opening anything of
//! it: one file, in which every monitor holds the lock of the byte whose number is its instance's
//! id. A sweep beside a hundred others would else open a hundred journals.
//!
//! It says of an instance only that it lives. Of one that it does not know nothing is known, and
//! the lock on the journal tells.

use std::fs::{File, OpenOptions};
use std::path::Path;

use crate::lock;

const FILE: &str = "living.lock";

/// How many hexadecimal digits an id has: as many as surely fit an offset in a file.
const DIGITS: usize = 12;

/// The instances whose monitors said that they live.
#[derive(Debug)]
pub(crate) struct Living(Option<File>);

impl Living {
    /// Those of a runtime directory. Where they can't be told, none is known.
    pub(crate) fn look(runtime: &Path) -> Self {
        Self(File::open(runtime.join(FILE)).ok())
    }

    /// Whether the instance in the directory of this name is known to live.
    pub(crate) fn has(&self, name: &str) -> bool {
        match (&self.0, place(name)) {
            (Some(file), Some(place)) => lock::is_byte_taken(file, place).unwrap_or(false),
            _ => false,
        }
    }
}

/// Makes it known that the calling process's instance lives, until what this gives is dropped, or
/// the process ends. `None` where it can't be, and then every other moat has to try its journal.
pub(crate) fn announce(runtime: &Path, id: &str) -> Option<File> {
    let place = place(id)?;
    let open = OpenOptions::new().write(true).create(true).truncate(false).open(runtime.join(FILE));
    open.and_then(|file| lock::try_take_byte(&file, place).map(|_| file)).ok()
}

fn place(id: &str) -> Option<i64> {
    let digits = id.len() == DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| i64::from_str_radix(id, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lives_until_its_process_or_its_file_is_gone() {
        let runtime = tempfile::tempdir().unwrap();
        assert!(!Living::look(runtime.path()).has("00000000000a"));
        let first = announce(runtime.path(), "00000000000a").unwrap();
        let last = announce(runtime.path(), "ffffffffffff").unwrap();
        let living = Living::look(runtime.path());
        let known = |living: &Living| {
            ["00000000000a", "00000000000b", "ffffffffffff"].map(|id| living.has(id))
        };
        assert_eq!(known(&living), [true, false, true]);
        drop(first);
        assert_eq!(known(&living), [false, false, true]);
        drop(last);
        assert_eq!(known(&living), [false; 3]);
    }

    #[test]
    fn only_an_id_is_known() {
        let runtime = tempfile::tempdir().unwrap();
        for id in ["", "a", "+0000000000a", "00000000000g", "0000000000000a"] {
            assert!(announce(runtime.path(), id).is_none(), "{id}");
            assert!(!Living::look(runtime.path()).has(id), "{id}");
        }
    }
}
