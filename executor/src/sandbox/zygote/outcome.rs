//! How an action ended, told by its init, which may be killed before it can say anything.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::error::{Context, ZygoteError};
use crate::sandbox::wire::Status;

/// A kind and a code, then text.
const HEAD: usize = 5;
const LONGEST: usize = 4096;

const EXITED: u8 = 1;
const SIGNALLED: u8 = 2;
const FAILED: u8 = 3;

/// A few bytes of memory that init writes and the zygote reads after init's death.
#[derive(Debug)]
pub(super) struct Outcome(File);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Ended(Status),
    Failed(String),
    /// Init was killed, and with it all processes of the action.
    Nothing,
}

impl Outcome {
    pub(super) fn new() -> Result<Self, ZygoteError> {
        let fd = memfd_create(c"outcome", MFdFlags::MFD_CLOEXEC).context("memfd_create", "")?;
        Ok(Self(File::from(fd)))
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(super) fn clear(&self) -> Result<(), ZygoteError> {
        self.0.set_len(0).context("ftruncate", "the outcome")
    }

    pub(super) fn ended(&self, status: Status) {
        match status {
            Status::Exited(code) => self.put(EXITED, code, ""),
            Status::Signalled(signal) => self.put(SIGNALLED, signal, ""),
        }
    }

    pub(super) fn failed(&self, message: &str) {
        self.put(FAILED, 0, message);
    }

    fn put(&self, kind: u8, code: i32, text: &str) {
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&code.to_le_bytes());
        bytes.extend_from_slice(&text.as_bytes()[..text.len().min(LONGEST - HEAD)]);
        // If it cannot be written, the zygote finds nothing and says so.
        let _ = self.0.write_all_at(&bytes, 0);
    }

    pub(super) fn read(&self) -> Told {
        let mut buffer = [0; LONGEST];
        let count = self.0.read_at(&mut buffer, 0).unwrap_or(0);
        let Some((head, text)) = buffer[..count].split_first_chunk::<HEAD>() else {
            return Told::Nothing;
        };
        let [kind, code @ ..] = *head;
        let code = i32::from_le_bytes(code);
        match kind {
            EXITED => Told::Ended(Status::Exited(code)),
            SIGNALLED => Told::Ended(Status::Signalled(code)),
            _ => Told::Failed(String::from_utf8_lossy(text).into_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_read_once() {
        let outcome = Outcome::new().unwrap();
        assert_eq!(outcome.read(), Told::Nothing);
        outcome.failed("mount: no");
        assert_eq!(outcome.read(), Told::Failed("mount: no".to_owned()));
        outcome.clear().unwrap();
        outcome.ended(Status::Signalled(9));
        assert_eq!(outcome.read(), Told::Ended(Status::Signalled(9)));
    }
}
