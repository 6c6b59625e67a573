//! What a later moat needs to remove what this one left, and what was in force:
//! `container.json` in the instance's directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use moat_core::cgroup::Hierarchy;
use moat_core::diagnose::{Code, Fault};
use moat_host::process::ProcessId;
use serde::{Deserialize, Serialize};

use crate::mapping::Mapping;

const FILE: &str = "container.json";

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The container's first process, once there is one.
    pub(crate) process: Option<ProcessId>,
    /// Where its cgroup is made, if it has one; the group has the name of the instance's directory.
    pub(crate) cgroup: Option<Hierarchy>,
    /// How its ids are mapped.
    pub(crate) mapping: Mapping,
}

/// Why a record can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// It could not be read or written.
    #[error("{} can't be {action}", path.display())]
    File {
        /// `read`, `written`.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no record.
    #[error("{} is not a container's record", path.display())]
    Broken {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl From<RecordError> for Fault {
    fn from(error: RecordError) -> Self {
        let hint = match &error {
            RecordError::File { path, .. } => {
                format!("see that there is room and right to write to {}", path.display())
            }
            RecordError::Broken { path, .. } => {
                format!("see what of it still runs, then remove {}", path.display())
            }
        };
        Self::new(Code::State, error.to_string()).hint(hint).because(error.into_source())
    }
}

impl RecordError {
    fn into_source(self) -> Box<dyn std::error::Error + Send + Sync> {
        match self {
            Self::File { source, .. } => source.into(),
            Self::Broken { source, .. } => source.into(),
        }
    }
}

impl Record {
    /// Writes it, so that there is always a whole one.
    ///
    /// # Errors
    /// When the directory can't be written.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), RecordError> {
        let path = dir.join(FILE);
        let new = dir.join("container.json.new");
        let failed = |source| RecordError::File { action: "written", path: path.clone(), source };
        let text = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).map_err(failed)
    }

    /// Reads it, if there is one.
    ///
    /// # Errors
    /// When what is there can't be read.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, RecordError> {
        let path = dir.join(FILE);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RecordError::File { action: "read", path, source }),
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(record) => Ok(Some(record)),
                Err(source) => Err(RecordError::Broken { path, source }),
            },
        }
    }

    /// The name of an instance's group.
    pub(crate) fn group_name(dir: &Path) -> String {
        dir.file_name()
            .map_or_else(|| "unnamed".to_owned(), |name| name.to_string_lossy().into_owned())
    }
}
