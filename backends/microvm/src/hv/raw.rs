//! The four places where moat hands raw pointers or descriptors to KVM.
//!
//! Safety argument for the whole file: every descriptor that goes in is owned by the caller and
//! given up; guest memory is registered with KVM only from a `GuestMemoryMmap` whose clone lives
//! in each `Vm` and `Vcpu`, so the mapping outlives every ioctl that can run guest code; and the
//! second view of a vCPU's run page is touched in one byte only, by an atomic store.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};
use std::{io, mem, ptr};

use kvm_bindings::{kvm_run, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use vm_memory::{Address, GuestMemoryRegion, GuestRegionMmap, MemoryRegionAddress};

use super::Error;

/// Takes over an open `/dev/kvm`.
pub(super) fn adopt(kvm: OwnedFd) -> Kvm {
    // SAFETY: `into_raw_fd` gives up ownership of an open descriptor, `Kvm` becomes its only owner.
    unsafe { Kvm::from_raw_fd(kvm.into_raw_fd()) }
}

/// Makes `region` the guest's physical memory in `slot`.
pub(super) fn map_region(vm: &VmFd, slot: u32, region: &GuestRegionMmap) -> Result<(), Error> {
    let host = region
        .get_host_address(MemoryRegionAddress(0))
        .map_err(|_| Error::Memory { slot, address: region.start_addr().raw_value() })?;
    let slot_of = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: region.start_addr().raw_value(),
        memory_size: region.len(),
        userspace_addr: host as u64,
    };
    // SAFETY: the range is one live mapping of exactly this size, and `Vm` and every `Vcpu` keep
    // it alive (head comment).
    unsafe { vm.set_user_memory_region(slot_of) }
        .map_err(|source| Error::ioctl("KVM_SET_USER_MEMORY_REGION", source))
}

/// Another thread's view of a vCPU's `kvm_run` page, for `immediate_exit` alone.
#[derive(Debug)]
pub(super) struct RunPage(NonNull<AtomicU8>);

// SAFETY: the only access is an atomic store to one byte of a mapping that this value owns.
unsafe impl Send for RunPage {}
// SAFETY: as above: atomic access only.
unsafe impl Sync for RunPage {}

const RUN_PAGE: usize = 4096;

impl RunPage {
    pub(super) fn map(vcpu: &VcpuFd) -> io::Result<Self> {
        // SAFETY: a fresh shared mapping at an address the kernel chooses; the vCPU descriptor's
        // offset 0 is its kvm_run, at least one page (Linux Documentation/virt/kvm/api.rst, 4.5).
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                RUN_PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                vcpu.as_raw_fd(),
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(page.cast::<AtomicU8>()).map(Self).ok_or_else(io::Error::last_os_error)
    }

    /// Makes the current or next KVM_RUN return at once with EINTR.
    pub(super) fn request_exit(&self) {
        // SAFETY: the byte lies in the mapped page, and AtomicU8 has u8's layout.
        let byte = unsafe { self.0.add(mem::offset_of!(kvm_run, immediate_exit)).as_ref() };
        byte.store(1, Ordering::SeqCst);
    }
}

impl Drop for RunPage {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `map` mapped; nothing else holds a pointer into it.
        unsafe { libc::munmap(self.0.as_ptr().cast(), RUN_PAGE) };
    }
}
