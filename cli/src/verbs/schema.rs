//! `moat schema`

use moat_core::spec;

use crate::Failure;
use crate::output::Output;

/// Prints the spec's JSON Schema; it is JSON in either format.
pub(crate) fn schema(output: Output) -> Result<u8, Failure> {
    output.result(&spec::schema(), |schema| format!("{schema:#}"))?;
    Ok(0)
}
