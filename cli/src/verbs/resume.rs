//! `moat resume`

use moat_core::control::Request;
use moat_core::lifecycle::Phase;

use crate::Failure;
use crate::args::Named;
use crate::instance;
use crate::output::Output;

/// Lets all processes of a paused workload go on.
pub(crate) fn resume(output: Output, args: &Named) -> Result<u8, Failure> {
    instance::order(output, args, &Request::Resume, Phase::Running)
}
