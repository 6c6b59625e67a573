//! A large file and a tree of many small ones, read on the bed's host and through virtio-fs.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;

use super::report::Figures;

/// One file of so many bytes.
const LARGE: u64 = 1 << 30;
/// So many directories, with so many files each.
const DIRECTORIES: u64 = 500;
const FILES: u64 = 100;

/// Makes both below `directory`.
pub(super) fn make(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    let block = vec![0x5a; 1 << 20];
    let mut large = fs::File::create(directory.join("large"))?;
    for _ in 0..LARGE >> 20 {
        std::io::Write::write_all(&mut large, &block).context("the large file")?;
    }
    for number in 0..DIRECTORIES {
        let below = directory.join(format!("tree/{number}"));
        fs::create_dir_all(&below)?;
        for file in 0..FILES {
            fs::write(below.join(format!("file-{file}")), b"content").context("the tree")?;
        }
    }
    Ok(())
}

/// What `programs/files.c` said, if it saw all that was made.
pub(super) fn figures(said: &str) -> Result<Figures> {
    let figure = |word: &str, all: u64| -> Result<f64> {
        let line = said.lines().find_map(|line| line.strip_prefix(word)).context("no figure")?;
        let (seen, nanos) = line.trim().split_once(' ').context("half a figure")?;
        ensure!(seen.parse() == Ok(all), "{word}: {seen} of {all}");
        Ok(nanos.parse::<f64>()? / 1e6)
    };
    Ok(Figures::from([
        ("read_ms".to_owned(), figure("read ", LARGE)?),
        ("walk_ms".to_owned(), figure("walk ", DIRECTORIES * FILES)?),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_count_only_when_all_was_seen() {
        let said = "read 1073741824 2000000\nwalk 50000 1500000\n";
        let figures = figures(said).unwrap();
        assert_eq!((figures["read_ms"], figures["walk_ms"]), (2.0, 1.5));
        assert!(super::figures("read 1 2\nwalk 50000 1\n").is_err());
        assert!(super::figures("").is_err());
    }
}
