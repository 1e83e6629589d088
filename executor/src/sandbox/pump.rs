//! Moves an action's output from its pipes to the receiver, with back-pressure and a limit.

use std::future::pending;
use std::io;

use bytes::{Bytes, BytesMut};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::{FLOOD, OutputStream};

/// Most bytes that one read takes: a pipe's usual capacity.
const CHUNK: usize = 64 << 10;
/// Most bytes that one read takes when the action has ended.
const REST: usize = 16 << 10;
/// Chunks of fewer bytes are copied out of the read buffer, so that they do not keep all of it.
const COPIED: usize = CHUNK / 4;

pub(super) struct Pump {
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    buffer: BytesMut,
    /// A chunk that was read and waits for room in `output`.
    waiting: Option<(OutputStream, Bytes)>,
    /// `None` once nobody listens: then output is read and thrown away, so the action can go on.
    output: Option<mpsc::Sender<(OutputStream, Bytes)>>,
    /// Most bytes of both streams together; `None`: no limit.
    limit: Option<u64>,
    seen: u64,
}

impl Pump {
    pub(super) fn new(
        stdout: pipe::Receiver,
        stderr: pipe::Receiver,
        output: mpsc::Sender<(OutputStream, Bytes)>,
        kept: Option<u64>,
    ) -> Self {
        let limit = kept.map(|kept| kept.saturating_mul(FLOOD));
        Self {
            stdout: Some(stdout),
            stderr: Some(stderr),
            buffer: BytesMut::new(),
            waiting: None,
            output: Some(output),
            limit,
            seen: 0,
        }
    }

    /// Says which limit was exceeded.
    pub(super) fn exceeded(&self) -> Option<String> {
        let limit = self.limit.filter(|limit| self.seen > *limit)?;
        Some(format!(
            "output: it printed more than {limit} bytes on stdout and stderr; print less, or raise \
             workers.output, of which this is {FLOOD} times"
        ))
    }

    /// Moves one chunk. Waits for ever when there is nothing left to move. May be given up at any point.
    pub(super) async fn step(&mut self) {
        if self.waiting.is_some() {
            self.deliver().await;
            return;
        }
        let stream = tokio::select! {
            () = readable(self.stdout.as_ref()) => OutputStream::Stdout,
            () = readable(self.stderr.as_ref()) => OutputStream::Stderr,
        };
        self.read(stream, |pipe, buffer| {
            buffer.reserve(CHUNK);
            pipe.try_read_buf(buffer)
        });
    }

    /// Moves what is left when all writers are dead. A descriptor that an action has handed out of
    /// its namespaces cannot hold this up: an empty pipe counts as finished.
    pub(super) async fn drain(&mut self) {
        loop {
            self.deliver().await;
            let moved = self.read(OutputStream::Stdout, read_now)
                || self.read(OutputStream::Stderr, read_now);
            if !moved {
                return;
            }
        }
    }

    async fn deliver(&mut self) {
        let (Some(output), true) = (&self.output, self.waiting.is_some()) else { return };
        let Ok(permit) = output.reserve().await else {
            self.waiting = None;
            self.output = None;
            return;
        };
        if let Some(chunk) = self.waiting.take() {
            permit.send(chunk);
        }
    }

    /// Reads once without waiting; true if something came.
    fn read(
        &mut self,
        stream: OutputStream,
        read: impl FnOnce(&pipe::Receiver, &mut BytesMut) -> io::Result<usize>,
    ) -> bool {
        let slot = match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        };
        let Some(pipe) = slot else { return false };
        match read(pipe, &mut self.buffer) {
            Ok(0) => *slot = None,
            Ok(count) => {
                self.accept(stream, count);
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => *slot = None,
        }
        false
    }

    fn accept(&mut self, stream: OutputStream, count: usize) {
        let mut chunk = if count < COPIED {
            // A small chunk of its own does not keep a whole buffer alive.
            let copy = Bytes::copy_from_slice(&self.buffer);
            self.buffer.clear();
            copy
        } else {
            self.buffer.split().freeze()
        };
        let room = self.limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.seen));
        self.seen = self.seen.saturating_add(count as u64);
        chunk.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        if self.output.is_some() && !chunk.is_empty() {
            self.waiting = Some((stream, chunk));
        }
    }
}

/// Asks the kernel: the runtime's own reads see only what it has been told of so far, and the report
/// of the action's end may have been faster.
pub(super) fn read_now(pipe: &pipe::Receiver, buffer: &mut BytesMut) -> io::Result<usize> {
    let mut chunk = [0; REST];
    let count = nix::unistd::read(pipe, &mut chunk)?;
    buffer.extend_from_slice(&chunk[..count]);
    Ok(count)
}

async fn readable(pipe: Option<&pipe::Receiver>) {
    match pipe {
        Some(pipe) if pipe.readable().await.is_ok() => {}
        _ => pending().await,
    }
}
