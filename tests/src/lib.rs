//! End to end: one case file per behaviour, run on every backend.
