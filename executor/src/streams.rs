//! stdout and stderr of a running action: kept, and passed on live.

use std::io;
use std::path::Path;

use bytes::Bytes;
use kiln_cas::DigestFunction;
use tokio::sync::mpsc;

use crate::report::{MAX_LIVE_BYTES, Reporter};
use crate::response;
use crate::sandbox::OutputStream;
use crate::spool::{Spool, Spooled};

/// How many chunks of output may wait to be kept before the action has to wait.
pub const CHUNKS_WAITING: usize = 16;
/// Bytes that are sent at a time to a session that begins while the action runs.
const AGAIN_BYTES: usize = 256 << 10;

/// The stdout and stderr of an action, as far as it has printed them.
pub struct Streams {
    stdout: Stream,
    stderr: Stream,
    reporter: Reporter,
}

impl Streams {
    /// A sentence on what was left out of the log; `None`: everything was kept.
    pub fn left_out(&self) -> Option<String> {
        let left_out = self.stdout.spool.left_out() + self.stderr.spool.left_out();
        (left_out > 0).then(|| {
            format!(
                "the action printed more than is kept: {left_out} bytes are left out in the middle of its \
                 log, and the result is not cached; print less, or raise workers.output"
            )
        })
    }

    /// Adds a line to stderr.
    pub async fn note(&mut self, reason: &str) -> io::Result<()> {
        let line_feed = if self.stderr.ends_line { "" } else { "\n" };
        let text = format!("{line_feed}{}", response::note(reason));
        self.stderr.take(text.into(), &self.reporter).await
    }

    /// Ends both streams and answers what is kept of stdout and of stderr, in this order.
    pub async fn finish(self) -> io::Result<[Spooled; 2]> {
        Ok([self.stdout.spool.finish().await?, self.stderr.spool.finish().await?])
    }
}

/// Keeps all output until the sender is gone, and goes on when it cannot be kept: then the first error
/// is returned at the end. `limit`: bytes kept of each.
pub async fn keep(
    mut chunks: mpsc::Receiver<(OutputStream, Bytes)>,
    directory: &Path,
    function: DigestFunction,
    limit: Option<u64>,
    reporter: &Reporter,
) -> io::Result<Streams> {
    let mut reporter = reporter.clone();
    let spool = || Spool::new(directory, function, limit);
    let stream = |kind| Stream { kind, spool: spool(), said: 0, ends_line: true };
    let mut streams = [OutputStream::Stdout, OutputStream::Stderr].map(stream);
    let mut kept = Ok(());
    loop {
        tokio::select! {
            chunk = chunks.recv() => {
                let Some((kind, data)) = chunk else { break };
                let [stdout, stderr] = &mut streams;
                let stream = if kind == OutputStream::Stdout { stdout } else { stderr };
                kept = kept.and(stream.take(data, &reporter).await);
            }
            () = reporter.session_changed(), if kept.is_ok() => {
                for stream in &mut streams {
                    stream.said = 0;
                    kept = kept.and(stream.catch_up(&reporter).await);
                }
            }
        }
    }
    kept?;
    let [stdout, stderr] = streams;
    Ok(Streams { stdout, stderr, reporter })
}

struct Stream {
    kind: OutputStream,
    spool: Spool,
    /// How many bytes of the stream were sent to the open session.
    said: u64,
    ends_line: bool,
}

impl Stream {
    async fn take(&mut self, data: Bytes, reporter: &Reporter) -> io::Result<()> {
        let offset = self.spool.size();
        self.ends_line = data.last().map_or(self.ends_line, |byte| *byte == b'\n');
        self.spool.append(&data).await?;
        if self.said == offset && reporter.output(self.kind, offset, data).await {
            self.said = self.spool.size();
        }
        Ok(())
    }

    /// A session that has just begun may be with a server that knows nothing of this action yet.
    async fn catch_up(&mut self, reporter: &Reporter) -> io::Result<()> {
        while self.said < self.spool.size().min(MAX_LIVE_BYTES) {
            let data = self.spool.read(self.said, AGAIN_BYTES).await?;
            let length = data.len() as u64;
            if length == 0 || !reporter.output(self.kind, self.said, data).await {
                return Ok(());
            }
            self.said += length;
        }
        self.said = self.spool.size();
        Ok(())
    }
}
