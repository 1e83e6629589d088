//! The digest of a file that an action left.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use kiln_cas::{Digest, DigestFunction};

use super::holes::{Piece, piece};
use super::{OutputError, Patience};

/// Bytes hashed at a time.
const BUFFER_BYTES: usize = 256 << 10;
static ZEROS: [u8; BUFFER_BYTES] = [0; BUFFER_BYTES];

/// Why a file was not hashed.
#[derive(Debug)]
pub(super) enum Stopped {
    Io(std::io::Error),
    By(OutputError),
}

/// Reads no further than one byte above `size`: a file that grows all the time would never end.
pub(super) fn hash(
    file: &File,
    size: u64,
    function: DigestFunction,
    patience: &Patience,
) -> Result<Digest, Stopped> {
    let mut hasher = function.hasher();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut at = 0;
    while at < size {
        let (length, is_hole) = match piece(file, at, size).map_err(Stopped::Io)? {
            Piece::Hole(length) => (length, true),
            Piece::Data(length) => (length, false),
        };
        let end = at + length;
        while at < end {
            patience.check().map_err(Stopped::By)?;
            let most = (end - at).min(BUFFER_BYTES as u64) as usize;
            let read = if is_hole {
                hasher.update(&ZEROS[..most]);
                most
            } else {
                let read = file.read_at(&mut buffer[..most], at).map_err(Stopped::Io)?;
                hasher.update(&buffer[..read]);
                read
            };
            if read == 0 {
                return check_size(at, size).map(|()| hasher.finish()).map_err(Stopped::Io);
            }
            at += read as u64;
        }
    }
    let more = file.read_at(&mut buffer[..1], size).map_err(Stopped::Io)?;
    check_size(size + more as u64, size).map_err(Stopped::Io)?;
    // Behind its end a file is as if it had a hole there.
    let metadata = file.metadata().map_err(Stopped::Io)?;
    if metadata.is_file() {
        check_size(metadata.len(), size).map_err(Stopped::Io)?;
    }
    Ok(hasher.finish())
}

/// Fails where the file has changed: the action is over, and nobody else writes its files.
pub(super) fn check_size(read: u64, size: u64) -> std::io::Result<()> {
    if read == size {
        return Ok(());
    }
    let how = if read > size { "has grown" } else { "was cut" };
    Err(std::io::Error::other(format!("it {how} while it was read, from {size} bytes")))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tokio_util::sync::CancellationToken;

    use super::*;

    #[test]
    fn a_file_that_changes_while_it_is_read_is_no_output() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, vec![7; 2 * BUFFER_BYTES]).unwrap();
        let patience = Patience { cancel: CancellationToken::new(), until: later() };
        let hash = |file: &File, size| hash(file, size, DigestFunction::Sha256, &patience);
        let file = File::open(&path).unwrap();
        let fault = |stopped| match stopped {
            Stopped::Io(error) => error.to_string(),
            Stopped::By(error) => panic!("{error}"),
        };
        let size = 2 * BUFFER_BYTES as u64;
        assert_eq!(hash(&file, size).unwrap().size, size);
        assert!(fault(hash(&file, size - 1).unwrap_err()).contains("has grown"));
        assert!(fault(hash(&file, size + 1).unwrap_err()).contains("was cut"));
        // This file never ends, so the reader has to stop at the expected size.
        let error = fault(hash(&File::open("/dev/zero").unwrap(), size).unwrap_err());
        assert!(error.contains("has grown"), "{error}");
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn holes_are_hashed_as_zeros_until_nobody_waits() {
        let file = tempfile::tempfile().unwrap();
        let size = 9 * BUFFER_BYTES as u64 + 5;
        file.set_len(size).unwrap();
        file.write_all_at(b"data", 4 * BUFFER_BYTES as u64).unwrap();
        let mut whole = vec![0; size as usize];
        whole[4 * BUFFER_BYTES..][..4].copy_from_slice(b"data");
        let function = DigestFunction::Blake3;
        let mut patience = Patience { cancel: CancellationToken::new(), until: later() };
        assert_eq!(hash(&file, size, function, &patience).unwrap(), function.digest(&whole));
        patience.until = Instant::now();
        let late = hash(&file, size, function, &patience);
        assert!(matches!(late, Err(Stopped::By(OutputError::TooMuch(_)))));
        patience.cancel.cancel();
        // More than could be hashed in a year.
        file.set_len(1 << 40).unwrap();
        let cancelled = hash(&file, 1 << 40, function, &patience);
        assert!(matches!(cancelled, Err(Stopped::By(OutputError::Cancelled))));
    }
}
