//! A server's records and blobs, and events that one could hear.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kiln_cas::clock::Clock;
use kiln_cas::events::Events;
use kiln_cas::records::{Record, Records, RecordsError, SharedRecords, Version, Write};
use kiln_cas::stores::{MemoryBlobStore, MemoryRecords};
use kiln_cas::{Digest, DigestFunction, SharedBlobStore};
use kiln_protos::events::{self, Execution, Timeline, execution};
use kiln_protos::protobuf::Any;
use kiln_protos::reapi::{self, ActionResult};
use kiln_protos::worker::sandboxed::{Mechanism, Root};
use kiln_protos::worker::{SANDBOXED, Sandboxed};
use prost::Message as _;

use super::super::{ExecutionFigures, ExecutionParts, Executions, Invocation, aging};
use crate::executions::clock::day;

pub const DAY: i64 = 24 * 3600 * 1_000_000_000;
const START: i64 = 20_000 * DAY;

/// Records that refuse writes, from one of them on.
pub struct Faults {
    inner: MemoryRecords,
    /// Writes that are still taken.
    left: AtomicI64,
    /// What somebody else writes before the first read or write of a key that begins so.
    pub meanwhile: Mutex<Option<(&'static str, Vec<Write>)>>,
}

impl Faults {
    pub fn refuse(&self, refuse: bool) {
        self.refuse_after(if refuse { 0 } else { i64::MAX });
    }

    /// Takes so many writes, and no more: as if the server ended there.
    pub fn refuse_after(&self, writes: i64) {
        self.left.store(writes, Ordering::Relaxed);
    }

    async fn meet<'k>(&self, mut keys: impl Iterator<Item = &'k str>) {
        let writes = {
            let mut meanwhile = self.meanwhile.lock().unwrap();
            let begins = meanwhile.as_ref().map_or("", |(begins, _)| *begins);
            let meets = meanwhile.is_some() && keys.any(|it| it.starts_with(begins));
            meanwhile.take_if(|_| meets)
        };
        if let Some((_, writes)) = writes {
            self.inner.write(writes).await.unwrap();
        }
    }
}

#[async_trait]
impl Records for Faults {
    async fn get(&self, key: &str) -> Result<Option<Record>, RecordsError> {
        self.meet([key].into_iter()).await;
        self.inner.get(key).await
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Version>, RecordsError> {
        self.meet(writes.iter().map(|it| it.key.as_str())).await;
        if self.left.fetch_sub(1, Ordering::Relaxed) <= 0 {
            return Err(RecordsError::Unavailable("as the test has it".into()));
        }
        self.inner.write(writes).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Record>, RecordsError> {
        self.inner.list(prefix, after, reverse, limit).await
    }
}

pub struct Rig {
    pub events: Events,
    pub faults: Arc<Faults>,
    pub records: SharedRecords,
    pub blobs: SharedBlobStore,
    pub now: Arc<AtomicI64>,
    pub executions: Executions,
}

impl Rig {
    pub async fn start() -> Self {
        let faults = Arc::new(Faults {
            inner: MemoryRecords::default(),
            left: i64::MAX.into(),
            meanwhile: Mutex::default(),
        });
        let store = MemoryBlobStore::new(1 << 30, Duration::from_secs(3600), Clock::manual(1000));
        Self::over(faults, Arc::new(store), Arc::new(AtomicI64::new(START)))
    }

    fn over(faults: Arc<Faults>, blobs: SharedBlobStore, now: Arc<AtomicI64>) -> Self {
        let (events, records) = (Events::new(), faults.clone() as SharedRecords);
        let clock = now.clone();
        let executions = Executions::start(ExecutionParts {
            records: records.clone(),
            blobs: blobs.clone(),
            executions: events.subscribe(),
            clock: Arc::new(move || clock.load(Ordering::Relaxed)),
            keep: Duration::from_secs(10_000 * 24 * 3600),
        });
        Self { events, faults, records, blobs, now, executions }
    }

    /// Another frontend of the same fleet.
    pub fn beside(&self) -> Self {
        Self::over(self.faults.clone(), self.blobs.clone(), self.now.clone())
    }

    pub async fn invocation(&self, invocation: &str) -> Invocation {
        Invocation::read(&self.executions.store, "", invocation).await.unwrap()
    }

    pub async fn sweep(&self, days: i64) -> (u64, bool) {
        let before = self.now.load(Ordering::Relaxed) - days * DAY;
        aging::remove_old(&self.records, day(before), before).await.unwrap()
    }

    pub async fn until(&self, holds: impl Fn(ExecutionFigures) -> bool) {
        let waited = async {
            while !holds(self.executions.figures()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waited).await.expect("it never held");
    }

    pub async fn put(&self, message: &impl prost::Message) -> Digest {
        let bytes = message.encode_to_vec();
        let digest = DigestFunction::Sha256.digest(&bytes);
        self.blobs.write(&digest, bytes.into()).await.unwrap();
        digest
    }

    pub async fn directory(&self, files: &[(&str, &str)]) -> Digest {
        self.put(&directory(files)).await
    }

    pub async fn tree(&self, files: &[(&str, &str)]) -> Digest {
        self.put(&reapi::Tree { root: Some(directory(files)), children: Vec::new() }).await
    }
}

fn directory(files: &[(&str, &str)]) -> reapi::Directory {
    let file = |(name, text): &(&str, &str)| reapi::FileNode {
        name: (*name).to_owned(),
        digest: Some(content(text).to_wire()),
        ..Default::default()
    };
    reapi::Directory { files: files.iter().map(file).collect(), ..Default::default() }
}

pub fn content(text: &str) -> Digest {
    DigestFunction::Sha256.digest(text.as_bytes())
}

pub fn wire(digest: Digest) -> events::Digest {
    events::Digest { hash: digest.hex(), size_bytes: digest.size as i64 }
}

pub fn action(name: &str) -> events::Digest {
    wire(content(&format!("action {name}")))
}

/// An execution that a worker ran.
pub fn executed(invocation: &str, target: &str, outputs: &[(&str, &str)]) -> Execution {
    let output = |(path, text): &(&str, &str)| reapi::OutputFile {
        path: (*path).to_owned(),
        digest: Some(content(text).to_wire()),
        ..Default::default()
    };
    let told = Sandboxed {
        root: Root::Inputs.into(),
        image: String::new(),
        enforced: [Mechanism::Processes, Mechanism::Mounts, Mechanism::NoNetwork, Mechanism::User]
            .map(i32::from)
            .to_vec(),
    };
    let told = Any { type_url: SANDBOXED.to_owned(), value: told.encode_to_vec() };
    let result = ActionResult {
        output_files: outputs.iter().map(output).collect(),
        execution_metadata: Some(reapi::ExecutedActionMetadata {
            auxiliary_metadata: vec![told],
            ..Default::default()
        }),
        ..Default::default()
    };
    Execution {
        id: format!("operation of {target}"),
        origin: execution::Origin::Executed.into(),
        digest_function: 1,
        action: Some(action(target)),
        command: Some(wire(content("command"))),
        input_root: Some(wire(content("inputs"))),
        invocation_id: invocation.to_owned(),
        target_id: target.to_owned(),
        worker: "worker".to_owned(),
        timeline: Some(Timeline {
            leased: START,
            finished: START + 1_000_000,
            ..Default::default()
        }),
        action_result: result.encode_to_vec().into(),
        ..Default::default()
    }
}

pub fn later(mut execution: Execution, seconds: i64) -> Execution {
    let timeline = execution.timeline.as_mut().unwrap();
    timeline.leased += seconds * 1_000_000_000;
    timeline.finished += seconds * 1_000_000_000;
    execution
}

pub fn add_directory(execution: &mut Execution, path: &str, tree: Digest) {
    let mut result = ActionResult::decode(execution.action_result.clone()).unwrap();
    result.output_directories.push(reapi::OutputDirectory {
        path: path.to_owned(),
        tree_digest: Some(tree.to_wire()),
        ..Default::default()
    });
    execution.action_result = result.encode_to_vec().into();
}

/// The write that says that so many executions were not recorded at that time.
pub fn loss(at: i64, executions: u64) -> Write {
    crate::executions::batch::put(
        crate::executions::keys::lost(at, "x"),
        executions.to_string().into_bytes(),
    )
}

/// The execution as another build, which is answered with it, has it.
pub fn hit(execution: &Execution, invocation: &str, target: &str) -> Execution {
    Execution {
        id: "hit".to_owned(),
        origin: execution::Origin::CacheHit.into(),
        digest_function: execution.digest_function,
        action: execution.action.clone(),
        invocation_id: invocation.to_owned(),
        target_id: target.to_owned(),
        action_result: execution.action_result.clone(),
        ..Default::default()
    }
}
