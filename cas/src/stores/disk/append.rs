//! Appends to a new file, past the page cache where the blob is very large.
//!
//! A blob of many megabytes would push out of the page cache what is read again and again, and
//! leave dirty pages behind for which every later sync must wait. docs/benchmarks.md has the
//! figures.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Write};

use bytes::Bytes;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Blobs from this size on are written directly, in bytes.
const DIRECT_FROM: u64 = 16 << 20;
/// What direct writes are aligned to, in memory and in the file: the largest block of any disk.
const BLOCK: usize = 4096;
/// Bytes of a thread's buffer that are kept for the next write.
const KEPT: usize = 4 << 20;

thread_local! {
    static BUFFER: RefCell<Aligned> = RefCell::default();
}

pub struct Appender {
    file: File,
    is_direct: bool,
    /// What does not fill a block yet.
    rest: Vec<u8>,
}

impl Appender {
    /// `size`: bytes that will be written in all, at most. `file` is new and empty.
    pub fn new(file: File, size: u64) -> Self {
        // Not every file system can; then it is written as usual.
        let is_direct = size >= DIRECT_FROM && set_direct(&file, true).is_ok();
        Self { file, is_direct, rest: Vec::new() }
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Blocks.
    pub fn append(&mut self, pieces: &[Bytes]) -> io::Result<()> {
        if !self.is_direct {
            return write_all(&mut self.file, pieces);
        }
        BUFFER.with_borrow_mut(|buffer| {
            let length = self.rest.len() + pieces.iter().map(Bytes::len).sum::<usize>();
            let room = buffer.room(length);
            let mut filled = 0;
            for piece in std::iter::once(&self.rest[..]).chain(pieces.iter().map(|p| &p[..])) {
                room[filled..filled + piece.len()].copy_from_slice(piece);
                filled += piece.len();
            }
            let (blocks, rest) = room[..filled].split_at(filled - filled % BLOCK);
            self.write_blocks(blocks)?;
            self.rest.clear();
            match self.is_direct {
                true => self.rest.extend_from_slice(rest),
                false => self.file.write_all(rest)?,
            }
            buffer.give_back();
            Ok(())
        })
    }

    fn write_blocks(&mut self, mut blocks: &[u8]) -> io::Result<()> {
        while !blocks.is_empty() {
            match self.file.write(blocks) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => blocks = &blocks[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The file system took the flag, and cannot do it all the same.
                Err(error) if self.is_direct && error.kind() == ErrorKind::InvalidInput => {
                    self.write_usually()?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_usually(&mut self) -> io::Result<()> {
        set_direct(&self.file, false)?;
        self.is_direct = false;
        Ok(())
    }

    /// Writes what is left. Nothing may be appended any more. Blocks.
    pub fn finish(&mut self) -> io::Result<()> {
        if self.is_direct {
            self.write_usually()?;
            self.file.write_all(&self.rest)?;
        }
        Ok(())
    }
}

/// Writes pieces with as few calls as the kernel takes them in: clients send 16 KiB at a time.
fn write_all(to: &mut impl Write, pieces: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut left = &mut slices[..];
    // Nothing of a piece without bytes can be written.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match to.write_vectored(left) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn set_direct(file: &File, on: bool) -> nix::Result<()> {
    let mut flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_DIRECT, on);
    fcntl(file, FcntlArg::F_SETFL(flags)).map(drop)
}

/// Memory of which a part begins at a multiple of [`BLOCK`].
#[derive(Default)]
struct Aligned {
    memory: Vec<u8>,
}

impl Aligned {
    /// `length` bytes that begin aligned; what is in them is of no meaning.
    fn room(&mut self, length: usize) -> &mut [u8] {
        if self.memory.len() < length + BLOCK {
            self.memory.resize(length + BLOCK, 0);
        }
        let start = self.memory.as_ptr().align_offset(BLOCK).min(BLOCK);
        &mut self.memory[start..start + length]
    }

    fn give_back(&mut self) {
        if self.memory.len() > KEPT {
            self.memory = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    fn written(size: usize, piece: usize) -> (Vec<u8>, Vec<u8>, bool) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blob");
        let file = OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
        let content: Vec<u8> = (0..size).map(|i| (i / 251) as u8 ^ i as u8).collect();
        let mut appender = Appender::new(file, size as u64);
        let was_direct = appender.is_direct;
        let pieces: Vec<_> = content.chunks(piece).map(Bytes::copy_from_slice).collect();
        for batch in pieces.chunks(7) {
            appender.append(batch).unwrap();
        }
        appender.finish().unwrap();
        (std::fs::read(&path).unwrap(), content, was_direct)
    }

    /// Takes a few bytes of each call, or none.
    #[derive(Default)]
    struct Reluctant {
        taken: Vec<u8>,
        calls: usize,
    }

    impl Write for Reluctant {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(data)])
        }

        fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
            self.calls += 1;
            if self.calls.is_multiple_of(3) {
                return Err(ErrorKind::Interrupted.into());
            }
            let before = self.taken.len();
            let bytes = pieces.iter().flat_map(|piece| piece.iter());
            self.taken.extend(bytes.take(self.calls * 5));
            Ok(self.taken.len() - before)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn pieces_go_out_together_and_what_is_not_taken_goes_again() {
        let texts = ["", "a piece", "", " and another one,", " x", "", " and more of them", ""];
        let (pieces, whole) = (texts.map(Bytes::from), texts.concat());
        let mut reluctant = Reluctant::default();
        write_all(&mut reluctant, &pieces).unwrap();
        assert_eq!(reluctant.taken, whole.as_bytes());
        assert!(reluctant.calls < 8, "{} calls", reluctant.calls);
        write_all(&mut reluctant, &[]).unwrap();
        write_all(&mut reluctant, &[Bytes::new()]).unwrap();
        assert_eq!(reluctant.taken, whole.as_bytes());
        let full = write_all(&mut &mut [0_u8; 3][..], &pieces).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::WriteZero);
    }

    #[test]
    fn every_byte_arrives_however_it_is_cut() {
        let direct = DIRECT_FROM as usize;
        for size in [0, 1, BLOCK, 300_000, direct, direct + 1, direct + BLOCK - 1] {
            for piece in [1 << 20, 65_536, 100_003] {
                let (found, content, was_direct) = written(size, piece);
                assert!(found == content, "{size} bytes in pieces of {piece}");
                assert!(!was_direct || size >= direct);
            }
        }
    }
}
