//! Runs a filter as the kernel does: the few instructions of classic BPF that filters are made of
//! (linux/filter.h, kernel/seccomp.c), with `struct seccomp_data` as memory.

use seccompiler::sock_filter;

pub(super) const X86_64: u32 = 0xc000_003e;

/// What a filter is asked about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) architecture: u32,
    pub(super) arguments: [u64; 6],
}

impl Call {
    pub(super) fn new(number: u32, arguments: &[u64]) -> Self {
        let mut six = [0; 6];
        six[..arguments.len()].copy_from_slice(arguments);
        Self { number, architecture: X86_64, arguments: six }
    }

    /// Offset 0: number, architecture, instruction pointer, arguments, lower halves first.
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.architecture,
            16..64 if offset.is_multiple_of(4) => {
                let argument = self.arguments[usize::try_from((offset - 16) / 8).unwrap()];
                let half = if offset.is_multiple_of(8) { argument } else { argument >> 32 };
                u32::try_from(half & 0xffff_ffff).unwrap()
            }
            _ => panic!("reads at {offset}"),
        }
    }
}

/// What a filter said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    /// What it returned.
    pub(super) value: u32,
    /// After how many steps.
    pub(super) steps: u32,
    /// Whether it looked at an argument: if so, the kernel asks it at each call.
    pub(super) arguments: bool,
}

pub(super) fn run(program: &[sock_filter], call: Call) -> Said {
    let mut accumulator = 0;
    let mut at = 0;
    let mut said = Said { value: 0, steps: 0, arguments: false };
    loop {
        let step = &program[at];
        at += 1;
        said.steps += 1;
        let jump = |yes: bool| usize::from(if yes { step.jt } else { step.jf });
        match step.code {
            0x20 => {
                said.arguments |= step.k >= 16;
                accumulator = call.word(step.k);
            }
            0x54 => accumulator &= step.k,
            0x05 => at += usize::try_from(step.k).unwrap(),
            0x15 => at += jump(accumulator == step.k),
            0x25 => at += jump(accumulator > step.k),
            0x35 => at += jump(accumulator >= step.k),
            0x06 => return Said { value: step.k, ..said },
            code => panic!("code {code:#x}"),
        }
    }
}
