//! An OCI image layout: a directory with `blobs/sha256/HEX` (image specification 1.1).

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use kiln_cas::Digest;

use super::blob::Sink;
use super::problem::Problem;

const CHUNK: usize = 256 << 10;

/// Reads a small blob whole. The caller checks its bytes.
pub fn read(layout: &Path, hex: &str, limit: u64) -> Result<Vec<u8>, Problem> {
    let (mut file, path) = open(layout, hex)?;
    let mut data = Vec::new();
    let failed = |error| Problem::local(format_args!("read {}", path.display()), error);
    file.by_ref().take(limit + 1).read_to_end(&mut data).map_err(failed)?;
    if data.len() as u64 > limit {
        return Err(Problem::Final(format!("{} has more than {limit} bytes", path.display())));
    }
    Ok(data)
}

/// Copies a blob into `sink`, which checks it.
pub fn copy(layout: &Path, digest: &Digest, sink: &mut Sink) -> Result<(), Problem> {
    let (mut file, path) = open(layout, &digest.hex())?;
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => sink.write(&buffer[..count])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(Problem::local(format_args!("read {}", path.display()), error));
            }
        }
    }
    match sink.finish() {
        // No network lies between: a file that is too short stays so.
        Err(Problem::Passing { text, .. }) => Err(Problem::Final(text)),
        other => other,
    }
}

fn open(layout: &Path, hex: &str) -> Result<(File, PathBuf), Problem> {
    let path = layout.join("blobs/sha256").join(hex);
    let opened = File::options()
        .read(true)
        // A FIFO in its place must not make anybody wait.
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW)
        .open(&path)
        .and_then(|file| Ok((file.metadata()?.is_file(), file)));
    match opened {
        Ok((true, file)) => Ok((file, path)),
        Ok((false, _)) => Err(Problem::Final(format!("{} is not a file", path.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Problem::Final(format!(
            "this worker has no {}: check path and digest; the layout has to be on every worker \
             that offers container images",
            path.display()
        ))),
        Err(error) => Err(Problem::local(format_args!("open {}", path.display()), error)),
    }
}
