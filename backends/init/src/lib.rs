//! What turns a fresh process into the workload, in a container and in a guest alike.
