//! PID 1 in the micro-VM: root, then moat-init for each process.
