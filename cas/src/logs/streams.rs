//! Logs as services read and write them, wherever they are.

use std::sync::Arc;

use bytes::Bytes;

use super::local::LocalLogs;
use super::log::{Log, Next};
use super::relay::{Following, Relay};
use crate::blob::BlobStream;
use crate::error::StoreError;
use crate::redis::{Redis, RedisError};

/// The logs of this process, and in a fleet those of other frontends. Clones share them.
#[derive(Clone, Default)]
pub struct LogStreams {
    pub(super) local: LocalLogs,
    /// `None`: there are no other frontends.
    relay: Option<Arc<Relay>>,
}

/// Names of the logs of one run: standard output and error.
pub type LogNames = Arc<[String; 2]>;

/// The logs of a run that a worker reports to this frontend. What is not finished when this is
/// dropped goes on at another frontend, or later.
pub struct OpenLogs {
    logs: LocalLogs,
    names: LogNames,
    /// Whether there are other frontends.
    elsewhere: bool,
}

/// Where the log of a reader is: at this frontend or at another one.
enum Source {
    Here(Arc<Log>),
    There(Box<Following>),
}

impl LogStreams {
    /// Logs that are read at all frontends that share `redis`. Call within a tokio runtime: a
    /// task lives there as long as these.
    pub async fn join(redis: Redis) -> Result<Self, RedisError> {
        let mut logs = Self::default();
        logs.relay = Some(Relay::start(redis, logs.local.clone()).await?);
        Ok(logs)
    }

    /// Opens the logs of a run.
    pub fn open(&self, names: LogNames) -> OpenLogs {
        names.iter().for_each(|name| self.local.create(name));
        OpenLogs { logs: self.local.clone(), names, elsewhere: self.relay.is_some() }
    }

    /// Opens a stream; an open one of the same name is kept.
    pub fn create(&self, name: &str) {
        self.local.create(name);
    }

    /// Appends `data`, the first byte of which is at `offset` of the stream: bytes that are
    /// there already (a repeated message) are dropped. Unknown names and gaps are ignored.
    pub fn append(&self, name: &str, offset: u64, data: &Bytes) {
        self.local.append(name, offset, data);
    }

    /// No more will come: readers see the end.
    pub fn finish(&self, name: &str) {
        self.local.finish(name);
    }

    /// Size so far and whether it is finished. `None`: unknown name.
    pub fn status(&self, name: &str) -> Option<(u64, bool)> {
        self.local.status(name)
    }

    /// Bytes from `offset` on; waits for more until the stream is finished. `None`: unknown
    /// name. Errors: `Unavailable`, when other frontends cannot be asked.
    pub async fn read(&self, name: &str, offset: u64) -> Result<Option<BlobStream>, StoreError> {
        let source = match (self.local.find(name), &self.relay) {
            (Some(log), _) => Source::Here(log),
            (None, None) => return Ok(None),
            (None, Some(relay)) => match relay.follow(name, offset).await? {
                Some(following) => Source::There(Box::new(following)),
                None => return Ok(None),
            },
        };
        let reader = Reader { source, offset, name: name.to_owned(), relay: self.relay.clone() };
        Ok(Some(Box::pin(futures_util::stream::try_unfold(reader, Reader::next))))
    }
}

impl OpenLogs {
    /// Bytes of standard output, or error, from `offset` on.
    pub fn append(&self, stderr: bool, offset: u64, data: &Bytes) {
        self.logs.append(&self.names[usize::from(stderr)], offset, data);
    }

    /// No more will come.
    pub fn finish(&self) {
        self.names.iter().for_each(|name| self.logs.finish(name));
    }
}

impl Drop for OpenLogs {
    fn drop(&mut self) {
        // Where there is no other frontend, a log goes on here.
        if self.elsewhere {
            self.names.iter().for_each(|name| self.logs.leave(name));
        }
    }
}

struct Reader {
    source: Source,
    offset: u64,
    name: String,
    relay: Option<Arc<Relay>>,
}

impl Reader {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, StoreError> {
        loop {
            let chunk = match &mut self.source {
                Source::There(following) => following.next().await?,
                Source::Here(log) => match log.next(self.offset).await {
                    Next::Chunk(chunk) => Some(chunk),
                    Next::End => None,
                    Next::Moved => {
                        let Some(relay) = &self.relay else { return Ok(None) };
                        let following = relay.ask(&self.name, self.offset).await?;
                        self.source = Source::There(Box::new(following));
                        continue;
                    }
                },
            };
            let Some(chunk) = chunk else { return Ok(None) };
            self.offset += chunk.len() as u64;
            return Ok(Some((chunk, self)));
        }
    }
}
