//! What both backends use of this machine: state, probes, cgroups, terminal.
