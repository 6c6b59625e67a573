//! What is shipped: the examples are valid, the schema and the reference know every key.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use moat_core::spec::{Capability, DEFAULT_CAPABILITIES, known_keys, parse, schema};
use serde_json::Value;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    let path = repository().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The keys of a schema, with their tables.
fn keys(root: &Value, schema: &Value, table: &str, keys_found: &mut BTreeSet<String>) {
    let schema = match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => {
            let pointer = reference.strip_prefix('#').expect("a local reference");
            root.pointer(pointer).expect("the reference leads somewhere")
        }
        None => schema,
    };
    let below =
        |key: &str| if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
    for (key, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten()
    {
        keys_found.insert(below(key));
        keys(root, property, &below(key), keys_found);
    }
    if let Some(named) = schema.get("additionalProperties").filter(|schema| schema.is_object()) {
        keys(root, named, &below("NAME"), keys_found);
    }
}

#[test]
fn the_schema_has_the_keys_of_the_parser() {
    let schema = schema();
    let mut found = BTreeSet::new();
    let workload = schema.pointer("/$defs/Workload").expect("a workload");
    keys(&schema, workload, "", &mut found);
    assert_eq!(found, known_keys());
    assert!(known_keys().len() > 60, "{}", known_keys().len());
}

#[test]
fn the_schema_is_strict_and_has_no_null() {
    fn walk(schema: &Value) {
        if let Some(properties) = schema.get("properties") {
            assert_eq!(
                schema.get("additionalProperties"),
                Some(&Value::Bool(false)),
                "{properties}"
            );
        }
        for part in schema.as_object().into_iter().flat_map(|object| object.values()) {
            assert!(!part.is_null());
            assert_ne!(part, "null");
            walk(part);
        }
        for part in schema.as_array().into_iter().flatten() {
            assert!(!part.is_null());
            assert_ne!(part, "null");
            walk(part);
        }
    }
    walk(&schema());
}

/// Every key of the schema is described, and those that are refused say so.
#[test]
fn the_schema_describes() {
    let schema = schema();
    let workload = schema.pointer("/$defs/Workload/properties").expect("a workload's keys");
    for (key, property) in workload.as_object().expect("an object") {
        let description = property.get("description").and_then(Value::as_str).unwrap_or_default();
        assert!(!description.is_empty(), "{key}");
        assert!(!description.contains('\n'), "{key}");
        let refused =
            ["oci", "ports", "depends_on", "healthcheck", "secrets"].contains(&key.as_str());
        assert_eq!(description.starts_with("Not supported yet"), refused, "{key}: {description}");
    }
}

/// `MOAT_BLESS=1` writes it anew.
#[test]
fn the_schema_in_docs_is_the_code_s() {
    let mut text = serde_json::to_string_pretty(&schema()).expect("serializes");
    text.push('\n');
    if std::env::var_os("MOAT_BLESS").is_some() {
        std::fs::write(repository().join("docs/spec.schema.json"), &text).expect("written");
    }
    assert!(
        read("docs/spec.schema.json") == text,
        "docs/spec.schema.json is out of date: cargo run -- schema > docs/spec.schema.json"
    );
}

/// The reference lists the capabilities that a workload has.
#[test]
fn the_reference_has_the_default_capabilities() {
    let reference = read("docs/spec.md");
    let (_, list) = reference.split_once("The default set: ").expect("the list");
    let (list, _) = list.split_once(". A workload").expect("the list ends");
    let listed: Vec<Capability> = list
        .split(", ")
        .flat_map(|names| names.split(",\n"))
        .map(|name| {
            name.trim_matches('`').parse().unwrap_or_else(|error| panic!("{name}: {error}"))
        })
        .collect();
    assert_eq!(listed, DEFAULT_CAPABILITIES);
}

#[test]
fn the_reference_names_every_key() {
    let reference = read("docs/spec.md");
    for key in known_keys() {
        assert!(reference.contains(&format!("`{key}`")), "docs/spec.md does not mention `{key}`");
    }
}

/// The blocks of TOML in the reference are specs.
#[test]
fn the_examples_of_the_reference_are_valid() {
    let reference = read("docs/spec.md");
    let mut blocks = 0;
    for block in reference.split("```toml\n").skip(1) {
        let (text, _) = block.split_once("```").expect("the block ends");
        parse(text, "docs/spec.md").unwrap_or_else(|problems| panic!("{text}\n{problems}"));
        blocks += 1;
    }
    assert!(blocks > 0);
}

#[test]
fn the_examples_are_valid() {
    let mut specs = 0;
    for entry in std::fs::read_dir(repository().join("specs")).expect("specs/") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("readable");
        let name = path.display().to_string();
        parse(&text, &name).unwrap_or_else(|problems| panic!("{problems}"));
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        assert!(first.starts_with("# "), "{name} says what it shows: {first}");
        assert_eq!(lines.next(), Some("#:schema ../docs/spec.schema.json"), "{name}");
        specs += 1;
    }
    assert!(specs >= 5, "{specs}");
}
