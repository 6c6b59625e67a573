//! What CPUID tells the guest: what KVM can do, without what is the host's business or has no place
//! in a guest (`table`), and with this machine's own topology: one socket, one thread for each core.
//!
//! What stays as the host has it: vendor, family, model, stepping, instruction set extensions,
//! cache sizes, address widths, and KVM's own leaves. Programs choose code by them, and kernels
//! work-arounds. What KVM_GET_SUPPORTED_CPUID says of the processor that it ran on, and of how
//! many there are, is replaced, so that the same host tells each guest the same.

mod table;
#[cfg(test)]
mod tests;

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use super::Error;
use table::{CLEARED, EMPTY, NO_STATE};

/// One CPUID leaf to be set as given, in place of what KVM supports.
#[derive(Debug, Clone, Copy)]
pub struct CpuidLeaf {
    /// EAX going in.
    pub function: u32,
    /// EAX, EBX, ECX, EDX coming out.
    pub registers: [u32; 4],
}

/// Bits of leaf 1 (Intel SDM volume 2A, CPUID). KVM leaves the first two for the VMM to set (Linux
/// Documentation/virt/kvm/api.rst, KVM_GET_SUPPORTED_CPUID, and Documentation/virt/kvm/x86/cpuid.rst).
const LEAF1_ECX_TSC_DEADLINE: u32 = 1 << 24;
const LEAF1_ECX_HYPERVISOR: u32 = 1 << 31;
const LEAF1_EDX_HTT: u32 = 1 << 28;
/// Bit of leaf 0x8000_0001, ECX (AMD APM volume 3, appendix E): there are several cores.
const CMP_LEGACY: u32 = 1 << 1;

/// Both leaves of extended topology (Intel SDM volume 2A, CPUID, leaves 0BH and 1FH).
const TOPOLOGY: [u32; 2] = [0xb, 0x1f];

/// EBX of leaf 0 for "AuthenticAMD" and "HygonGenuine", whose leaf 0x8000_0008 counts cores.
const AMD: [u32; 2] = [u32::from_le_bytes(*b"Auth"), u32::from_le_bytes(*b"Hygo")];

/// The legacy and header parts of every XSAVE area (Intel SDM volume 1, 13.4).
const XSAVE_HEADER_END: u32 = 576;
/// State components that have a subleaf of 0xd: those above x87 and SSE.
const EXTENDED_STATES: std::ops::Range<u32> = 2..63;

/// The processor's name, in leaves 0x8000_0002 to 4: the host's is nobody's business.
const BRAND: &[u8; 48] =
    b"moat virtual processor\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const BRAND_LEAF: u32 = 0x8000_0002;

/// The place of a vCPU in its machine, whose APIC id is its number.
#[derive(Debug, Clone, Copy)]
struct Place {
    id: u32,
    count: u32,
    is_amd: bool,
}

impl Place {
    /// Bits of the APIC id that tell the cores of the socket apart.
    fn core_bits(self) -> u32 {
        self.count.next_power_of_two().trailing_zeros()
    }

    /// All APIC ids that those bits can tell apart, less one: how the cache leaves count.
    fn ids(self) -> u32 {
        (1 << self.core_bits()) - 1
    }
}

/// KVM's leaves, made those of vCPU `id` of `count`.
///
/// # Errors
/// Never with what KVM itself reported; the list's size is checked again when it is built.
pub(super) fn for_vcpu(
    supported: &CpuId,
    id: u8,
    count: u8,
    tsc_deadline: bool,
    replace: &[CpuidLeaf],
) -> Result<CpuId, Error> {
    let mut leaves: Vec<kvm_cpuid_entry2> = supported.as_slice().to_vec();
    let first = leaves.iter().find(|leaf| leaf.function == 0).copied().unwrap_or_default();
    let place =
        Place { id: u32::from(id), count: u32::from(count), is_amd: AMD.contains(&first.ebx) };
    leaves.retain(|leaf| !is_left_out(leaf));
    for leaf in &mut leaves {
        clear(leaf);
        set(leaf, place, tsc_deadline);
    }
    state_size(&mut leaves);
    for leaf in TOPOLOGY.into_iter().filter(|leaf| *leaf <= first.eax) {
        leaves.extend(topology(leaf, place));
    }
    for new in replace {
        let [eax, ebx, ecx, edx] = new.registers;
        leaves.retain(|leaf| leaf.function != new.function);
        let function = new.function;
        leaves.push(kvm_cpuid_entry2 { function, eax, ebx, ecx, edx, ..Default::default() });
    }
    CpuId::from_entries(&leaves).map_err(|_| Error::Cpuid { leaves: leaves.len() })
}

/// Leaves that the guest reads as zeroes, because they are not there. The extended topology's are
/// made anew: KVM gives them empty, or as the host has them.
fn is_left_out(leaf: &kvm_cpuid_entry2) -> bool {
    EMPTY.contains(&leaf.function)
        || TOPOLOGY.contains(&leaf.function)
        || (leaf.function == 0xd && NO_STATE.contains(&leaf.index))
}

fn clear(leaf: &mut kvm_cpuid_entry2) {
    for cut in CLEARED {
        if (leaf.function, leaf.index) == (cut.function, cut.index) {
            *cut.register.of(leaf) &= !cut.bits;
        }
    }
}

/// Gives those bits of a register another value.
fn put(register: &mut u32, bits: u32, value: u32) {
    *register = (*register & !bits) | (value & bits);
}

fn set(leaf: &mut kvm_cpuid_entry2, place: Place, tsc_deadline: bool) {
    let Place { id, count, is_amd } = place;
    let if_many = |bit| if count > 1 { bit } else { 0 };
    match (leaf.function, leaf.index) {
        (0x1, _) => {
            // Initial APIC id 31:24, logical processors 23:16.
            put(&mut leaf.ebx, 0xffff_0000, (id << 24) | (count << 16));
            let deadline = if tsc_deadline { LEAF1_ECX_TSC_DEADLINE } else { 0 };
            put(&mut leaf.ecx, LEAF1_ECX_TSC_DEADLINE, deadline);
            leaf.ecx |= LEAF1_ECX_HYPERVISOR;
            put(&mut leaf.edx, LEAF1_EDX_HTT, if_many(LEAF1_EDX_HTT));
        }
        // Deterministic cache parameters: level 1 and 2 (7:5) per core, the rest shared by all
        // (25:14). On Intel also the ids of cores in the socket (31:26).
        (0x4 | 0x8000_001d, _) if leaf.eax & 0x1f != 0 => {
            let level = (leaf.eax >> 5) & 0x7;
            let sharing = if level < 3 { 0 } else { place.ids() };
            put(&mut leaf.eax, 0x03ff_c000, sharing << 14);
            let cores = if leaf.function == 0x4 { place.ids() } else { 0 };
            put(&mut leaf.eax, 0xfc00_0000, cores << 26);
        }
        (0x8000_0001, _) if is_amd => put(&mut leaf.ecx, CMP_LEGACY, if_many(CMP_LEGACY)),
        (0x8000_0002..=0x8000_0004, _) => name(leaf),
        // Cores less one 7:0, bits of the APIC id for them 15:12.
        (0x8000_0008, _) if is_amd => leaf.ecx = (place.core_bits() << 12) | (count - 1),
        // Extended APIC id; core id and threads less one; one node.
        (0x8000_001e, _) => (leaf.eax, leaf.ebx, leaf.ecx) = (id, id, 0),
        _ => {}
    }
}

/// The part of [`BRAND`] that this leaf has.
fn name(leaf: &mut kvm_cpuid_entry2) {
    let at = usize::try_from(leaf.function - BRAND_LEAF).unwrap_or_default() * 16;
    let mut words = BRAND
        .get(at..)
        .unwrap_or_default()
        .chunks(4)
        .map(|word| u32::from_le_bytes(word.try_into().unwrap_or_default()));
    for register in [&mut leaf.eax, &mut leaf.ebx, &mut leaf.ecx, &mut leaf.edx] {
        *register = words.next().unwrap_or_default();
    }
}

/// The XSAVE area's size with all components enabled, in leaf 0xd, ECX, goes by those that are
/// left. (The size with those enabled now, in EBX, KVM computes whenever the guest sets XCR0.)
fn state_size(leaves: &mut [kvm_cpuid_entry2]) {
    let is_main = |leaf: &&kvm_cpuid_entry2| (leaf.function, leaf.index) == (0xd, 0);
    let Some(main) = leaves.iter().find(is_main).copied() else { return };
    let states = u64::from(main.eax) | (u64::from(main.edx) << 32);
    // Size in EAX, offset in EBX.
    let ends = leaves.iter().filter(|leaf| {
        leaf.function == 0xd
            && EXTENDED_STATES.contains(&leaf.index)
            && states & (1 << leaf.index) != 0
    });
    let end = ends.map(|leaf| leaf.eax.saturating_add(leaf.ebx)).max().unwrap_or_default();
    for leaf in leaves.iter_mut().filter(|leaf| (leaf.function, leaf.index) == (0xd, 0)) {
        leaf.ecx = end.max(XSAVE_HEADER_END).min(main.ecx);
    }
}

/// Extended topology: thread level, core level, end. EDX is the x2APIC id on every level.
fn topology(function: u32, place: Place) -> [kvm_cpuid_entry2; 3] {
    const THREAD: u32 = 1 << 8;
    const CORE: u32 = 2 << 8;
    let levels = [(0, 0, 1, THREAD), (1, place.core_bits(), place.count, CORE), (2, 0, 0, 0)];
    levels.map(|(index, eax, ebx, kind)| kvm_cpuid_entry2 {
        function,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax,
        ebx,
        ecx: kind | index,
        edx: place.id,
        ..Default::default()
    })
}
