//! How an action ended, told by its init, which may be killed before it can say anything.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::error::{Context, ZygoteError};
use crate::sandbox::wire::Status;

/// Most bytes of the message that init writes and the zygote reads.
const LONGEST: usize = 4096;
/// Most characters of a text: each has up to four bytes, and a kind and a length come before them.
const LONGEST_TEXT: usize = LONGEST / 4 - 2;

/// A few bytes of memory that init writes and the zygote reads after init's death.
#[derive(Debug)]
pub(super) struct Outcome(File);

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        self.put(&Told::Ended(status));
    }

    pub(super) fn failed(&self, message: &str) {
        self.put(&Told::Failed(message.chars().take(LONGEST_TEXT).collect()));
    }

    /// Writes what init has to tell. Where that cannot be written, the zygote finds nothing, and
    /// reports that.
    fn put(&self, told: &Told) {
        if let Ok(bytes) = postcard::to_extend(told, Vec::new()) {
            let _ = self.0.write_all_at(&bytes, 0);
        }
    }

    pub(super) fn read(&self) -> Told {
        let mut buffer = [0; LONGEST];
        let count = self.0.read_at(&mut buffer, 0).unwrap_or(0);
        match &buffer[..count] {
            [] => Told::Nothing,
            told => postcard::from_bytes(told).unwrap_or_else(unreadable),
        }
    }
}

fn unreadable(error: postcard::Error) -> Told {
    Told::Failed(format!("what init told cannot be read: {error}"))
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

    #[test]
    fn a_long_reason_is_cut() {
        let outcome = Outcome::new().unwrap();
        outcome.failed(&"ä".repeat(LONGEST));
        let Told::Failed(text) = outcome.read() else { unreachable!() };
        assert_eq!(text, "ä".repeat(LONGEST_TEXT));
    }
}
