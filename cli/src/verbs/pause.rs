//! `moat pause`

use moat_core::control::Request;
use moat_core::lifecycle::Phase;

use crate::Failure;
use crate::args::Named;
use crate::instance;
use crate::output::Output;

/// Stops all processes of a running workload, until `moat resume`.
pub(crate) fn pause(output: Output, args: &Named) -> Result<u8, Failure> {
    instance::order(output, args, &Request::Pause, Phase::Paused)
}
