//! What goes with a lease: the blobs that its worker reads first, where the frontend that took the
//! action in has them at hand. A worker that listens to another frontend need not have them read
//! from Redis there.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use kiln_cas::counted;
use kiln_cas::{BlobStore, Digest};
use kiln_protos::{queue, reapi};
use prost::Message;

use crate::job::Job;

/// Most bytes that go with one lease, and most blobs that are looked for.
const BYTES: u64 = 16 << 10;
const BLOBS: usize = 64;

/// The action, its command, its directories from the top and then their files, as far as they are
/// at hand and small. Encoded `kiln.queue.v1.Carried`; empty: there are none.
pub async fn gather(blobs: &dyn BlobStore, job: &Job) -> Vec<u8> {
    let mut gathered = Gathered { blobs, room: BYTES, looked: HashSet::new(), found: Vec::new() };
    gathered.add(&job.key.action).await;
    gathered.add(&job.facts.command).await;
    gathered.add_tree(job.facts.input_root).await;
    if gathered.found.is_empty() {
        return Vec::new();
    }
    queue::Carried { blobs: gathered.found }.encode_to_vec()
}

/// The blobs of an encoded `kiln.queue.v1.Carried`; empty where it cannot be read.
pub fn decode(bytes: &Bytes) -> Vec<Bytes> {
    queue::Carried::decode(bytes.clone()).unwrap_or_default().blobs
}

struct Gathered<'a> {
    blobs: &'a dyn BlobStore,
    room: u64,
    looked: HashSet<Digest>,
    found: Vec<Bytes>,
}

impl Gathered<'_> {
    async fn add(&mut self, digest: &Digest) -> Option<Bytes> {
        if self.looked.len() >= BLOBS || digest.is_empty_blob() || !self.looked.insert(*digest) {
            return None;
        }
        let data = self.blobs.at_hand(digest, self.room).await?;
        self.room = self.room.saturating_sub(data.len() as u64);
        self.found.push(data.clone());
        Some(data)
    }

    async fn add_tree(&mut self, root: Digest) {
        let (mut directories, mut files) = (VecDeque::from([root]), Vec::new());
        while let Some(digest) = directories.pop_front() {
            let Some(data) = self.add(&digest).await else { continue };
            // What is no Directory the worker will say.
            let Ok(directory) = counted::decode::<reapi::Directory>(data) else { continue };
            let parse = |wire: Option<&reapi::Digest>| Digest::from_wire(wire?, root.function).ok();
            directories
                .extend(directory.directories.iter().filter_map(|d| parse(d.digest.as_ref())));
            files.extend(directory.files.iter().filter_map(|file| parse(file.digest.as_ref())));
        }
        for file in files {
            self.add(&file).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kiln_cas::stores::MemoryBlobStore;
    use kiln_cas::{ActionKey, DigestFunction};

    use super::*;
    use crate::engine::redis::payload::decode_request;
    use crate::job::{ActionFacts, LeaseMessages};
    use crate::queue::platform::Requirement;

    async fn put(store: &MemoryBlobStore, data: Vec<u8>) -> Digest {
        let digest = DigestFunction::Sha256.digest(&data);
        store.write(&digest, data.into()).await.unwrap();
        digest
    }

    fn file(name: &str, digest: &Digest) -> reapi::FileNode {
        let digest = Some(digest.to_wire());
        reapi::FileNode { name: name.to_owned(), digest, ..Default::default() }
    }

    fn job(action: Digest, command: Digest, input_root: Digest) -> Job {
        Job {
            key: ActionKey { instance: "".into(), action },
            facts: ActionFacts {
                command,
                input_root,
                platform: Requirement::new([]),
                timeout_ms: None,
                do_not_cache: false,
            },
            priority: 0,
            expected_ms: None,
            request: Arc::new(decode_request(&Bytes::new()).unwrap()),
            messages: LeaseMessages::default(),
        }
    }

    #[tokio::test]
    async fn what_a_worker_reads_first_is_carried_within_the_bound() {
        let store = MemoryBlobStore::default();
        let small = put(&store, b"small".to_vec()).await;
        let large = put(&store, vec![7; BYTES as usize]).await;
        let absent = DigestFunction::Sha256.digest(b"absent");
        let child = reapi::Directory { files: vec![file("small", &small)], ..Default::default() };
        let child = put(&store, child.encode_to_vec()).await;
        let node = |name: &str, digest: &Digest| reapi::DirectoryNode {
            name: name.to_owned(),
            digest: Some(digest.to_wire()),
        };
        let root = reapi::Directory {
            files: vec![file("absent", &absent), file("large", &large)],
            directories: vec![node("child", &child), node("same", &child)],
            ..Default::default()
        };
        let root = put(&store, root.encode_to_vec()).await;
        let action = put(&store, b"action".to_vec()).await;
        let command = put(&store, b"command".to_vec()).await;
        let carried = gather(&store, &job(action, command, root)).await;
        let digests: Vec<_> = decode(&carried.into())
            .iter()
            .map(|data| DigestFunction::Sha256.digest(data))
            .collect();
        assert_eq!(digests, [action, command, root, child, small]);
        let nothing = gather(&store, &job(absent, absent, absent)).await;
        assert!(nothing.is_empty());
    }
}
