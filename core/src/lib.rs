//! moat's pure heart: spec, policy, lifecycle, the backend traits, the guest wire. No I/O.
