//! What only a container has, key by key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::section::{Node, Section};
use crate::spec::default::{IO_BPS, IO_WEIGHT, IOPS, SWAP};
use crate::spec::written::ContainerTable;
use crate::spec::{HostPath, IoMax, ValueError};

/// The longest label of a security module, in bytes: what the kernel takes at once is a page with
/// its NUL (`proc_pid_attr_write`).
const LABEL_LIMIT: usize = 4095;

const TOO_LONG: usize = LABEL_LIMIT + 1;

pub(super) fn container(mut t: Section<'_, '_, '_>) -> ContainerTable {
    let written = ContainerTable {
        cpuset: t.parse("cpuset", "\"0-3\""),
        swap: t.size("swap", "\"64MiB\"", &SWAP),
        io_weight: t.integer("io_weight", IO_WEIGHT),
        io_max: io_max(&mut t),
        apparmor: label(&mut t, "apparmor", "\"my-profile\""),
        selinux: label(&mut t, "selinux", "\"system_u:system_r:container_t:s0\""),
    };
    if t.offset("apparmor").is_some() && t.offset("selinux").is_some() {
        t.wrong("selinux", "a second label, besides apparmor", "keep the one that the host has");
    }
    t.finish();
    written
}

fn io_max(t: &mut Section<'_, '_, '_>) -> Option<BTreeMap<PathBuf, IoMax>> {
    let entries = t.entries("io_max");
    if t.report.is_recording() {
        limits(Section::new(t.report, "container.io_max.NAME".to_owned(), None));
    }
    let mut devices = BTreeMap::new();
    for (name, node) in entries? {
        let path = device(t, name, &node);
        let Some(table) = node.table(t.report) else { continue };
        let max = limits(Section::new(t.report, node.key.clone(), Some(table)));
        if table.is_empty() {
            let help = "write at least one, such as { write_bps = \"10MiB\" }";
            t.report.add_with_help(node.key_at, &node.key, "has no limit", help);
        }
        let Some(path) = path else { continue };
        if devices.insert(path, max).is_some() {
            t.report.add_with_help(node.key_at, &node.key, "a second time", "write it once");
        }
    }
    Some(devices)
}

/// The absolute path of a device.
fn device(t: &mut Section<'_, '_, '_>, name: &str, node: &Node<'_>) -> Option<PathBuf> {
    let path = name.parse::<HostPath>().and_then(|path| {
        if name.starts_with('/') {
            return path.resolve(Path::new("/"), None);
        }
        let help = "write the whole path of a block device, such as \"/dev/vda\"";
        Err(ValueError::malformed(name, "a device", help))
    });
    path.map_err(|error| t.report.add_value(node.key_at, &node.key, &error)).ok()
}

fn limits(mut t: Section<'_, '_, '_>) -> IoMax {
    let max = IoMax {
        read_bps: t.size("read_bps", "\"10MiB\"", &IO_BPS),
        write_bps: t.size("write_bps", "\"10MiB\"", &IO_BPS),
        read_iops: t.integer("read_iops", IOPS),
        write_iops: t.integer("write_iops", IOPS),
    };
    t.finish();
    max
}

/// What a security module knows a process by: any text that fits on a line.
fn label(t: &mut Section<'_, '_, '_>, key: &'static str, example: &str) -> Option<String> {
    const WHAT: &str = "a label";
    let node = t.take(key)?;
    let text = node.string(t.report, example)?;
    let error = match text.len() {
        0 => ValueError::Empty { what: WHAT },
        length @ TOO_LONG.. => ValueError::TooLong { what: WHAT, length, limit: LABEL_LIMIT },
        _ if text.contains(char::is_control) => {
            ValueError::malformed(text, WHAT, "it must not hold line ends or other controls")
        }
        _ => return Some(text.to_owned()),
    };
    node.refuse(t.report, &error)
}
