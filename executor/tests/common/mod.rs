//! A store in memory, messages with little ceremony, and a runner without a sandbox.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_cas::stores::{Clock, MemoryBlobStore};
use kiln_cas::{Digest, DigestFunction, SharedBlobStore};
use kiln_executor::Failure;
use kiln_executor::runner::{Runner, Runners};
use kiln_executor::sandbox::{CommandSpec, Ending, Finished, OutputStream, Usage};
use kiln_protos::reapi;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub const FUNCTION: DigestFunction = DigestFunction::Sha256;

pub fn memory_store() -> SharedBlobStore {
    Arc::new(MemoryBlobStore::new(1 << 40, Duration::from_secs(3600), Clock::system()))
}

pub async fn put(store: &SharedBlobStore, data: impl Into<Bytes>) -> Digest {
    let data = data.into();
    let digest = FUNCTION.digest(&data);
    store.write(&digest, data).await.unwrap();
    digest
}

pub async fn put_message(store: &SharedBlobStore, message: &impl Message) -> Digest {
    put(store, message.encode_to_vec()).await
}

pub async fn get(store: &SharedBlobStore, digest: &reapi::Digest) -> Bytes {
    let digest = Digest::from_wire(digest, FUNCTION).unwrap();
    store.read(&digest, 0, None).await.unwrap().collect(1 << 30).await.unwrap()
}

/// An entry of a tree made for a test.
#[derive(Debug, Clone)]
pub enum Node {
    File {
        data: Vec<u8>,
        executable: bool,
    },
    /// An executable file that is marked as a part of the action's tool.
    Tool(Vec<u8>),
    Directory(BTreeMap<String, Node>),
    Symlink(String),
}

pub fn file(data: &str) -> Node {
    Node::File { data: data.into(), executable: false }
}

pub fn executable(data: &str) -> Node {
    Node::File { data: data.into(), executable: true }
}

pub fn directory<const N: usize>(entries: [(&str, Node); N]) -> Node {
    Node::Directory(entries.map(|(name, node)| (name.to_owned(), node)).into())
}

/// Stores the directories (and, unless told otherwise, the files) beneath `entries`.
pub async fn put_tree(store: &SharedBlobStore, node: &Node) -> Digest {
    let Node::Directory(entries) = node else { panic!("the root is a directory") };
    let mut message = reapi::Directory::default();
    for (name, node) in entries {
        let name = name.clone();
        match node {
            Node::File { data, executable } => {
                let digest = Some(put(store, data.clone()).await.to_wire());
                let is_executable = *executable;
                message.files.push(reapi::FileNode {
                    name,
                    digest,
                    is_executable,
                    ..Default::default()
                });
            }
            Node::Tool(data) => {
                let mark =
                    reapi::NodeProperty { name: "bazel_tool_input".into(), ..Default::default() };
                let marked = reapi::NodeProperties { properties: vec![mark], ..Default::default() };
                message.files.push(reapi::FileNode {
                    name,
                    digest: Some(put(store, data.clone()).await.to_wire()),
                    is_executable: true,
                    node_properties: Some(marked),
                });
            }
            Node::Directory(_) => {
                let digest = Some(Box::pin(put_tree(store, node)).await.to_wire());
                message.directories.push(reapi::DirectoryNode { name, digest });
            }
            Node::Symlink(target) => message.symlinks.push(reapi::SymlinkNode {
                name,
                target: target.clone(),
                ..Default::default()
            }),
        }
    }
    put_message(store, &message).await
}

pub fn shell(script: &str, outputs: &[&str]) -> reapi::Command {
    reapi::Command {
        arguments: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        output_paths: outputs.iter().map(|path| (*path).to_owned()).collect(),
        ..Default::default()
    }
}

/// Stores the action of `command` on `input_root`.
pub async fn put_action(
    store: &SharedBlobStore,
    command: &reapi::Command,
    input_root: Digest,
) -> Digest {
    put_action_with(store, command, input_root, reapi::Action::default()).await
}

pub async fn put_action_with(
    store: &SharedBlobStore,
    command: &reapi::Command,
    input_root: Digest,
    rest: reapi::Action,
) -> Digest {
    let command_digest = Some(put_message(store, command).await.to_wire());
    let input_root_digest = Some(input_root.to_wire());
    put_message(store, &reapi::Action { command_digest, input_root_digest, ..rest }).await
}

/// Runs commands as ordinary processes in a copy of their input root.
pub struct PlainRunners {
    pub directory: PathBuf,
}

pub struct PlainRunner {
    directory: PathBuf,
}

#[async_trait]
impl Runners for PlainRunners {
    async fn start(&self, slot: u32) -> Result<Box<dyn Runner>, Failure> {
        Ok(Box::new(PlainRunner { directory: self.directory.join(slot.to_string()) }))
    }

    fn not_enforced(&self) -> Vec<String> {
        vec!["everything: commands run without a sandbox".to_owned()]
    }
}

#[async_trait]
impl Runner for PlainRunner {
    async fn run(
        &mut self,
        spec: &CommandSpec,
        output: mpsc::Sender<(OutputStream, Bytes)>,
        cancel: CancellationToken,
    ) -> Result<Finished, Failure> {
        assert_ne!(spec.arguments[0], b"panic!", "a runner that panics");
        self.prepare(spec);
        let mut child = tokio::process::Command::new(text(&spec.arguments[0]))
            .args(spec.arguments[1..].iter().map(|argument| text(argument)))
            .env_clear()
            .envs(spec.environment.iter().map(|(name, value)| (text(name), text(value))))
            .current_dir(self.directory.join(&spec.working_directory))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::Infrastructure(error.into()))?;
        let group = nix::unistd::Pid::from_raw(child.id().unwrap() as i32);
        let streams = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let pumps = async {
            tokio::join!(
                pump(streams.0, OutputStream::Stdout, &output),
                pump(streams.1, OutputStream::Stderr, &output),
            )
        };
        let watch = async {
            let ending = tokio::select! {
                status = child.wait() => return ending(status.unwrap()),
                () = tokio::time::sleep(spec.timeout) => Ending::TimedOut,
                () = cancel.cancelled() => Ending::Cancelled,
            };
            nix::sys::signal::killpg(group, nix::sys::signal::SIGKILL).unwrap();
            child.wait().await.unwrap();
            ending
        };
        let (ending, _) = tokio::join!(watch, pumps);
        let root = File::open(&self.directory).unwrap().into();
        Ok(Finished { ending, usage: Usage::default(), not_changed: Vec::new(), root })
    }

    async fn stop(self: Box<Self>) {}
}

impl PlainRunner {
    fn prepare(&self, spec: &CommandSpec) {
        let _ = fs::remove_dir_all(&self.directory);
        fs::create_dir_all(&self.directory).unwrap();
        for lower in &spec.lower {
            copy(lower, &self.directory);
        }
        for path in &spec.directories {
            fs::create_dir_all(self.directory.join(path)).unwrap();
        }
    }
}

/// Adds the tree `from` to what is in `to`.
pub fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path()).unwrap(), &target).unwrap();
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

fn ending(status: ExitStatus) -> Ending {
    use std::os::unix::process::ExitStatusExt;
    match status.code() {
        Some(code) => Ending::Exited(code),
        None => Ending::Signalled(status.signal().unwrap()),
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    stream: OutputStream,
    to: &mpsc::Sender<(OutputStream, Bytes)>,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        match from.read(&mut buffer).await.unwrap() {
            0 => return,
            read => to.send((stream, Bytes::copy_from_slice(&buffer[..read]))).await.unwrap(),
        }
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
