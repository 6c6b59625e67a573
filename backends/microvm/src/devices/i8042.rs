//! As much of a keyboard controller as resets the machine, and as answers a kernel that probes
//! for one at once instead of letting it wait half a second.

use crate::boot::layout;

/// The controller's ports: data, and status or command.
pub const DATA: u16 = 0x60;
/// Status when read, command when written.
pub const COMMAND: u16 = layout::RESET_PORT;

/// Commands: read and write the configuration byte.
const READ_CONFIG: u8 = 0x20;
const WRITE_CONFIG: u8 = 0x60;
/// Status: a byte waits to be read.
const OUTPUT_FULL: u8 = 1;

/// A keyboard controller without a keyboard.
#[derive(Debug, Default)]
pub struct I8042 {
    config: u8,
    output: Option<u8>,
    command: u8,
}

impl I8042 {
    /// A guest's write to `port`. True if it resets the machine.
    pub fn write(&mut self, port: u16, data: &[u8]) -> bool {
        for &byte in data {
            match (port, self.command) {
                (DATA, WRITE_CONFIG) => self.config = byte,
                (DATA, _) => {}
                (_, _) if byte == layout::RESET_VALUE => return true,
                (_, _) => {
                    self.command = byte;
                    if byte == READ_CONFIG {
                        self.output = Some(self.config);
                    }
                }
            }
        }
        false
    }

    /// A guest's read of `port`.
    pub fn read(&mut self, port: u16) -> u8 {
        match port {
            DATA => self.output.take().unwrap_or(0),
            // Never busy: commands are done when they are written.
            _ => u8::from(self.output.is_some()) * OUTPUT_FULL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_byte_reads_as_written_and_once() {
        let mut controller = I8042::default();
        assert!(!controller.write(COMMAND, &[WRITE_CONFIG]));
        assert!(!controller.write(DATA, &[0x34]));
        assert_eq!(controller.read(COMMAND), 0);
        assert!(!controller.write(COMMAND, &[READ_CONFIG]));
        assert_eq!(controller.read(COMMAND), OUTPUT_FULL);
        assert_eq!(controller.read(DATA), 0x34);
        assert_eq!(controller.read(COMMAND), 0);
    }

    #[test]
    fn only_the_reset_command_resets() {
        let mut controller = I8042::default();
        assert!(!controller.write(DATA, &[layout::RESET_VALUE]));
        assert!(controller.write(COMMAND, &[layout::RESET_VALUE]));
    }
}
