//! Measures the provenance of a large build over what a server stores: its records and its blobs, on disk.
//!
//!     cargo run --release -p kiln-deploy --example stored_closure DIRECTORY [ACTIONS]     # records a build there
//!     cargo run --release -p kiln-deploy --example stored_closure DIRECTORY               # walks its closure
//!
//! The build is that of the example `closure`. Its events go the way of all events: what it takes to record them is printed as
//! well. The walk is another process, so that its memory is its own.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use kiln_cas::events::Events;
use kiln_cas::stores::{Storage, StorageConfig};
use kiln_cas::{Digest, DigestFunction, SharedBlobStore};
use kiln_deploy::executions::{
    ExecutionParts, ExecutionStore, Executions, Invocation, RecordArchive,
};
use kiln_deploy::provenance::{BuildRequest, Limits, Revision, Root, SignedBy, provenance};
use kiln_deploy::timestamp::Timestamp;
use kiln_net::clock::unix_nanos;
use kiln_protos::events::{self, Execution, Timeline, execution};
use kiln_protos::protobuf::Any;
use kiln_protos::reapi::{self, ActionResult, Directory};
use kiln_protos::worker::sandboxed::{Mechanism, Root as RootFileSystem};
use kiln_protos::worker::{SANDBOXED, Sandboxed};
use prost::Message as _;

const OBJECTS_OF_AN_ARCHIVE: usize = 100;
const INVOCATION: &str = "8a5e4d4c-0000-4000-8000-000000000000";
/// Actions that are published together; their records are written before the next come.
const CHUNK: usize = 2_000;
const AT_ONCE: usize = 64;

type Failure = Box<dyn Error + Send + Sync>;

fn content(text: &str) -> Digest {
    DigestFunction::Sha256.digest(text.as_bytes())
}

fn file(name: String, digest: Digest) -> reapi::FileNode {
    reapi::FileNode { name, digest: Some(digest.to_wire()), ..Default::default() }
}

fn wire(digest: Digest) -> events::Digest {
    events::Digest { hash: digest.hex(), size_bytes: digest.size as i64 }
}

/// What is published and what is stored, a chunk of it.
struct Recording {
    events: Events,
    executions: Executions,
    blobs: SharedBlobStore,
    told: Vec<u8>,
    directories: Vec<(Digest, Vec<u8>)>,
    waiting: Vec<Execution>,
    now: i64,
}

impl Recording {
    fn keep(&mut self, directory: &Directory) -> Digest {
        let data = directory.encode_to_vec();
        let digest = DigestFunction::Sha256.digest(&data);
        self.directories.push((digest, data));
        digest
    }

    async fn run(
        &mut self,
        mnemonic: &str,
        inputs: Directory,
        path: &str,
    ) -> Result<Digest, Failure> {
        let (input_root, output) = (self.keep(&inputs), content(path));
        let told = Any { type_url: SANDBOXED.to_owned(), value: self.told.clone() };
        let result = ActionResult {
            output_files: vec![reapi::OutputFile {
                path: path.to_owned(),
                digest: Some(output.to_wire()),
                ..Default::default()
            }],
            execution_metadata: Some(reapi::ExecutedActionMetadata {
                auxiliary_metadata: vec![told],
                ..Default::default()
            }),
            ..Default::default()
        };
        self.now += 1_000;
        self.waiting.push(Execution {
            id: format!("operations/{path}"),
            origin: execution::Origin::Executed.into(),
            digest_function: 1,
            action: Some(wire(content(&format!("action {path}")))),
            command: Some(wire(content(&format!("command {path}")))),
            input_root: Some(wire(input_root)),
            invocation_id: INVOCATION.to_owned(),
            target_id: format!("//:{path}"),
            mnemonic: mnemonic.to_owned(),
            worker: "worker-17.build.example".to_owned(),
            timeline: Some(Timeline {
                leased: self.now,
                finished: self.now + 500,
                ..Default::default()
            }),
            action_result: result.encode_to_vec().into(),
            platform: vec![events::Property {
                name: "OSFamily".to_owned(),
                value: "linux".to_owned(),
            }],
            ..Default::default()
        });
        if self.waiting.len() >= CHUNK {
            self.write().await?;
        }
        Ok(output)
    }

    async fn write(&mut self) -> Result<(), Failure> {
        let blobs = &self.blobs;
        let writes = self
            .directories
            .drain(..)
            .map(|(digest, data)| async move { blobs.write(&digest, data.into()).await });
        let written: Vec<_> = stream::iter(writes).buffer_unordered(AT_ONCE).collect().await;
        written.into_iter().collect::<Result<(), _>>()?;
        for execution in self.waiting.drain(..) {
            self.events.publish(execution);
        }
        self.executions.flush().await;
        Ok(())
    }
}

async fn record(storage: &Storage, actions: usize) -> Result<(), Failure> {
    let events = Events::new();
    let executions = Executions::start(ExecutionParts {
        records: storage.records.clone(),
        blobs: storage.blobs.clone(),
        executions: events.subscribe(),
        clock: Arc::new(unix_nanos),
        keep: Duration::from_secs(30 * 24 * 3600),
    });
    let enforced = [Mechanism::Processes, Mechanism::Mounts, Mechanism::NoNetwork, Mechanism::User];
    let told = Sandboxed {
        root: RootFileSystem::Image.into(),
        image: content("image").hex(),
        enforced: enforced.map(i32::from).to_vec(),
    };
    let mut recording = Recording {
        events,
        executions,
        blobs: storage.blobs.clone(),
        told: told.encode_to_vec(),
        directories: Vec::new(),
        waiting: Vec::new(),
        now: unix_nanos(),
    };
    let start = Instant::now();
    build(&mut recording, actions).await?;
    recording.write().await?;
    let took = start.elapsed().as_secs_f64();
    println!("recorded {actions} actions with their inputs in {took:.1} s");
    println!("{:?}", recording.executions.figures());
    recording.executions.shutdown().await;
    Ok(())
}

async fn build(recording: &mut Recording, actions: usize) -> Result<(), Failure> {
    let mut headers = Vec::new();
    for library in 0..20 {
        let files = (0..50).map(|it| file(format!("h{it}.h"), content(&format!("{library}/{it}"))));
        let digest = recording.keep(&Directory { files: files.collect(), ..Default::default() });
        let (name, digest) = (format!("lib{library}"), Some(digest.to_wire()));
        headers.push(reapi::DirectoryNode { name, digest });
    }
    let mut archives = Vec::new();
    let mut left = actions.saturating_sub(1);
    while left > 1 {
        let count = (left - 1).min(OBJECTS_OF_AN_ARCHIVE);
        let mut objects = Vec::new();
        for number in 0..count {
            let name = format!("{}.{number}", archives.len());
            let files = vec![file(format!("{name}.c"), content(&format!("source {name}")))];
            let inputs = Directory { files, directories: headers.clone(), ..Default::default() };
            let path = format!("{name}.o");
            let object = recording.run("CppCompile", inputs, &path).await?;
            objects.push(file(path, object));
        }
        let path = format!("{}.a", archives.len());
        let inputs = Directory { files: objects, ..Default::default() };
        let archive = recording.run("CppArchive", inputs, &path).await?;
        archives.push(file(path, archive));
        left -= count + 1;
    }
    let inputs = Directory { files: archives, ..Default::default() };
    recording.run("CppLink", inputs, "app").await?;
    Ok(())
}

/// The most memory that this process had so far, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|it| it.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

async fn walk(storage: &Storage) -> Result<(), Failure> {
    let before = peak();
    let start = Instant::now();
    let store = ExecutionStore::new(storage.records.clone());
    let invocation = Invocation::read(&store, "", INVOCATION).await?;
    println!(
        "the invocation: {} records in {:.2} s",
        invocation.used.len(),
        start.elapsed().as_secs_f64()
    );
    let archive = RecordArchive::new(store, storage.blobs.clone(), &invocation);
    let request = BuildRequest {
        builder: "https://kiln.example".to_owned(),
        builder_version: "0".to_owned(),
        invocation: INVOCATION.to_owned(),
        instance: String::new(),
        target: "//:app".to_owned(),
        revision: Revision::default(),
        signed_by: SignedBy::Server,
        started: Timestamp::from_unix(0),
        finished: Timestamp::from_unix(60),
        signed: Timestamp::from_unix(90),
    };
    let walking = move || {
        let (mut parts, mut bytes) = (0, 0);
        let mut sink = |_: &str, part: Vec<u8>| {
            parts += 1;
            bytes += part.len();
            Ok(())
        };
        let root = Root { path: "app".to_owned(), digest: content("app") };
        let made = provenance(&archive, &[root], &request, Limits::default(), &mut sink);
        made.map(|it| (it, parts, bytes))
    };
    let (made, parts, bytes) = tokio::task::spawn_blocking(walking).await??;
    println!("{:?}", made.closure);
    println!(
        "all of it: {:.2} s; the list has {parts} parts with {bytes} bytes",
        start.elapsed().as_secs_f64()
    );
    println!("memory: {before} MiB before, {} MiB at most", peak());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("name a directory")?;
    let actions = arguments.next().map(|it| it.parse()).transpose()?;
    let data_dir = Path::new(&directory).to_owned();
    let storage = Storage::open(StorageConfig { data_dir, ..StorageConfig::default() }).await?;
    match actions {
        Some(actions) => record(&storage, actions).await?,
        None => walk(&storage).await?,
    }
    storage.close().await?;
    Ok(())
}
