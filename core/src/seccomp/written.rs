//! A profile as its file has it: the OCI's keys, and those of Docker's and Podman's profiles. A key
//! that none of them has is a mistake: it would be a part of the filter that is not there.

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct File {
    pub(super) default_action: String,
    pub(super) default_errno_ret: Option<u32>,
    /// Podman's: the same by name.
    pub(super) default_errno: Option<String>,
    pub(super) architectures: Option<Vec<String>>,
    /// Docker's: which architectures stand for which others.
    pub(super) arch_map: Option<Vec<ArchMap>>,
    pub(super) flags: Option<Vec<String>>,
    pub(super) listener_path: Option<String>,
    #[serde(rename = "listenerMetadata")]
    pub(super) _listener_metadata: Option<String>,
    pub(super) syscalls: Option<Vec<Syscall>>,
    #[serde(rename = "comment")]
    pub(super) _comment: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ArchMap {
    pub(super) architecture: String,
    pub(super) sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Syscall {
    /// Docker's older way to write one name.
    pub(super) name: Option<String>,
    pub(super) names: Option<Vec<String>>,
    pub(super) action: String,
    pub(super) errno_ret: Option<u32>,
    /// Podman's: the same by name.
    pub(super) errno: Option<String>,
    pub(super) args: Option<Vec<Arg>>,
    /// Docker's: when the rule is there.
    pub(super) includes: Option<When>,
    /// Docker's: when it is not.
    pub(super) excludes: Option<When>,
    #[serde(rename = "comment")]
    pub(super) _comment: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Arg {
    pub(super) index: u32,
    pub(super) value: u64,
    pub(super) value_two: Option<u64>,
    pub(super) op: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct When {
    pub(super) caps: Option<Vec<String>>,
    pub(super) arches: Option<Vec<String>>,
    pub(super) min_kernel: Option<String>,
}
