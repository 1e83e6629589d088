//! A blob on its way into a private file: nothing reads it before it was checked.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use kiln_cas::{Digest, DigestFunction, Hasher};

use super::problem::Problem;

pub struct Sink {
    path: PathBuf,
    file: File,
    expected: Digest,
    hasher: Hasher,
    written: u64,
}

impl Sink {
    pub fn create(path: &Path, expected: Digest) -> Result<Self, Problem> {
        let file = File::create(path)
            .map_err(|error| Problem::local(format_args!("create {}", path.display()), error))?;
        let hasher = DigestFunction::Sha256.hasher();
        Ok(Self { path: path.to_owned(), file, expected, hasher, written: 0 })
    }

    /// Forgets what was written, so that the blob can be written from its beginning again.
    pub fn restart(&mut self) -> Result<(), Problem> {
        self.hasher = DigestFunction::Sha256.hasher();
        self.written = 0;
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(|error| self.local(error))
    }

    pub fn write(&mut self, data: &[u8]) -> Result<(), Problem> {
        self.written += data.len() as u64;
        if self.written > self.expected.size {
            return Err(Problem::Final(format!(
                "{} has more bytes than its manifest says",
                self.name()
            )));
        }
        self.hasher.update(data);
        self.file.write_all(data).map_err(|error| self.local(error))
    }

    /// Checks that all bytes have come and have the expected digest. Bytes that are missing are a
    /// passing problem, other bytes are a final one.
    pub fn finish(&mut self) -> Result<(), Problem> {
        if self.written < self.expected.size {
            let (written, size) = (self.written, self.expected.size);
            return Err(Problem::passing(format!(
                "{} ended after {written} of {size} bytes",
                self.name()
            )));
        }
        let hasher = std::mem::replace(&mut self.hasher, DigestFunction::Sha256.hasher());
        let found = hasher.finish();
        if found.hash != self.expected.hash {
            return Err(Problem::Final(format!(
                "{} has other bytes than its digest says (they are sha256:{})",
                self.name(),
                found.hex()
            )));
        }
        Ok(())
    }

    fn name(&self) -> String {
        format!("blob sha256:{}", self.expected.hex())
    }

    fn local(&self, error: std::io::Error) -> Problem {
        Problem::local(format_args!("write {}", self.path.display()), error)
    }
}
