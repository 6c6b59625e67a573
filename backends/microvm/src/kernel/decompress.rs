//! Takes apart the compressions in which kernels and modules come.
//!
//! What is read here can be anything: every function stops at a limit of output, and none asks for
//! more memory than that limit and a dictionary.

use std::io::{self, Read};

use flate2::read::GzDecoder;
use ruzstd::decoding::StreamingDecoder;
use xz4rust::{XzDecoder, XzNextBlockResult};

/// The largest dictionary that `xz -9` uses (64 MiB), and no more.
const XZ_DICTIONARY_MAX: usize = 64 << 20;
/// Output is collected in pieces of this size.
const PIECE: usize = 1 << 20;
/// A block of an LZ4 legacy frame holds this much, the last one less (LZ4 Frame Format
/// Description, "Legacy frame").
const LZ4_BLOCK: usize = 8 << 20;
const LZ4_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// Why data can't be taken apart.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecompressError {
    /// No compression that is known here begins like this.
    #[error("its compression is not known")]
    Unknown,
    /// The data does not follow its format.
    #[error("its {format} data is broken: {why}")]
    Broken { format: &'static str, why: String },
    /// It gets larger than it may.
    #[error("it unpacks to more than {limit} bytes")]
    TooLarge { limit: usize },
}

/// Unpacks `data`, whose first bytes say how, to `limit` bytes at most. What follows the end of
/// the compressed stream is left alone: kernels append their unpacked size there.
pub(super) fn decompress(data: &[u8], limit: usize) -> Result<Vec<u8>, DecompressError> {
    match data {
        [0x1f, 0x8b, ..] => read_all("gzip", GzDecoder::new(data), limit),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let decoder = StreamingDecoder::new(data).map_err(|error| broken("zstd", error))?;
            read_all("zstd", decoder, limit)
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => xz(data, limit),
        _ => match data.strip_prefix(&LZ4_MAGIC) {
            Some(blocks) => lz4(blocks, limit),
            None => Err(DecompressError::Unknown),
        },
    }
}

fn broken(format: &'static str, why: impl ToString) -> DecompressError {
    DecompressError::Broken { format, why: why.to_string() }
}

fn read_all(
    format: &'static str,
    decoder: impl Read,
    limit: usize,
) -> Result<Vec<u8>, DecompressError> {
    let mut output = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let result: io::Result<usize> = decoder.take(most).read_to_end(&mut output);
    result.map_err(|error| broken(format, error))?;
    within(output, limit)
}

fn within(output: Vec<u8>, limit: usize) -> Result<Vec<u8>, DecompressError> {
    if output.len() > limit { Err(DecompressError::TooLarge { limit }) } else { Ok(output) }
}

fn xz(mut input: &[u8], limit: usize) -> Result<Vec<u8>, DecompressError> {
    let mut decoder = XzDecoder::in_heap_with_alloc_dict_size(PIECE, XZ_DICTIONARY_MAX);
    let mut output = Vec::new();
    let mut piece = vec![0; PIECE];
    loop {
        let done = decoder.decode(input, &mut piece).map_err(|error| broken("xz", error))?;
        let (read, written) = (done.input_consumed(), done.output_produced());
        input = input.get(read..).unwrap_or_default();
        output.extend_from_slice(piece.get(..written).unwrap_or_default());
        if output.len() > limit {
            return Err(DecompressError::TooLarge { limit });
        }
        match done {
            XzNextBlockResult::EndOfStream(..) => return Ok(output),
            XzNextBlockResult::NeedMoreData(..) if read == 0 && written == 0 => {
                return Err(broken("xz", "it ends too early"));
            }
            XzNextBlockResult::NeedMoreData(..) => {}
        }
    }
}

/// Blocks, each a length and so many bytes, to the end; a length without bytes after it is the
/// unpacked size that the kernel's build appends.
fn lz4(mut input: &[u8], limit: usize) -> Result<Vec<u8>, DecompressError> {
    let mut output = Vec::new();
    let mut block = vec![0; LZ4_BLOCK];
    while let Some((length, rest)) = input.split_first_chunk::<4>() {
        if *length == LZ4_MAGIC {
            input = rest;
            continue;
        }
        if rest.is_empty() {
            break;
        }
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let packed = rest.get(..length).ok_or_else(|| broken("lz4", "it ends too early"))?;
        let size = lz4_flex::block::decompress_into(packed, &mut block)
            .map_err(|error| broken("lz4", error))?;
        if output.len() + size > limit {
            return Err(DecompressError::TooLarge { limit });
        }
        output.extend_from_slice(block.get(..size).unwrap_or_default());
        input = rest.get(length..).unwrap_or_default();
    }
    Ok(output)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// `data` in a legacy frame as the kernel's build makes it, the size at its end.
    pub(in super::super) fn lz4_legacy(data: &[u8]) -> Vec<u8> {
        let mut frame = LZ4_MAGIC.to_vec();
        for block in data.chunks(LZ4_BLOCK) {
            let packed = lz4_flex::block::compress(block);
            frame.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
            frame.extend(packed);
        }
        frame.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        frame
    }

    fn sample() -> Vec<u8> {
        (0..100_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect()
    }

    fn packed_by(program: &str, args: &[&str]) -> Option<Vec<u8>> {
        let command =
            Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut child) = command else {
            println!("skipped: {program} is not installed");
            return None;
        };
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(&sample()).unwrap());
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        Some(output.stdout)
    }

    #[test]
    fn each_compression_is_read_back_with_a_size_appended() {
        let outside: [(&str, &[&str]); 5] = [
            ("gzip", &["-9"]),
            ("xz", &["--check=crc32", "--x86", "--lzma2=dict=32MiB"]),
            ("xz", &["--check=crc32", "--lzma2=dict=2MiB"]),
            ("zstd", &["-19"]),
            ("zstd", &["-22", "--ultra"]),
        ];
        for (program, args) in outside {
            let Some(mut packed) = packed_by(program, args) else { continue };
            packed.extend(400_000u32.to_le_bytes());
            assert!(decompress(&packed, 400_000).unwrap() == sample(), "{program} {args:?}");
        }
        assert!(decompress(&lz4_legacy(&sample()), 400_000).unwrap() == sample());
    }

    #[test]
    fn more_than_the_limit_is_refused() {
        let mut packed = vec![lz4_legacy(&sample())];
        packed.extend(packed_by("gzip", &[]));
        packed.extend(packed_by("xz", &[]));
        packed.extend(packed_by("zstd", &[]));
        for data in packed {
            let result = decompress(&data, 399_999);
            assert!(matches!(result, Err(DecompressError::TooLarge { limit: 399_999 })));
        }
    }

    #[test]
    fn broken_data_is_an_error() {
        let mut samples = vec![lz4_legacy(&sample())];
        samples.extend(packed_by("gzip", &[]));
        samples.extend(packed_by("xz", &[]));
        samples.extend(packed_by("zstd", &[]));
        for data in samples {
            let cut = &data[..data.len() / 2];
            assert!(decompress(cut, 1 << 20).map_or(true, |output| output != sample()));
            let mut damaged = data.clone();
            for byte in damaged.iter_mut().skip(30).step_by(11) {
                *byte = !*byte;
            }
            assert!(decompress(&damaged, 1 << 20).map_or(true, |output| output != sample()));
        }
        assert!(matches!(decompress(b"", 1), Err(DecompressError::Unknown)));
        assert!(matches!(decompress(b"hello", 1), Err(DecompressError::Unknown)));
    }
}
