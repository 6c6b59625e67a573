use proptest::prelude::*;

use super::table::Register::{self, Eax, Ebx, Ecx, Edx};
use super::*;

/// All bits of moat's own, and why: the documented list. Everything else in a guest's leaf is as
/// KVM reports it, or 0.
const OWN: [(u32, Register, u32); 15] = [
    // Initial APIC id, and how many there are.
    (0x1, Ebx, 0xffff_0000),
    (0x1, Ecx, LEAF1_ECX_HYPERVISOR | LEAF1_ECX_TSC_DEADLINE),
    (0x1, Edx, LEAF1_EDX_HTT),
    // Who shares a cache, and on Intel how many cores there are.
    (0x4, Eax, 0xffff_c000),
    (0x8000_001d, Eax, 0xffff_c000),
    // A size that goes by the components that are left.
    (0xd, Ecx, u32::MAX),
    (0x8000_0001, Ecx, CMP_LEGACY),
    (0x8000_0002, Eax, u32::MAX),
    (0x8000_0002, Ebx, u32::MAX),
    (0x8000_0002, Ecx, u32::MAX),
    (0x8000_0002, Edx, u32::MAX),
    // Cores, and APIC ids.
    (0x8000_0008, Ecx, u32::MAX),
    (0x8000_001e, Eax, u32::MAX),
    (0x8000_001e, Ebx, u32::MAX),
    (0x8000_001e, Ecx, u32::MAX),
];

const REGISTERS: [Register; 4] = [Eax, Ebx, Ecx, Edx];

fn is_own(leaf: &kvm_cpuid_entry2, register: Register) -> u32 {
    let function = match leaf.function {
        0xb | 0x1f => return u32::MAX,
        0x8000_0003 | 0x8000_0004 => 0x8000_0002,
        function => function,
    };
    let own = OWN.iter().filter(|own| (own.0, own.1) == (function, register));
    own.fold(0, |bits, own| bits | own.2)
}

fn all_ones(function: u32, index: u32) -> kvm_cpuid_entry2 {
    let [eax, ebx, ecx, edx] = [u32::MAX; 4];
    kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..Default::default() }
}

fn leaf(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
    let [eax, ebx, ecx, edx] = registers;
    kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..Default::default() }
}

/// What vCPU `id` of `count` is told when KVM supports this.
fn told(supported: &[kvm_cpuid_entry2], id: u8, count: u8) -> Vec<kvm_cpuid_entry2> {
    let supported = CpuId::from_entries(supported).unwrap();
    for_vcpu(&supported, id, count, true, &[]).unwrap().as_slice().to_vec()
}

fn find(leaves: &[kvm_cpuid_entry2], function: u32, index: u32) -> Option<kvm_cpuid_entry2> {
    leaves.iter().copied().find(|leaf| (leaf.function, leaf.index) == (function, index))
}

/// KVM of Linux 6.1 in `cargo xtask bed`, on QEMU's processor: every leaf that is not empty.
fn bed() -> Vec<kvm_cpuid_entry2> {
    [
        (0x0, 0, [0xd, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        (0x1, 0, [0x0006_0fb1, 0x0000_0800, 0x76f8_3203, 0x0f8b_fbfd]),
        (0x6, 0, [0x4, 0, 0, 0]),
        (0x7, 0, [0, 0x0198_03ab, 0x0001_020c, 0x2000_0000]),
        (0xb, 0, [0; 4]),
        (0xd, 0, [0x207, 0xa88, 0xa88, 0]),
        (0xd, 1, [0x5, 0, 0, 0]),
        (0xd, 2, [0x100, 0x240, 0, 0]),
        (0xd, 9, [0x8, 0xa80, 0, 0]),
        (0x8000_0000, 0, [0x8000_000a, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        (0x8000_0001, 0, [0x0006_0fb1, 0, 0x75, 0xedd3_fbfd]),
        (0x8000_0002, 0, [0; 4]),
        (0x8000_0006, 0, [0, 0x4200_4200, 0x0200_8140, 0x0080_8140]),
        (0x8000_0008, 0, [0x3928, 0x0400_0000, 0, 0]),
        (0x8000_000a, 0, [0x1, 0x8, 0, 0x1001_0021]),
        (0x4000_0000, 0, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
        (0x4000_0001, 0, [0x0100_7efb, 0, 0, 0]),
    ]
    .map(|(function, index, registers)| leaf(function, index, registers))
    .to_vec()
}

#[test]
fn of_a_real_table_everything_stays_but_what_is_named() {
    let leaves = told(&bed(), 0, 1);
    let of = |function, index| {
        let leaf = find(&leaves, function, index).unwrap();
        [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]
    };
    // All instruction sets, and the state that they need: XSAVE 26, AVX 28.
    assert_eq!(of(1, 0), [0x0006_0fb1, 0x0001_0800, 0xf7f8_3203, 0x0f8b_fbfd]);
    let same = |leaf: &&kvm_cpuid_entry2| {
        matches!(leaf.function, 0x0 | 0x6 | 0x7 | 0xd | 0x4000_0000 | 0x4000_0001 | 0x8000_0006)
    };
    for leaf in bed().iter().filter(same) {
        let registers = [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx];
        assert_eq!(of(leaf.function, leaf.index), registers, "{:#x}", leaf.function);
    }
    // SVM is gone.
    assert_eq!(of(0x8000_0001, 0)[2], 0x71);
    assert!(find(&leaves, 0x8000_000a, 0).is_none());
}

#[test]
fn every_vcpu_gets_its_own_apic_id_in_every_leaf_that_has_one() {
    for count in 1..=32 {
        for id in 0..count {
            let mut supported = bed();
            supported[0].eax = 0x20;
            supported.push(all_ones(0x8000_001e, 0));
            supported.push(all_ones(0x1f, 0));
            let leaves = told(&supported, id, count);
            let of = |function, index| find(&leaves, function, index).unwrap();
            let (id, count) = (u32::from(id), u32::from(count));
            assert_eq!(of(1, 0).ebx >> 16, (id << 8) | count);
            assert_eq!(of(1, 0).edx & LEAF1_EDX_HTT != 0, count > 1);
            assert_eq!(of(0x8000_0001, 0).ecx & CMP_LEGACY != 0, count > 1);
            assert_eq!([of(0x8000_001e, 0).eax, of(0x8000_001e, 0).ebx], [id, id]);
            let bits = (0..).find(|bits| 1 << bits >= count).unwrap();
            assert_eq!(of(0x8000_0008, 0).ecx, (bits << 12) | (count - 1));
            for function in [0xb, 0x1f] {
                let levels = [0, 1, 2].map(|index| of(function, index));
                assert!(levels.iter().all(|level| (level.edx, level.flags) == (id, 1)));
                let said = levels.map(|level| (level.eax, level.ebx, level.ecx));
                assert_eq!(said, [(0, 1, 0x100), (bits, count, 0x201), (0, 0, 2)]);
            }
        }
    }
}

#[test]
fn a_processor_of_old_has_no_extended_topology() {
    let supported = [leaf(0, 0, [0x5, 0, 0, 0]), leaf(1, 0, [0; 4])];
    assert!(find(&told(&supported, 0, 2), 0xb, 0).is_none());
}

#[test]
fn caches_of_the_first_levels_are_a_cores_own() {
    // Level 1 data, level 2, level 3, each of a processor of 16 threads; and the end.
    let entry = |level: u32| 0x3c00_4001 | (level << 5);
    let supported: Vec<_> = [entry(1), entry(2), entry(3), 0]
        .into_iter()
        .zip(0..)
        .map(|(eax, index)| leaf(4, index, [eax, 7, 7, 7]))
        .collect();
    let leaves = told(&supported, 1, 6);
    let eax = [0, 1, 2, 3].map(|index| find(&leaves, 4, index).unwrap().eax);
    // Eight ids for six cores.
    assert_eq!(eax, [0x1c00_0021, 0x1c00_0041, 0x1c01_c061, 0]);
}

#[test]
fn what_is_not_for_guests_is_gone_and_the_rest_stays() {
    let functions =
        [(0, 0), (1, 0), (6, 0), (7, 0), (7, 1), (0xa, 0), (0xd, 0), (0xd, 1), (0xd, 2)];
    let further = [(0xd, 3), (0xd, 17), (0x14, 0), (0x8000_0001, 0), (0x8000_0007, 0)];
    let last = [(0x8000_000a, 0), (0x8000_001f, 0)];
    let supported: Vec<_> = functions
        .into_iter()
        .chain(further)
        .chain(last)
        .map(|(function, index)| all_ones(function, index))
        .collect();
    let leaves = told(&supported, 0, 1);
    for (function, index) in [(0xa, 0), (0xd, 3), (0xd, 17), (0x14, 0), (0x8000_001f, 0)] {
        assert!(find(&leaves, function, index).is_none(), "{function:#x}");
    }
    let has = |function, index, register: Register, bit: u32| {
        *register.of(&mut find(&leaves, function, index).unwrap()) & (1 << bit) != 0
    };
    for (function, register, bit, flag) in [
        (1, Ecx, 5, "vmx"),
        (1, Ecx, 15, "pdcm"),
        (1, Edx, 21, "ds"),
        (7, Ebx, 2, "sgx"),
        (7, Ebx, 4, "hle"),
        (7, Ebx, 11, "rtm"),
        (7, Ebx, 14, "mpx"),
        (7, Ebx, 25, "intel_pt"),
        (7, Ecx, 5, "waitpkg"),
        (7, Edx, 24, "amx_tile"),
        (0xd, Eax, 3, "bndregs"),
        (0xd, Eax, 17, "the tile configuration"),
        (0x8000_0001, Ecx, 2, "svm"),
        (0x8000_0001, Ecx, 10, "ibs"),
        (0x8000_0001, Ecx, 23, "perfctr_core"),
    ] {
        assert!(!has(function, 0, register, bit), "{flag}");
    }
    for (function, register, bit, flag) in [
        (1, Ecx, 0, "sse3"),
        (1, Ecx, 21, "x2apic"),
        (1, Ecx, 25, "aes"),
        (1, Ecx, 26, "xsave"),
        (1, Ecx, 28, "avx"),
        (1, Ecx, 31, "hypervisor"),
        (7, Ebx, 5, "avx2"),
        (7, Ebx, 16, "avx512f"),
        (7, Ecx, 3, "pku"),
        (7, Edx, 26, "spec_ctrl"),
        (7, Edx, 29, "arch_capabilities"),
        (6, Eax, 2, "arat"),
        (0xd, Eax, 2, "state of avx"),
        (0xd, Eax, 9, "state of pku"),
        (0x8000_0001, Ecx, 22, "topoext"),
        (0x8000_0007, Edx, 8, "constant_tsc"),
    ] {
        assert!(has(function, 0, register, bit), "{flag}");
    }
    assert!(has(0xd, 1, Eax, 3) && !has(0xd, 1, Eax, 4), "xsaves stays, and xfd does not");
}

#[test]
fn the_xsave_area_ends_with_what_is_left_in_it() {
    let supported = [
        leaf(0xd, 0, [0x6_021f, 0x240, 11008, 0]),
        leaf(0xd, 2, [256, 576, 0, 0]),
        leaf(0xd, 3, [64, 960, 0, 0]),
        leaf(0xd, 4, [64, 1024, 0, 0]),
        leaf(0xd, 9, [8, 2688, 0, 0]),
        leaf(0xd, 17, [64, 2752, 0, 0]),
        leaf(0xd, 18, [8192, 2816, 0, 0]),
    ];
    let leaves = told(&supported, 0, 1);
    let main = find(&leaves, 0xd, 0).unwrap();
    assert_eq!((main.eax, main.ebx, main.ecx), (0x207, 0x240, 2696));
    // x87 and SSE alone.
    let main = find(&told(&[leaf(0xd, 0, [3, 576, 576, 0])], 0, 1), 0xd, 0).unwrap();
    assert_eq!(main.ecx, 576);
}

#[test]
fn the_processor_has_a_name_of_moats() {
    let leaves = told(&[2, 3, 4].map(|leaf| all_ones(0x8000_0000 + leaf, 0)), 0, 1);
    let name: Vec<u8> = leaves
        .iter()
        .flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx])
        .flat_map(u32::to_le_bytes)
        .collect();
    assert_eq!(name, BRAND);
}

#[test]
fn a_replaced_leaf_stands_as_given() {
    let supported = CpuId::from_entries(&bed()).unwrap();
    let given = CpuidLeaf { function: 0x4000_0000, registers: [1, 2, 3, 4] };
    let cpuid = for_vcpu(&supported, 0, 1, false, &[given]).unwrap();
    let found: Vec<_> = cpuid.as_slice().iter().filter(|l| l.function == 0x4000_0000).collect();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].eax, found[0].edx), (1, 4));
}

/// Any leaf that moat knows something of, and others.
fn any_leaf() -> impl Strategy<Value = kvm_cpuid_entry2> {
    let known = table::EMPTY.into_iter().chain(table::CLEARED.iter().map(|cut| cut.function));
    let known: Vec<u32> = known.chain(OWN.iter().map(|own| own.0)).chain(TOPOLOGY).collect();
    let function = prop_oneof![
        8 => prop::sample::select(known),
        1 => 0..0x30u32,
        1 => 0x8000_0000..0x8000_0030u32,
        1 => any::<u32>(),
    ];
    let index = prop_oneof![4 => 0..4u32, 1 => 0..70u32, 1 => any::<u32>()];
    (function, index, any::<[u32; 4]>())
        .prop_map(|(function, index, registers)| leaf(function, index, registers))
}

/// A table as KVM reports one: each leaf once, and leaf 0 first.
fn any_table() -> impl Strategy<Value = Vec<kvm_cpuid_entry2>> {
    let vendor = prop_oneof![Just(AMD[0]), Just(0x756e_6547), any::<u32>()];
    let rest = prop::collection::vec(any_leaf(), 0..60);
    (0..0x30u32, vendor, rest).prop_map(|(last, vendor, mut rest)| {
        rest.insert(0, leaf(0, 0, [last, vendor, 0, 0]));
        let mut seen = std::collections::HashSet::new();
        rest.retain(|leaf| seen.insert((leaf.function, leaf.index)));
        rest
    })
}

proptest! {
    /// Bits are taken away, or are of the documented list.
    #[test]
    fn nothing_is_added(table in any_table(), count in 1..=32u8, id in 0..32u8) {
        for mut guest in told(&table, id % count, count) {
            let kvm = find(&table, guest.function, guest.index);
            for register in REGISTERS {
                let reported = kvm.map_or(0, |mut leaf| *register.of(&mut leaf));
                let own = is_own(&guest, register);
                let new = *register.of(&mut guest) & !reported & !own;
                prop_assert_eq!(new, 0, "{:#x} {:?}", guest.function, register);
            }
        }
    }

    /// Nor does anything stay that was to go.
    #[test]
    fn what_is_cut_is_cut(table in any_table()) {
        for mut guest in told(&table, 0, 1) {
            prop_assert!(!EMPTY.contains(&guest.function));
            for cut in CLEARED {
                let is_its = (cut.function, cut.index) == (guest.function, guest.index);
                prop_assert!(!is_its || *cut.register.of(&mut guest) & cut.bits == 0);
            }
        }
    }

    /// Whichever of the host's processors KVM was asked on: its own bits there mean nothing.
    #[test]
    fn it_is_the_same_on_every_processor_of_the_host(table in any_table(), noise in any::<u32>()) {
        let elsewhere: Vec<_> = table
            .iter()
            .copied()
            .map(|mut leaf| {
                match leaf.function {
                    0x1 => put(&mut leaf.ebx, 0xff00_0000, noise),
                    0xb | 0x1f => leaf.edx = noise,
                    0x8000_001e => leaf.eax = noise,
                    _ => {}
                }
                leaf
            })
            .collect();
        prop_assert_eq!(told(&table, 1, 2), told(&elsewhere, 1, 2));
    }
}
