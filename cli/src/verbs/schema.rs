//! `moat schema`

use crate::Failure;
use crate::output::Output;

/// Generated from the spec's types, which a test holds it against.
const SCHEMA: &str = include_str!("../../../docs/spec.schema.json");

/// Prints the spec's JSON Schema; it is JSON in either format.
pub(crate) fn schema(output: Output) -> Result<u8, Failure> {
    output.raw(SCHEMA)?;
    Ok(0)
}
