//! The container wall: Linux namespaces.
