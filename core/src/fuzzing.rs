//! What the fuzz targets in `tests/fuzz` call: each parser of this crate under any bytes, with what
//! must hold of the result. Only in test and fuzzing builds.
// A finding is a panic.
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::fmt::Debug;
use std::path::Path;

use crate::control::{Assembler, Message as ControlMessage, Reply, Request, datagrams};
use crate::spec::{Context, parse};
use crate::wire::{Decoder, FromGuest, Message, ToGuest, WireError};

#[cfg(test)]
#[path = "../../tests/fuzz/replay.rs"]
mod replay;

/// The host's side of the wire: what a hostile guest sends.
pub fn wire_from_guest(data: &[u8]) {
    wire::<FromGuest>(data);
}

/// The guest's side of the wire.
pub fn wire_to_guest(data: &[u8]) {
    wire::<ToGuest>(data);
}

/// All messages that the bytes hold, fed in pieces of `piece` bytes.
fn decode<M: Message>(data: &[u8], piece: usize) -> (Vec<M>, Option<WireError>) {
    let mut decoder = Decoder::new();
    let mut messages = Vec::new();
    for bytes in data.chunks(piece) {
        decoder.feed(bytes);
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

/// However the bytes are cut, they are the same messages; what was decoded is encoded as something
/// that decodes to the same.
fn wire<M: Message + Debug + PartialEq>(data: &[u8]) {
    let Some((&piece, data)) = data.split_first() else { return };
    let whole = decode::<M>(data, data.len().max(1));
    assert_eq!(whole, decode::<M>(data, usize::from(piece).max(1)));
    for message in whole.0 {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).expect("what came in fits a frame");
        // An empty piece of a stream is no frame.
        if !bytes.is_empty() {
            assert_eq!(decode::<M>(&bytes, bytes.len()), (vec![message], None));
        }
    }
}

/// Both directions of the control socket: the first byte says which, then each datagram has a byte
/// of length.
pub fn control(data: &[u8]) {
    match data.split_first() {
        Some((0, rest)) => assemble::<Request>(rest),
        Some((_, rest)) => assemble::<Reply>(rest),
        None => {}
    }
}

fn assemble<M: ControlMessage + Debug + PartialEq>(mut rest: &[u8]) {
    let mut assembler = Assembler::default();
    while let Some((&length, after)) = rest.split_first() {
        let (datagram, after) = after.split_at(usize::from(length).min(after.len()));
        rest = after;
        match assembler.take::<M>(datagram) {
            Ok(Some(message)) => {
                let mut again = Assembler::default();
                let sent = datagrams(&message).expect("what came in is within its limit");
                let mut taken = sent.iter().map(|datagram| again.take::<M>(datagram).unwrap());
                assert_eq!(taken.next_back(), Some(Some(message)));
            }
            Ok(None) => {}
            Err(_) => return,
        }
    }
}

fn resolve(text: &[u8], env_file: &str) {
    match parse(text, "x.toml") {
        Ok(spec) => {
            let read = |_: &Path| Ok(env_file.to_owned());
            for name in spec.workloads().keys() {
                let context = Context {
                    base_dir: Path::new("/repo"),
                    home: None,
                    read_env_file: &read,
                    isolation: None,
                    command: &[],
                };
                if let Err(problems) = spec.resolve(name.as_str(), &context) {
                    assert!(!problems.to_string().is_empty());
                }
            }
        }
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
}

/// A spec's TOML, resolved where it parses.
pub fn spec(data: &[u8]) {
    resolve(data, "A=1");
}

/// A file of variables.
pub fn env_file(data: &[u8]) {
    let spec = b"[workload.x]\nimage = \"host\"\ncommand = [\"true\"]\nenv_file = [\"e\"]\n";
    resolve(spec, &String::from_utf8_lossy(data));
}

#[test]
fn the_corpora_find_nothing() {
    let targets: [replay::Target; 5] = [
        ("wire_from_guest", wire_from_guest),
        ("wire_to_guest", wire_to_guest),
        ("control", control),
        ("spec", spec),
        ("env_file", env_file),
    ];
    replay::replay(env!("CARGO_MANIFEST_DIR"), &targets);
}
