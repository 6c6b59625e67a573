//! The parsers of kernel files and modules under any bytes, for `crate::fuzzing`.
#![allow(clippy::panic)]

use super::decompress::{DecompressError, decompress};
use super::image;
use super::modules::Info;

/// Small, so that what unpacks to more is soon found out.
const LIMIT: usize = 1 << 20;

/// As a kernel, as something packed, and as a module.
pub(crate) fn parse_any(data: &[u8]) {
    if let Ok(image) = image::parse(data.to_vec(), LIMIT) {
        assert!(!image.release.is_empty() && image.release.len() < 64);
        assert!(image.bytes.len() <= LIMIT.max(data.len()));
        let _ = image.discovery();
    }
    match decompress(data, LIMIT) {
        Ok(unpacked) => assert!(unpacked.len() <= LIMIT),
        Err(DecompressError::TooLarge { limit }) => assert_eq!(limit, LIMIT),
        Err(_) => {}
    }
    if let Ok(info) = Info::read(data) {
        assert!(info.depends.len() <= data.len());
    }
}
