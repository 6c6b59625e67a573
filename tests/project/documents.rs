//! Documents say what the code does.

use std::fs;
use std::path::{Path, PathBuf};

use moat_core::diagnose::Code;

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn exit_codes_are_the_codes_own() {
    let text = fs::read_to_string(root().join("docs/exit-codes.md")).unwrap();
    let documented: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
    let coded: Vec<String> = Code::ALL
        .iter()
        .map(|code| format!("| `{code}` | {} | {} |", code.exit_status(), code.meaning()))
        .collect();
    assert_eq!(documented, coded);
}

#[test]
fn every_room_is_on_the_map() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = toml::from_str(&manifest).unwrap();
    let dependencies = manifest["workspace"]["dependencies"].as_table().unwrap();
    for (name, dependency) in dependencies {
        if let Some(path) = dependency.get("path").and_then(toml::Value::as_str) {
            assert!(
                text.contains(&format!("`{path}/`")),
                "docs/architecture.md lacks {path}/ ({name})"
            );
        }
    }
}

#[test]
fn relative_links_lead_somewhere() {
    let documents =
        ["README.md", "CHANGELOG.md", "docs/architecture.md", "docs/spec.md", "docs/exit-codes.md"];
    for document in documents {
        let path = root().join(document);
        let text = fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let target = path.parent().unwrap().join(file);
            assert!(target.exists(), "{document} links to {link}, which is not there");
        }
    }
}
