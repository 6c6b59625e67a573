//! The two walls.

use anyhow::Result;
use moat_tests::host;
use moat_tests::workspace::Workspace;

/// A wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wall {
    /// Linux namespaces.
    Container,
    /// A micro-VM.
    Vm,
}

impl Wall {
    /// Weakest first.
    pub(crate) const ALL: [Self; 2] = [Self::Container, Self::Vm];

    /// As `--isolation` has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Vm => "vm",
        }
    }

    /// What this machine lacks for it.
    pub(crate) fn lacks(self) -> Option<String> {
        host::lacks(self.name())
    }

    /// A directory with a spec and a small root, whose runs are behind this wall.
    pub(crate) fn workspace(self) -> Result<Workspace> {
        Workspace::new(Some(self.name()))
    }
}
