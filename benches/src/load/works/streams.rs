//! ByteStream reads and writes.

use std::sync::Arc;

use kiln_protos::bytestream;

use super::names::{self, READ, WRITE};
use crate::load::burst::Operation;
use crate::load::channel::{Channel, Rpc};
use crate::load::error::CallError;
use crate::load::prepare::{check_committed, writes};
use crate::load::samples::Samples;
use crate::load::target::Numbers;
use crate::load::wire::frame;
use crate::sample::{Key, LARGE, Pattern, SMALL};

/// One in this many small reads is compared byte for byte; the next constant says it of large
/// reads.
const SMALL_SAMPLE: u64 = 64;
const LARGE_SAMPLE: u64 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    Small,
    Large,
}

impl Size {
    pub fn bytes(self) -> usize {
        match self {
            Self::Small => SMALL,
            Self::Large => LARGE,
        }
    }

    pub fn pattern(self, samples: &Samples) -> &Pattern {
        match self {
            Self::Small => &samples.small,
            Self::Large => samples.large(),
        }
    }
}

/// Writes a blob that the target has never seen.
pub struct Write {
    pub channel: Channel,
    pub rpc: Rpc,
    pub samples: Arc<Samples>,
    pub instance: Arc<str>,
    pub numbers: Numbers,
    pub size: Size,
    pub chunk: usize,
}

impl Write {
    pub fn rpc(channel: &Channel) -> Result<Rpc, CallError> {
        channel.rpc(WRITE)
    }
}

impl Operation for Write {
    async fn once(&mut self) -> Result<u64, CallError> {
        let pattern = self.size.pattern(&self.samples);
        let number = self.numbers.next();
        let key = Key { run: self.samples.run, index: number };
        let name = names::upload(&self.instance, self.samples.run, number, &pattern.digest(key));
        let messages = writes(pattern, key, &name, self.chunk);
        let reply = self.channel.client_stream(&self.rpc, messages).await?;
        check_committed(reply, self.size.bytes())?;
        Ok(self.size.bytes() as u64)
    }
}

/// Reads one of the prepared blobs.
pub struct Read {
    pub channel: Channel,
    pub rpc: Rpc,
    pub samples: Arc<Samples>,
    pub instance: Arc<str>,
    pub numbers: Numbers,
    pub size: Size,
    /// How many blobs of the size there are to choose from.
    pub blobs: u64,
}

impl Read {
    pub fn rpc(channel: &Channel) -> Result<Rpc, CallError> {
        channel.rpc(READ)
    }

    async fn read(&mut self, key: Key, sink: impl FnMut(&[u8]) + Send) -> Result<u64, CallError> {
        let digest = self.size.pattern(&self.samples).digest(key);
        let request = frame(&bytestream::ReadRequest {
            resource_name: names::download(&self.instance, &digest),
            ..Default::default()
        });
        self.channel.read(&self.rpc, request, sink).await
    }

    /// Reads the first blob, the one that a floor answers with, and compares it.
    async fn read_and_compare(&mut self) -> Result<u64, CallError> {
        let expected = self.size.pattern(&self.samples).pieces(Key::FIRST, 1 << 20);
        let mut pieces = expected.iter();
        let mut piece: &[u8] = &[];
        let mut same = true;
        let total = self
            .read(Key::FIRST, |mut data| {
                while same && !data.is_empty() {
                    if piece.is_empty() {
                        piece = pieces.next().map_or(&[], |next| &next[..]);
                    }
                    let here = piece.len().min(data.len());
                    same = here > 0 && piece[..here] == data[..here];
                    piece = &piece[here..];
                    data = &data[here..];
                }
            })
            .await?;
        if same { Ok(total) } else { Err(CallError::wrong("a blob was read with other bytes")) }
    }
}

impl Operation for Read {
    async fn once(&mut self) -> Result<u64, CallError> {
        let number = self.numbers.next();
        let sample = if self.size == Size::Small { SMALL_SAMPLE } else { LARGE_SAMPLE };
        let total = if number.is_multiple_of(sample) {
            self.read_and_compare().await?
        } else {
            let key = Key { run: 0, index: number % self.blobs };
            self.read(key, |_| ()).await?
        };
        if total == self.size.bytes() as u64 {
            return Ok(total);
        }
        Err(CallError::wrong(format!("{total} bytes read of {}", self.size.bytes())))
    }
}
