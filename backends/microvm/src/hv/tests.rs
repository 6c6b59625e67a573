//! Hand-written guests on this machine's own KVM. They need no more of it than port I/O, MMIO,
//! halt and a signal, which even a KVM that can't run Linux does right.

use std::fs::File;
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::{Killable, SIGRTMIN};

use super::*;
use crate::boot::{layout, longmode};
use crate::{machine, memory};

const CODE: u64 = 0x1_0000;

/// KVM, or `None` with the reason printed.
fn hypervisor() -> Option<Hypervisor> {
    match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(kvm) => Some(Hypervisor::new(kvm.into()).unwrap()),
        Err(error) => {
            println!("skipped: /dev/kvm: {error}");
            None
        }
    }
}

/// A vCPU at 64-bit `code`, with all that is mapped to itself.
fn long_mode(hypervisor: &Hypervisor, code: &[u8]) -> (Vm, Vcpu) {
    let memory = memory::create_small(2 << 20).unwrap();
    let cr3 = longmode::write_tables(&memory, longmode::Access::Kernel).unwrap();
    memory.write_slice(code, GuestAddress(CODE)).unwrap();
    let vm = hypervisor.create_bare_vm(memory).unwrap();
    let vcpu = Vcpu::new(&vm, 0, 1, &[]).unwrap();
    let entry = LongMode {
        rip: CODE,
        rsi: layout::BOOT_PARAMS,
        cr3,
        gdt: (layout::GDT, longmode::GDT_LIMIT),
        ..Default::default()
    };
    vcpu.enter(Entry::Long(entry)).unwrap();
    (vm, vcpu)
}

#[test]
fn real_mode_ports_and_mmio_come_out_and_answers_go_in() {
    let Some(hypervisor) = hypervisor() else { return };
    let memory = memory::create_small(0x8000).unwrap();
    let code = [
        0xb0, 0x42, // mov al, 0x42
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xee, // out dx, al
        0xec, // in al, dx
        0xa2, 0x00, 0x90, // mov [0x9000], al
        0xa0, 0x01, 0x90, // mov al, [0x9001]
        0xe6, 0x80, // out 0x80, al
        0xf4, // hlt
    ];
    memory.write_slice(&code, GuestAddress(0x1000)).unwrap();
    let vm = hypervisor.create_bare_vm(memory).unwrap();
    let mut vcpu = Vcpu::new(&vm, 0, 1, &[]).unwrap();
    vcpu.enter(Entry::Real { ip: 0x1000 }).unwrap();

    assert!(matches!(vcpu.run(), Exit::PortOut { port: 0x3f8, data: [0x42] }));
    match vcpu.run() {
        Exit::PortIn { port: 0x3f8, data } => data.fill(0x17),
        other => panic!("{other:?}"),
    }
    assert!(matches!(vcpu.run(), Exit::MmioWrite { address: 0x9000, data: [0x17] }));
    match vcpu.run() {
        Exit::MmioRead { address: 0x9001, data } => data.fill(0x99),
        other => panic!("{other:?}"),
    }
    assert!(matches!(vcpu.run(), Exit::PortOut { port: 0x80, data: [0x99] }));
    assert!(matches!(vcpu.run(), Exit::Halt));
}

#[test]
fn long_mode_begins_with_the_boot_parameters_in_rsi() {
    let Some(hypervisor) = hypervisor() else { return };
    // mov rax, rsi; out 0x80, eax; hlt
    let (_vm, mut vcpu) = long_mode(&hypervisor, &[0x48, 0x89, 0xf0, 0xe7, 0x80, 0xf4]);
    let expected = u32::try_from(layout::BOOT_PARAMS).unwrap().to_le_bytes();
    assert!(matches!(vcpu.run(), Exit::PortOut { port: 0x80, data } if data == expected));
    assert!(matches!(vcpu.run(), Exit::Halt));
}

#[test]
fn a_doorbell_rings_for_its_own_value_and_without_an_exit() {
    let Some(hypervisor) = hypervisor() else { return };
    let code = [
        0xbb, 0x50, 0x00, 0x00, 0xd0, // mov ebx, 0xd0000050
        0xb8, 0x01, 0x00, 0x00, 0x00, // mov eax, 1
        0x89, 0x03, // mov [rbx], eax
        0xb8, 0x02, 0x00, 0x00, 0x00, // mov eax, 2
        0x89, 0x03, // mov [rbx], eax
        0xf4, // hlt
    ];
    let (vm, mut vcpu) = long_mode(&hypervisor, &code);
    let bell = EventFd::new(EFD_NONBLOCK).unwrap();
    vm.connect_doorbell(&bell, 0xd000_0050, 1).unwrap();
    // The write of 1 rings; the write of 2 has no bell and exits.
    assert!(matches!(vcpu.run(), Exit::MmioWrite { address: 0xd000_0050, data: [2, 0, 0, 0] }));
    assert_eq!(bell.read().unwrap(), 1);
    assert!(matches!(vcpu.run(), Exit::Halt));
}

#[test]
fn a_kick_ends_a_guest_that_loops_for_ever() {
    let Some(hypervisor) = hypervisor() else { return };
    machine::install_kick_handler().unwrap();
    // jmp to itself
    let (vm, mut vcpu) = long_mode(&hypervisor, &[0xeb, 0xfe]);
    let kicker = vcpu.kicker().unwrap();
    let started = Instant::now();
    let thread = std::thread::spawn(move || {
        let _vm = vm;
        let first = matches!(vcpu.run(), Exit::Kicked);
        // And from now on at once.
        first && matches!(vcpu.run(), Exit::Kicked)
    });
    std::thread::sleep(Duration::from_millis(20));
    kicker.kick();
    thread.kill(SIGRTMIN()).unwrap();
    assert!(thread.join().unwrap());
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_triple_fault_is_a_shutdown_with_its_place() {
    let Some(hypervisor) = hypervisor() else { return };
    // ud2, without an interrupt table
    let (_vm, mut vcpu) = long_mode(&hypervisor, &[0x0f, 0x0b]);
    assert!(matches!(vcpu.run(), Exit::Shutdown));
    assert!(vcpu.position().is_some());
}

/// Values that a guest writes to a port, until it halts.
fn words(vcpu: &mut Vcpu) -> Vec<u32> {
    let mut words = Vec::new();
    loop {
        match vcpu.run() {
            Exit::PortOut { data, .. } => words.push(u32::from_le_bytes(data.try_into().unwrap())),
            Exit::Halt => return words,
            other => panic!("{other:?} after {words:x?}"),
        }
    }
}

#[test]
fn a_guest_enables_all_states_that_it_is_told_of() {
    let Some(hypervisor) = hypervisor() else { return };
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    if processor.contains("QEMU TCG") {
        // QEMU before 9.0 does not tell KVM when the guest sets XCR0.
        println!("skipped: KVM on QEMU's own processor has no XSAVE for its guests");
        return;
    }
    let code = [
        0xb8, 0x0d, 0x00, 0x00, 0x00, // mov eax, 0xd
        0x31, 0xc9, // xor ecx, ecx
        0x0f, 0xa2, // cpuid: the components in eax, and edx
        0x89, 0xc6, // mov esi, eax
        0xe7, 0x80, // out 0x80, eax
        0x0f, 0x20, 0xe0, // mov rax, cr4
        0x0d, 0x00, 0x00, 0x04, 0x00, // or eax, 1 << 18: OSXSAVE
        0x0f, 0x22, 0xe0, // mov cr4, rax
        0x31, 0xc9, // xor ecx, ecx
        0x89, 0xf0, // mov eax, esi
        0x0f, 0x01, 0xd1, // xsetbv
        0xb8, 0x0d, 0x00, 0x00, 0x00, // mov eax, 0xd
        0x31, 0xc9, // xor ecx, ecx
        0x0f, 0xa2, // cpuid: the size now in ebx, and the largest in ecx
        0x89, 0xd8, // mov eax, ebx
        0xe7, 0x80, // out 0x80, eax
        0x89, 0xc8, // mov eax, ecx
        0xe7, 0x80, // out 0x80, eax
        0xf4, // hlt
    ];
    let (vm, mut vcpu) = long_mode(&hypervisor, &code);
    let [offered, _, largest, _] = vm.supported_leaf(0xd).registers;
    if offered == 0 {
        println!("skipped: this processor has no XSAVE");
        return;
    }
    let [states, now, all] = words(&mut vcpu).try_into().unwrap();
    // All of KVM's but MPX and AMX.
    assert_eq!(states, offered & !(0b11 << 3) & !(0b11 << 17));
    assert_eq!(now, all);
    assert!(states != offered || all == largest, "{all} of {largest}");
}
