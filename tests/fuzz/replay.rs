//! Runs every file of a target's corpus, and what is close to it, through the target's entry
//! function: what a fuzzer found once stays found, on stable and without instrumentation. Included
//! by the `fuzzing` module of each crate.

use std::path::Path;

/// A target's name and its entry function.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Variants of each file.
const VARIANTS: usize = 24;

/// Replays the corpora of `targets` for the crate whose manifest is in `manifest_dir`.
pub(crate) fn replay(manifest_dir: &str, targets: &[Target]) {
    let repository = Path::new(manifest_dir)
        .ancestors()
        .find(|dir| dir.join("tests/fuzz/corpus").is_dir())
        .expect("the corpora are in the repository");
    for (name, entry) in targets {
        let corpus = repository.join("tests/fuzz/corpus").join(name);
        let files =
            std::fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{corpus:?}: {error}"));
        let mut replayed = 0;
        for file in files {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            replayed += 1;
            entry(&bytes);
            for variant in 0..VARIANTS.min(bytes.len()) {
                let at = variant * bytes.len() / VARIANTS.min(bytes.len());
                entry(&bytes[..at]);
                let mut changed = bytes.clone();
                changed[at] ^= [0x01, 0x80, 0xff][variant % 3];
                entry(&changed);
            }
        }
        assert!(replayed > 0, "{name} has no corpus");
    }
}
