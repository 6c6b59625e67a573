//! TODO lead
