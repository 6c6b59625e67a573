//! What CPUID tells the guest: what KVM can do, with this machine's own topology.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

use super::Error;

/// One CPUID leaf to be set as given, in place of what KVM supports.
#[derive(Debug, Clone, Copy)]
pub struct CpuidLeaf {
    /// EAX going in.
    pub function: u32,
    /// EAX, EBX, ECX, EDX coming out.
    pub registers: [u32; 4],
}

/// Bits of leaf 1 (Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E).
const LEAF1_ECX_TSC_DEADLINE: u32 = 1 << 24;
const LEAF1_ECX_HYPERVISOR: u32 = 1 << 31;
const LEAF1_EDX_HTT: u32 = 1 << 28;

/// KVM's leaves for vCPU `id` of `count`: one socket, one thread for each core.
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
    for leaf in &mut leaves {
        patch(leaf, id, count, tsc_deadline);
    }
    for new in replace {
        let [eax, ebx, ecx, edx] = new.registers;
        leaves.retain(|leaf| leaf.function != new.function);
        leaves.push(kvm_cpuid_entry2 {
            function: new.function,
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        });
    }
    CpuId::from_entries(&leaves).map_err(|_| Error::Cpuid { leaves: leaves.len() })
}

fn patch(leaf: &mut kvm_cpuid_entry2, id: u8, count: u8, tsc_deadline: bool) {
    let (id, count) = (u32::from(id), u32::from(count));
    // Bits of the APIC id that tell the cores of the socket apart.
    let core_bits = count.next_power_of_two().trailing_zeros();
    match (leaf.function, leaf.index) {
        (0x1, _) => {
            leaf.ebx = (leaf.ebx & 0x0000_ffff) | (id << 24) | (count << 16);
            leaf.ecx |= LEAF1_ECX_HYPERVISOR;
            leaf.ecx &= !LEAF1_ECX_TSC_DEADLINE;
            if tsc_deadline {
                leaf.ecx |= LEAF1_ECX_TSC_DEADLINE;
            }
            leaf.edx &= !LEAF1_EDX_HTT;
            if count > 1 {
                leaf.edx |= LEAF1_EDX_HTT;
            }
        }
        // Deterministic cache parameters: level 1 and 2 per core, the rest shared by all.
        (0x4 | 0x8000_001d, _) if leaf.eax & 0x1f != 0 => {
            let level = (leaf.eax >> 5) & 0x7;
            let sharing = if level < 3 { 0 } else { (1 << core_bits) - 1 };
            leaf.eax = (leaf.eax & 0x0000_3fff) | (sharing << 14);
            if leaf.function == 0x4 {
                leaf.eax |= ((1 << core_bits) - 1) << 26;
            }
        }
        // No performance counters: nothing that the host counts is shown to the guest.
        (0xa | 0x8000_0022, _) => (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (0, 0, 0, 0),
        // Extended topology: thread level, core level, end. EDX is the x2APIC id on every level.
        (0xb | 0x1f, 0) => (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (0, 1, 1 << 8, id),
        (0xb | 0x1f, 1) => {
            (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (core_bits, count, (2 << 8) | 1, id);
        }
        (0xb | 0x1f, index) => (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (0, 0, index & 0xff, id),
        // AMD: number of cores less one, and the size of the core id.
        (0x8000_0008, _) => leaf.ecx = (core_bits << 12) | (count - 1),
        (0x8000_001e, _) => (leaf.eax, leaf.ebx, leaf.ecx) = (id, id, 0),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, index, eax: 0x21, ..Default::default() }
    }

    #[test]
    fn every_vcpu_gets_its_own_apic_id_in_every_leaf_that_has_one() {
        let supported =
            CpuId::from_entries(&[leaf(1, 0), leaf(0xb, 0), leaf(0xb, 1), leaf(0x8000_001e, 0)])
                .unwrap();
        let cpuid = for_vcpu(&supported, 3, 6, true, &[]).unwrap();
        let leaves = cpuid.as_slice();
        assert_eq!(leaves[0].ebx >> 24, 3);
        assert_eq!((leaves[0].ebx >> 16) & 0xff, 6);
        assert_eq!(leaves[0].ecx, LEAF1_ECX_HYPERVISOR | LEAF1_ECX_TSC_DEADLINE);
        assert_eq!(leaves[1].edx, 3);
        // 6 cores need 3 bits.
        assert_eq!((leaves[2].eax, leaves[2].ebx, leaves[2].edx), (3, 6, 3));
        assert_eq!(leaves[3].eax, 3);
    }

    #[test]
    fn a_replaced_leaf_stands_as_given() {
        let supported = CpuId::from_entries(&[leaf(1, 0), leaf(0x4000_0000, 0)]).unwrap();
        let given = CpuidLeaf { function: 0x4000_0000, registers: [1, 2, 3, 4] };
        let cpuid = for_vcpu(&supported, 0, 1, false, &[given]).unwrap();
        let found: Vec<_> = cpuid.as_slice().iter().filter(|l| l.function == 0x4000_0000).collect();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].eax, found[0].edx), (1, 4));
    }
}
