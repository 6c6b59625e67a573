# A package made, built, run and tested, without a registry.
set -e
export CARGO_TARGET_DIR=/tmp/target
cd /tmp
cargo init -q --vcs none package
cd package
cat > src/main.rs <<'R'
fn main() {
    let threads = (0..10_u64).map(|x| std::thread::spawn(move || x * x));
    let squares: Vec<u64> = threads.map(|thread| thread.join().unwrap()).collect();
    println!("{squares:?}");
}

#[test]
fn sums() {
    assert_eq!(1 + 1, 2);
}
R
cargo run -q --offline | grep -q 81
cargo test -q --offline
