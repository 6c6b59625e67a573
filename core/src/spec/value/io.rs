//! How fast a block device may be used.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Bytes;

/// The most that the workload reads from and writes to one block device in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
pub struct IoMax {
    /// How much is read in a second.
    pub read_bps: Option<Bytes>,
    /// How much is written in a second.
    pub write_bps: Option<Bytes>,
    /// How many reads there are in a second.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 4_294_967_295_u64)))]
    pub read_iops: Option<u64>,
    /// How many writes there are in a second.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 4_294_967_295_u64)))]
    pub write_iops: Option<u64>,
}

impl fmt::Display for IoMax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |value: Option<Bytes>| value.map(|value| value.to_string());
        let count = |value: Option<u64>| value.map(|value| value.to_string());
        let parts = [
            ("read_bps", size(self.read_bps)),
            ("write_bps", size(self.write_bps)),
            ("read_iops", count(self.read_iops)),
            ("write_iops", count(self.write_iops)),
        ];
        let given = parts.iter().filter_map(|(key, value)| value.as_ref().map(|v| (key, v)));
        for (index, (key, value)) in given.enumerate() {
            write!(f, "{}{key} {value}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
