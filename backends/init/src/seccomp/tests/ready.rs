use moat_core::spec::{Capability, DEFAULT_CAPABILITIES};
use seccompiler::sock_filter;

use super::super::own;
use super::super::ready::ready;
use super::super::tree::assemble;

fn packed(step: &sock_filter) -> u64 {
    let [code_high, code_low] = step.code.to_be_bytes();
    let [k0, k1, k2, k3] = step.k.to_be_bytes();
    u64::from_be_bytes([code_high, code_low, step.jt, step.jf, k0, k1, k2, k3])
}

#[test]
fn what_is_ready_is_what_the_table_says() {
    let made: Vec<u64> =
        assemble(&own(DEFAULT_CAPABILITIES)).expect("assemble").iter().map(packed).collect();
    let ready: Vec<u64> = ready(DEFAULT_CAPABILITIES).expect("ready").iter().map(packed).collect();
    if made != ready {
        let words: Vec<String> = made.iter().map(|step| format!("{step:#018x},")).collect();
        let lines: Vec<String> =
            words.chunks(4).map(|words| format!("    {}\n", words.join(" "))).collect();
        let text = format!("const STEPS: [u64; {}] = [\n{}];\n", made.len(), lines.concat());
        let file = std::env::temp_dir().join("moat-ready-filter.txt");
        std::fs::write(&file, text).expect("write");
        panic!("the table has changed: put {} into ready.rs", file.display());
    }
}

#[test]
fn capabilities_that_no_call_needs_change_nothing() {
    let with = |one: Capability| ready(&[DEFAULT_CAPABILITIES, &[one]].concat());
    assert!(with(Capability::NET_RAW).is_some());
    assert!(with(Capability::SYS_ADMIN).is_none());
    assert!(with(Capability::AUDIT_WRITE).is_none());
    assert!(ready(&[Capability::SYS_CHROOT]).is_some());
    assert!(ready(&[]).is_none(), "no chroot");
}
