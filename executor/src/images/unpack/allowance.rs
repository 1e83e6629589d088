//! A bound for what is read in one go: the archive's reader takes headers of any length into memory.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// Bytes that may still be read, shared with the [`Allowed`] reader.
#[derive(Debug, Clone, Default)]
pub struct Allowance(Rc<Cell<u64>>);

impl Allowance {
    pub fn set(&self, bytes: u64) {
        self.0.set(bytes);
    }
}

pub struct Allowed<R> {
    reader: R,
    left: Allowance,
}

impl<R> Allowed<R> {
    pub fn new(reader: R, left: Allowance) -> Self {
        Self { reader, left }
    }
}

impl<R: Read> Read for Allowed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.0.get();
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 && !buffer.is_empty() {
            return Err(io::Error::other("the headers of an entry are too long"));
        }
        let count = self.reader.read(&mut buffer[..most])?;
        self.left.set(left - count as u64);
        Ok(count)
    }
}
