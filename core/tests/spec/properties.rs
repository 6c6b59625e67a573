//! What holds for any input.

use std::collections::BTreeSet;
use std::fmt::{Debug, Display};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use moat_core::spec::{
    Bytes, Capability, CapabilitySet, Condition, Context, CpuSet, Cpus, GuestPath, HostPath,
    Hostname, Id, Image, KernelName, LONGEST_DURATION, Name, Network, Port, Propagation, Restart,
    Signal, Tmpfs, User, WrittenSeccomp, WrittenVolume, format_duration, parse, parse_duration,
};
use proptest::prelude::*;

const VALID: &str = include_str!("everything.toml");

/// Parses, and resolves what parses: neither may panic.
fn survives(text: &[u8]) {
    match parse(text, "x.toml") {
        Ok(spec) => {
            let read = |_: &Path| Ok("A=1".to_owned());
            for name in spec.workloads().keys() {
                let context = Context {
                    base_dir: Path::new("/repo"),
                    home: None,
                    read_env_file: &read,
                    isolation: None,
                    command: &[],
                };
                let _ =
                    spec.resolve(name.as_str(), &context).map_err(|problems| problems.to_string());
            }
        }
        Err(problems) => assert!(!problems.to_string().is_empty() && problems.count() > 0),
    }
}

/// What was read, shown, reads as the same.
fn reads_back<T: FromStr<Err: Debug> + Display + PartialEq + Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let shown = value.to_string();
        assert_eq!(shown.parse::<T>().ok(), Some(value), "{text:?} shown as {shown:?}");
    }
}

#[test]
fn the_spec_to_mutate_is_valid() {
    parse(VALID, "x.toml").unwrap_or_else(|problems| panic!("{problems}"));
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        survives(&bytes);
    }

    #[test]
    fn any_text(text in "\\PC{0,200}") {
        survives(text.as_bytes());
    }

    #[test]
    fn text_of_toml_signs(text in "[\\[\\]{}=.,\"'#a-c0-9 \n-]{0,200}") {
        survives(text.as_bytes());
    }

    #[test]
    fn any_value_of_any_key(
        line in 0..VALID.lines().count(),
        value in prop_oneof!["[\\PC]{0,30}", Just("[]".to_owned()), Just("{}".to_owned()),
            Just("[[1]]".to_owned()), Just("{ a = { b = 1 } }".to_owned()), Just("-0x1".to_owned()),
            "[0-9]{1,40}", "\"[a-z:/.~@\\[\\]0-9-]{0,20}\"", "\\[\"[a-z:/.~0-9-]{0,20}\"\\]"],
    ) {
        let mutated = VALID.lines().enumerate().map(|(index, old)| match old.split_once(" = ") {
            Some((key, _)) if index == line => format!("{key} = {value}\n"),
            _ => format!("{old}\n"),
        });
        survives(mutated.collect::<String>().as_bytes());
    }

    #[test]
    fn a_valid_spec_with_bytes_changed(
        edits in proptest::collection::vec((0..VALID.len(), any::<u8>(), 0..3), 1..8),
    ) {
        let mut bytes = VALID.as_bytes().to_vec();
        for (at, byte, kind) in edits {
            let at = at.min(bytes.len().saturating_sub(1));
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        survives(&bytes);
    }

    #[test]
    fn lines_of_a_valid_spec_in_any_order(
        picks in proptest::collection::vec((0..VALID.lines().count(), 0..4), 1..60),
    ) {
        let lines: Vec<&str> = VALID.lines().collect();
        let line = |(index, kind): (usize, i32)| match (lines[index], kind) {
            (header, 0) if header.starts_with('[') => format!("[{header}]\n"),
            (header, 1) if header.starts_with('[') => {
                format!("{} = 1\n", header.trim_matches(['[', ']']))
            }
            (line, _) => format!("{line}\n"),
        };
        survives(picks.into_iter().map(line).collect::<String>().as_bytes());
    }

    #[test]
    fn texts_read_back(text in "[A-Za-z0-9:,/._~+@\\[\\]-]{0,24}") {
        reads_back::<Bytes>(&text);
        reads_back::<Cpus>(&text);
        reads_back::<Name>(&text);
        reads_back::<Hostname>(&text);
        reads_back::<KernelName>(&text);
        reads_back::<GuestPath>(&text);
        reads_back::<HostPath>(&text);
        reads_back::<User>(&text);
        reads_back::<Signal>(&text);
        reads_back::<CapabilitySet>(&text);
        reads_back::<WrittenVolume>(&text);
        reads_back::<Tmpfs>(&text);
        reads_back::<Image>(&text);
        reads_back::<Port>(&text);
        reads_back::<Restart>(&text);
        reads_back::<Condition>(&text);
        reads_back::<Network>(&text);
        reads_back::<CpuSet>(&text);
        reads_back::<WrittenSeccomp>(&text);
    }

    #[test]
    fn sizes_read_back(bytes in any::<u64>(), shift in 0u32..64) {
        for bytes in [bytes, bytes >> shift, bytes >> shift << shift] {
            let size = Bytes::new(bytes);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }
    }

    #[test]
    fn processors_read_back(milli in any::<u32>()) {
        let cpus = Cpus::from_milli(milli);
        prop_assert_eq!(cpus.to_string().parse(), Ok(cpus));
    }

    #[test]
    fn durations_read_back(micros in 0..=LONGEST_DURATION.as_micros()) {
        let duration = Duration::from_micros(u64::try_from(micros).expect("a hundred days fit"));
        prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
    }

    #[test]
    fn any_text_as_a_duration(text in "\\PC{0,20}") {
        let _ = parse_duration(&text);
    }

    #[test]
    fn users_read_back(user in 0..u32::MAX, group in proptest::option::of("[a-z_][a-z0-9_-]{0,20}")) {
        let user = User { user: Id::Number(user), group: group.map(Id::Name) };
        prop_assert_eq!(user.to_string().parse(), Ok(user));
    }

    #[test]
    fn signals_and_capabilities_read_back(signal in 1..=64, index in 0..Capability::ALL.len()) {
        let signal = Signal::from_number(signal).expect("in range");
        prop_assert_eq!(signal.to_string().parse(), Ok(signal));
        let capability = Capability::ALL[index];
        prop_assert_eq!(capability.to_string().parse(), Ok(capability));
    }

    #[test]
    fn mounts_read_back(
        source in "(\\./|/|~/|\\.\\./)[a-z0-9/._-]{0,20}",
        target in "/[a-c][a-z0-9/._-]{0,20}",
        size in proptest::option::of(4096u64..1 << 50),
        read_only in any::<bool>(),
    ) {
        let volume = format!("{source}:{target}{}", if read_only { ":ro" } else { "" });
        if let Ok(volume) = volume.parse::<WrittenVolume>() {
            prop_assert_eq!(volume.read_only, read_only);
            prop_assert_eq!(volume.to_string().parse(), Ok(volume));
        }
        if let Ok(target) = target.parse::<GuestPath>() {
            let tmpfs = Tmpfs { target, size: size.map(Bytes::new) };
            prop_assert_eq!(tmpfs.to_string().parse(), Ok(tmpfs));
        }
    }

    #[test]
    fn options_of_a_volume_read_back(
        options in proptest::collection::vec("ro|rw|rprivate|rslave|r[a-z]{1,3}", 0..4),
    ) {
        let written = format!("./a:/b:{}", options.join(","));
        let known = |option: &String| ["ro", "rw", "rprivate", "rslave"].contains(&&**option);
        let of = |pair: [&str; 2]| options.iter().filter(|option| pair.contains(&&***option)).count();
        let right = options.iter().all(known)
            && !options.is_empty()
            && of(["ro", "rw"]) < 2
            && of(["rprivate", "rslave"]) < 2;
        match written.parse::<WrittenVolume>() {
            Ok(volume) => {
                prop_assert!(right, "{}", written);
                prop_assert_eq!(volume.read_only, options.iter().any(|option| option == "ro"));
                let slave = volume.propagation == Propagation::Slave;
                prop_assert_eq!(slave, options.iter().any(|option| option == "rslave"));
                prop_assert_eq!(volume.to_string().parse(), Ok(volume));
            }
            Err(_) => prop_assert!(!right, "{}", written),
        }
    }

    /// A set holds exactly the processors of its parts, and is written in one way.
    #[test]
    fn sets_of_processors_hold_what_was_written(
        parts in proptest::collection::vec((0u16..300, 0u16..20), 1..12),
    ) {
        let text = |(first, more): &(u16, u16)| match more {
            0 => first.to_string(),
            more => format!("{first}-{}", first + more),
        };
        let written = parts.iter().map(text).collect::<Vec<_>>().join(",");
        let set: CpuSet = written.parse().expect("a set");
        let meant: BTreeSet<u16> =
            parts.iter().flat_map(|(first, more)| *first..=first + more).collect();
        let held: Vec<u16> = set.runs().flatten().collect();
        prop_assert_eq!(&held, &meant.iter().copied().collect::<Vec<_>>());
        prop_assert_eq!(set.count(), meant.len());
        let one_by_one = meant.iter().rev().map(u16::to_string).collect::<Vec<_>>().join(",");
        prop_assert_eq!(one_by_one.parse::<CpuSet>(), Ok(set.clone()));
        prop_assert_eq!(set.to_string().parse(), Ok(set));
    }

    #[test]
    fn every_guest_path_is_clean(text in "/[a-z./ ]{0,40}") {
        if let Ok(path) = text.parse::<GuestPath>() {
            let path = path.as_str();
            prop_assert!(path.starts_with('/'));
            let plain = |part: &str| !matches!(part, "" | "." | "..");
            prop_assert!(path == "/" || path[1..].split('/').all(plain));
        }
    }

    #[test]
    fn every_host_path_is_absolute_and_clean(text in "[a-z./~]{1,40}") {
        if let Ok(path) = text.parse::<HostPath>() {
            let path = path.resolve(Path::new("/a/b"), Some(Path::new("/h"))).expect("has a home");
            prop_assert!(path.is_absolute());
            let text = path.to_str().expect("UTF-8");
            prop_assert!(!text.split('/').any(|part| part == ".." || part == "."), "{}", text);
        }
    }

    #[test]
    fn any_text_has_a_nearest_name(text in "\\PC{0,100}") {
        let name = Name::nearest_to(&text);
        prop_assert_eq!(name.as_str().parse::<Name>(), Ok(name.clone()));
    }

    #[test]
    fn hostile_values_do_not_deserialize(text in "\\PC{0,20}") {
        let json = serde_json::to_string(&text).expect("serializes");
        prop_assert_eq!(
            serde_json::from_str::<CpuSet>(&json).is_ok(),
            text.parse::<CpuSet>().is_ok()
        );
        prop_assert_eq!(serde_json::from_str::<Name>(&json).is_ok(), text.parse::<Name>().is_ok());
        prop_assert_eq!(
            serde_json::from_str::<GuestPath>(&json).is_ok(),
            text.parse::<GuestPath>().is_ok()
        );
    }
}
