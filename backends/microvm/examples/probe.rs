//! Says what this host's KVM can do: the probe without the rest of moat.
#![allow(clippy::print_stdout)]

fn main() {
    let started = std::time::Instant::now();
    println!("{:#?}", moat_microvm::probe::probe());
    println!("{} ms", started.elapsed().as_millis());
}
