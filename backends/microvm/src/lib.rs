//! The micro-VM wall: moat's own VMM on KVM.
