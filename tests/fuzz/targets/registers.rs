#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| moat_microvm::fuzzing::registers(data));
