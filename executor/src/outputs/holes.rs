//! Files with holes: what was never written is not read either.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// The next stretch of a file: a hole, or bytes that were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// A hole of so many bytes, which read as zeros.
    Hole(u64),
    /// So many bytes that were written and have to be read.
    Data(u64),
}

/// The piece at `offset`, which is before `size`. Where the file system knows of no holes, all is data.
pub fn piece(file: &File, offset: u64, size: u64) -> io::Result<Piece> {
    let data = match seek(file, offset, Whence::SeekData) {
        // Nothing but a hole is left.
        Err(Errno::ENXIO) => return Ok(Piece::Hole(size - offset)),
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(Piece::Data(size - offset)),
        found => found?,
    };
    if data > offset {
        return Ok(Piece::Hole(data.min(size) - offset));
    }
    let hole = seek(file, offset, Whence::SeekHole)?;
    // What is no regular file has no place of its own.
    let end = if hole > offset { hole.min(size) } else { size };
    Ok(Piece::Data(end - offset))
}

fn seek(file: &File, offset: u64, whence: Whence) -> Result<u64, Errno> {
    let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
    lseek(file, offset, whence).map(|at| u64::try_from(at).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn holes_and_data_follow_each_other_to_the_end() {
        let file = tempfile::tempfile().unwrap();
        let size = 3 << 20;
        file.set_len(size).unwrap();
        file.write_all_at(&[7; 8 << 10], 1 << 20).unwrap();
        let (mut at, mut data, mut holes) = (0, 0, 0);
        while at < size {
            let length = match piece(&file, at, size).unwrap() {
                Piece::Hole(length) => {
                    holes += length;
                    length
                }
                Piece::Data(length) => {
                    data += length;
                    length
                }
            };
            assert!(length > 0);
            at += length;
        }
        assert_eq!(at, size);
        assert!(data >= 8 << 10 && holes > 2 << 20, "{data} {holes}");
        assert_eq!(piece(&file, 2 << 20, size).unwrap(), Piece::Hole(1 << 20));
    }
}
