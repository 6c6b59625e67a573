//! Fuzz targets are whole: each is built, has a corpus, is replayed by the tests, and is on the list
//! that people read.

use std::fs;

use super::documents::root;

#[test]
fn every_fuzz_target_has_a_corpus_that_the_tests_replay() {
    let fuzz = root().join("tests/fuzz");
    let manifest: toml::Table =
        toml::from_str(&fs::read_to_string(fuzz.join("Cargo.toml")).unwrap()).unwrap();
    let readme = fs::read_to_string(fuzz.join("README.md")).unwrap();
    let entries: String = ["core", "backends/host", "backends/init", "backends/microvm"]
        .iter()
        .map(|room| root().join(room).join("src"))
        .map(|src| {
            let one = fs::read_to_string(src.join("fuzzing.rs"));
            one.or_else(|_| fs::read_to_string(src.join("fuzzing/mod.rs"))).unwrap()
        })
        .collect();
    let targets = manifest["bin"].as_array().unwrap();
    assert!(!targets.is_empty());
    for target in targets {
        let name = target["name"].as_str().unwrap();
        let entry = fs::read_to_string(fuzz.join(target["path"].as_str().unwrap())).unwrap();
        assert!(entry.contains(&format!("fuzzing::{name}(data)")), "{name} calls another entry");
        assert!(fs::read_dir(fuzz.join("corpus").join(name)).unwrap().next().is_some(), "{name}");
        assert!(entries.contains(&format!("(\"{name}\", {name})")), "no test replays {name}");
        assert!(readme.contains(&format!("`{name}`")), "tests/fuzz/README.md lacks {name}");
    }
    let corpora = fs::read_dir(fuzz.join("corpus")).unwrap().count();
    assert_eq!(corpora, targets.len(), "a corpus without a target");
}
