//! GetTree: a directory and everything below it, breadth first.
//!
//! A directory that occurs many times is sent once, so that a small number of blobs that
//! describe an exponentially large tree stays small.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use futures_util::Stream;
use kiln_protos::reapi::{Directory, GetTreeRequest};
use tonic::Status;

use super::status::{budget_status, store_status};
use super::wire::{Encoded, put_varint};
use crate::blob::SharedBlobStore;
use crate::budget::Charge;
use crate::counted;
use crate::digest::{Digest, DigestFunction};
use crate::error::StoreError;
use crate::tree::validate_directory;

/// Most different directories in one tree.
pub const MAX_TREE_DIRECTORIES: usize = 100_000;
/// Largest encoded `Directory` taken, in bytes.
pub const MAX_DIRECTORY: u64 = 16 << 20;
/// Directories in one response unless the client asks for fewer.
const MAX_PAGE: usize = 1000;
/// A page ends when its directories reach this many bytes.
const PAGE_BYTES: usize = 1 << 20;
/// Directories read at a time.
const READ_AHEAD: usize = 8;
/// Most bytes of them, where there is more than one.
const READ_AHEAD_BYTES: u64 = 2 << 20;
/// Tags of `GetTreeResponse`.
const DIRECTORIES: u8 = 0x0a;
const NEXT_PAGE_TOKEN: u8 = 0x12;

/// A walk in progress. Its order depends on nothing but content: the number of directories
/// passed is a page token.
pub struct Walk {
    blobs: SharedBlobStore,
    function: DigestFunction,
    seen: HashSet<Digest>,
    queue: VecDeque<Digest>,
    /// Read and not yet sent, with the number of directories passed before it.
    ready: VecDeque<(usize, Bytes)>,
    /// Directories taken from the queue, sent or not.
    passed: usize,
    skip: usize,
    page_size: usize,
    done: bool,
    /// Charged for the largest group of directories that was held at a time.
    charge: Charge,
}

impl Walk {
    /// Errors: `NOT_FOUND` when the root is absent.
    pub async fn start(
        blobs: &SharedBlobStore,
        root: Digest,
        request: &GetTreeRequest,
        charge: Charge,
    ) -> Result<Self, Status> {
        let mut walk = Self {
            blobs: blobs.clone(),
            function: root.function,
            seen: HashSet::from([root]),
            queue: VecDeque::new(),
            ready: VecDeque::new(),
            passed: 0,
            skip: parse_token(&request.page_token)?,
            page_size: page_size(request.page_size)?,
            done: false,
            charge,
        };
        walk.charge_for(root.size).await?;
        let data = walk
            .read(&root)
            .await?
            .ok_or_else(|| store_status("root_digest", &StoreError::NotFound(root)))?;
        walk.take(&root, Some(data))?;
        Ok(walk)
    }

    /// One response each.
    pub fn pages(self) -> impl Stream<Item = Result<Encoded, Status>> + Send {
        futures_util::stream::try_unfold(self, |mut walk| async move {
            Ok(walk.next_page().await?.map(|page| (page, walk)))
        })
    }

    async fn next_page(&mut self) -> Result<Option<Encoded>, Status> {
        if self.done {
            return Ok(None);
        }
        let mut page = Page::default();
        loop {
            while let Some((_, directory)) = self.ready.pop_front() {
                page.push(&directory);
                if page.count == self.page_size || page.data.len() >= PAGE_BYTES {
                    break;
                }
            }
            let full = page.count == self.page_size || page.data.len() >= PAGE_BYTES;
            if full || !self.read_more().await? {
                break;
            }
        }
        self.done = self.ready.is_empty() && self.queue.is_empty();
        let next = self.ready.front().map_or(self.passed, |(before, _)| *before);
        let token = (!self.done).then(|| next.to_string());
        Ok(Some(page.finish(token)))
    }

    /// `false`: there is nothing more to read.
    async fn read_more(&mut self) -> Result<bool, Status> {
        let mut bytes = 0;
        let ahead = self.queue.iter().take(READ_AHEAD).take_while(|digest| {
            bytes += digest.size;
            bytes <= READ_AHEAD_BYTES
        });
        // One at least, however large.
        let count = ahead.count().max(1).min(self.queue.len());
        let batch: Vec<Digest> = self.queue.drain(..count).collect();
        self.charge_for(batch.iter().map(|digest| digest.size).sum()).await?;
        let reads = batch.iter().map(|digest| self.read(digest));
        let read = futures_util::future::try_join_all(reads).await?;
        for (digest, data) in batch.iter().zip(read) {
            self.take(digest, data)?;
        }
        Ok(count > 0)
    }

    /// Charges for directories of `bytes` bytes in all: as they came, decoded (one at a time), and in a
    /// page.
    async fn charge_for(&mut self, bytes: u64) -> Result<(), Status> {
        let bytes = bytes.min(MAX_DIRECTORY + READ_AHEAD_BYTES) * 4;
        self.charge.grow_to(bytes).await.map_err(|error| budget_status(&error))
    }

    /// `None`: absent. The specification has the server leave out what is missing.
    async fn read(&self, digest: &Digest) -> Result<Option<Bytes>, Status> {
        let refuse = |error: StoreError| store_status(&format!("directory {digest}"), &error);
        if digest.size > MAX_DIRECTORY {
            return Err(refuse(StoreError::TooLarge { size: digest.size, limit: MAX_DIRECTORY }));
        }
        let blob = match self.blobs.read(digest, 0, None).await {
            Ok(blob) => blob,
            Err(StoreError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(refuse(error)),
        };
        blob.collect(MAX_DIRECTORY).await.map(Some).map_err(refuse)
    }

    fn take(&mut self, digest: &Digest, data: Option<Bytes>) -> Result<(), Status> {
        self.passed += 1;
        let Some(data) = data else { return Ok(()) };
        let invalid = |error: String| {
            Status::invalid_argument(format!("root_digest: directory {digest} below it: {error}"))
        };
        let directory: Directory =
            counted::decode(data.clone()).map_err(|error| invalid(error.to_string()))?;
        validate_directory(&directory).map_err(|error| invalid(error.to_string()))?;
        for child in directory.directories.iter().filter_map(|child| child.digest.as_ref()) {
            let child = Digest::from_wire(child, self.function)
                .map_err(|error| invalid(error.to_string()))?;
            if self.seen.insert(child) {
                self.queue.push_back(child);
            }
        }
        if self.seen.len() > MAX_TREE_DIRECTORIES {
            return Err(Status::resource_exhausted(format!(
                "root_digest: the tree has more than {MAX_TREE_DIRECTORIES} different directories"
            )));
        }
        if self.passed > self.skip {
            self.ready.push_back((self.passed - 1, data));
        }
        Ok(())
    }
}

/// A `GetTreeResponse` made of directories that are encoded already.
#[derive(Default)]
struct Page {
    data: Vec<u8>,
    count: usize,
}

impl Page {
    fn push(&mut self, directory: &Bytes) {
        self.data.push(DIRECTORIES);
        put_varint(&mut self.data, directory.len() as u64);
        self.data.extend_from_slice(directory);
        self.count += 1;
    }

    fn finish(mut self, token: Option<String>) -> Encoded {
        if let Some(token) = token {
            self.data.push(NEXT_PAGE_TOKEN);
            put_varint(&mut self.data, token.len() as u64);
            self.data.extend_from_slice(token.as_bytes());
        }
        Encoded::whole(self.data.into())
    }
}

fn parse_token(token: &str) -> Result<usize, Status> {
    if token.is_empty() {
        return Ok(0);
    }
    token.parse().map_err(|_| {
        Status::invalid_argument(format!("page_token: {token:?} did not come from this server"))
    })
}

fn page_size(wanted: i32) -> Result<usize, Status> {
    match usize::try_from(wanted) {
        Ok(0) => Ok(MAX_PAGE),
        Ok(wanted) => Ok(wanted.min(MAX_PAGE)),
        Err(_) => Err(Status::invalid_argument(format!("page_size: {wanted} is negative"))),
    }
}
