//! cargo xtask setup | test | bed | bench
fn main() {}
