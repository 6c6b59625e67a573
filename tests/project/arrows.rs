//! Arrows between rooms go one way (docs/architecture.md).

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Which of moat's crates each may use. A crate that is not here is a test failure, so that a new
/// room is thought about.
const ARROWS: [(&str, &[&str]); 9] = [
    ("moat-core", &[]),
    ("moat-init", &["moat-core"]),
    ("moat-host", &["moat-core"]),
    ("moat-container", &["moat-core", "moat-host", "moat-init"]),
    ("moat-microvm", &["moat-core", "moat-host", "moat-init"]),
    ("moat-guest", &["moat-core", "moat-init"]),
    ("moat", &["moat-core", "moat-host", "moat-container", "moat-microvm"]),
    ("moat-tests", &["moat-core"]),
    ("xtask", &[]),
];

#[test]
fn crates_use_only_what_the_arrows_allow() {
    let allowed: BTreeMap<_, BTreeSet<_>> =
        ARROWS.iter().map(|(name, uses)| (*name, uses.iter().copied().collect())).collect();
    let metadata = metadata().unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert_eq!(packages.len(), ARROWS.len(), "a crate came or went: draw its arrows here");
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let allowed = allowed.get(name).unwrap_or_else(|| panic!("no arrows are drawn for {name}"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            let ours = dependency["path"].is_string();
            assert!(!ours || used == name || allowed.contains(used), "{name} must not use {used}");
        }
    }
}

#[test]
fn no_cargo_feature_selects_a_backend() {
    // The one that there is makes the schema that ships, for its test.
    let known = [("moat-core", "schema")];
    for package in metadata().unwrap()["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        for feature in package["features"].as_object().unwrap().keys() {
            assert!(known.contains(&(name, feature)), "{name} has the Cargo feature {feature}");
        }
    }
}

fn metadata() -> anyhow::Result<serde_json::Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}
