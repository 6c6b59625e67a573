//! `moat schema`: a JSON Schema that knows every key and no other.

use anyhow::{Context, Result, ensure};
use moat_tests::moat::Moat;

#[test]
fn it_is_a_schema_in_either_format() -> Result<()> {
    let text = Moat::new(["schema"])?.run()?;
    let schema = text.status(0)?.stderr("")?.json()?;
    let json = Moat::new(["schema", "--format", "json"])?.run()?.json()?;
    ensure!(schema == json, "the formats differ");
    let dialect = schema["$schema"].as_str().context("no $schema")?;
    ensure!(dialect.starts_with("https://json-schema.org/"), "{dialect}");
    let text = schema.to_string();
    for key in
        ["\"workload\"", "\"rootfs\"", "\"min\"", "\"stop_timeout\"", "\"vcpus\"", "\"cap_add\""]
    {
        ensure!(text.contains(key), "the schema lacks {key}");
    }
    ensure!(text.contains("\"additionalProperties\":false"), "unknown keys are let through");
    Ok(())
}
