//! stdout and stderr of a running action: kept whole, and passed on live.

use std::io;
use std::path::Path;

use bytes::Bytes;
use kiln_cas::DigestFunction;
use tokio::sync::mpsc;

use crate::report::Reporter;
use crate::sandbox::OutputStream;
use crate::spool::{Spool, Spooled};

/// Chunks of output that wait to be kept; then the action waits.
pub const CHUNKS_WAITING: usize = 16;

pub struct Streams {
    pub stdout: Spooled,
    pub stderr: Spooled,
}

/// Takes everything until the sender is gone, even when it cannot be kept: then the first error
/// is returned at the end.
pub async fn keep(
    mut chunks: mpsc::Receiver<(OutputStream, Bytes)>,
    directory: &Path,
    function: DigestFunction,
    reporter: &Reporter,
) -> io::Result<Streams> {
    let mut stdout = Spool::new(directory, function);
    let mut stderr = Spool::new(directory, function);
    let mut kept = Ok(());
    while let Some((stream, data)) = chunks.recv().await {
        let spool = match stream {
            OutputStream::Stdout => &mut stdout,
            OutputStream::Stderr => &mut stderr,
        };
        let offset = spool.size();
        if kept.is_ok() {
            kept = spool.append(&data).await;
        }
        reporter.output(stream, offset, data).await;
    }
    kept?;
    Ok(Streams { stdout: stdout.finish().await?, stderr: stderr.finish().await? })
}
