//! What is taken away from what KVM reports, bit by bit.
//!
//! Bits are named as the manuals name them: Intel SDM volume 2A, CPUID, and for leaves from
//! 0x8000_0000 AMD APM volume 3, appendix E. KVM itself reports only what it can virtualise (Linux
//! Documentation/virt/kvm/api.rst, KVM_GET_SUPPORTED_CPUID); some of the bits here it never reports
//! today, and they are here so that a newer KVM does not hand them to guests unseen.

use kvm_bindings::kvm_cpuid_entry2;

/// One of the registers that CPUID answers in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

use Register::{Eax, Ebx, Ecx, Edx};

impl Register {
    pub(super) fn of(self, leaf: &mut kvm_cpuid_entry2) -> &mut u32 {
        match self {
            Eax => &mut leaf.eax,
            Ebx => &mut leaf.ebx,
            Ecx => &mut leaf.ecx,
            Edx => &mut leaf.edx,
        }
    }
}

/// Bits that no guest sees.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cleared {
    pub(super) function: u32,
    pub(super) index: u32,
    pub(super) register: Register,
    pub(super) bits: u32,
}

const fn cleared(function: u32, index: u32, register: Register, numbers: &[u32]) -> Cleared {
    Cleared { function, index, register, bits: bits(numbers) }
}

const fn all_but(function: u32, register: Register, numbers: &[u32]) -> Cleared {
    Cleared { function, index: 0, register, bits: !bits(numbers) }
}

const fn bits(mut numbers: &[u32]) -> u32 {
    let mut bits = 0;
    while let [first, rest @ ..] = numbers {
        bits |= 1 << *first;
        numbers = rest;
    }
    bits
}

/// Leaves that the guest reads as zeroes:
/// - 0x3 serial number; 0x5 MONITOR; 0xa, 0x23 performance counters; 0xf, 0x10 monitoring and
///   allocation of caches; 0x12 SGX; 0x14 processor trace; 0x19 key locker; 0x1a hybrid cores; 0x1b
///   PCONFIG; 0x1c last branch records; 0x1d, 0x1e AMX;
/// - 0x8000_000a SVM; 0x8000_001b instruction based sampling; 0x8000_001c lightweight profiling;
///   0x8000_001f, 0x8000_0023, 0x8000_0025 encrypted memory, which would make Linux look for the
///   registers of an encrypted guest; 0x8000_0020 caches again; 0x8000_0022 performance counters;
///   0x8000_0026 the topology once more, which 0xb tells.
pub(super) const EMPTY: [u32; 23] = [
    0x3,
    0x5,
    0xa,
    0xf,
    0x10,
    0x12,
    0x14,
    0x19,
    0x1a,
    0x1b,
    0x1c,
    0x1d,
    0x1e,
    0x23,
    0x8000_000a,
    0x8000_001b,
    0x8000_001c,
    0x8000_001f,
    0x8000_0020,
    0x8000_0022,
    0x8000_0023,
    0x8000_0025,
    0x8000_0026,
];

pub(super) const CLEARED: [Cleared; 20] = [
    // DTES64 2, MONITOR 3, DS-CPL 4, VMX 5, SMX 6, EIST 7, TM2 8, CNXT-ID 10, SDBG 11, xTPR 14,
    // PDCM 15, DCA 18: the host's debug, power and bus hardware. Virtual machines in the guest
    // would be a large part of KVM for a hostile one to play with.
    cleared(0x1, 0, Ecx, &[2, 3, 4, 5, 6, 7, 8, 10, 11, 14, 15, 18]),
    // PSN 18, DS 21, ACPI 22 (thermal), TM 29, PBE 31.
    cleared(0x1, 0, Edx, &[18, 21, 22, 29, 31]),
    // Of heat and power only ARAT 2 stays: the local APIC's timer never stops.
    all_but(0x6, Eax, &[2]),
    all_but(0x6, Ebx, &[]),
    all_but(0x6, Ecx, &[]),
    all_but(0x6, Edx, &[]),
    // SGX 2; HLE 4 and RTM 11, transactions, which microcode takes away from under running guests;
    // RDT-M 12, MPX 14, RDT-A 15, processor trace 25.
    cleared(0x7, 0, Ebx, &[2, 4, 11, 12, 14, 15, 25]),
    // WAITPKG 5: a guest could wait on the processor without leaving it. TME 13; MAWAU 17 to 21, of
    // MPX; KL 23, BUS_LOCK_DETECT 24, ENQCMD 29, SGX_LC 30.
    cleared(0x7, 0, Ecx, &[5, 13, 17, 18, 19, 20, 21, 23, 24, 29, 30]),
    // UINTR 5, RTM_ALWAYS_ABORT 11, TSX_FORCE_ABORT 13, HYBRID 15, PCONFIG 18, ARCH_LBR 19; AMX-BF16
    // 22, AMX-TILE 24, AMX-INT8 25, whose state is 8 KiB for each thread.
    cleared(0x7, 0, Edx, &[5, 11, 13, 15, 18, 19, 22, 24, 25]),
    // ArchPerfmonExt 8, AMX-FP16 21; AMX-COMPLEX 8.
    cleared(0x7, 1, Eax, &[8, 21]),
    cleared(0x7, 1, Edx, &[8]),
    // XCR0's share of NO_STATE.
    cleared(0xd, 0, Eax, &[3, 4, 8, 10, 13, 14, 15, 16, 17, 18]),
    // LWP, bit 62 of XCR0.
    cleared(0xd, 0, Edx, &[30]),
    // XFD 4, which is for AMX alone.
    cleared(0xd, 1, Eax, &[4]),
    // IA32_XSS's share of NO_STATE.
    cleared(0xd, 1, Ecx, &[3, 4, 8, 10, 13, 14, 15, 16, 17, 18]),
    // SVM 2, ExtApicSpace 3, IBS 10, SKINIT 12, WDT 13, LWP 15, NODEID_MSR 19, performance counters
    // 23, 24, 27, 28, MONITORX 29.
    cleared(0x8000_0001, 0, Ecx, &[2, 3, 10, 12, 13, 15, 19, 23, 24, 27, 28, 29]),
    // Power and errors of the host: all but TscInvariant 8.
    all_but(0x8000_0007, Eax, &[]),
    all_but(0x8000_0007, Ebx, &[]),
    all_but(0x8000_0007, Ecx, &[]),
    all_but(0x8000_0007, Edx, &[8]),
];

/// State components that go with [`CLEARED`], and so have no subleaf of 0xd (Intel SDM volume 1,
/// 13.1): MPX 3 and 4, processor trace 8, PASID 10, HDC 13, UINTR 14, LBR 15, HWP 16, AMX 17 and 18,
/// and AMD's LWP 62.
pub(super) const NO_STATE: [u32; 11] = [3, 4, 8, 10, 13, 14, 15, 16, 17, 18, 62];
