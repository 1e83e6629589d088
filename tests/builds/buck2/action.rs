//! Actions as Buck2 makes them: each consists of a command, an input root, and the blobs of both.

use std::collections::BTreeMap;

use kiln_protos::{protobuf, reapi};
use prost::Message;

use super::client::{Buck2, Failed, Outcome, digest};

/// The kinds of things that an input root may hold at a path.
pub enum Node {
    File { data: Vec<u8>, executable: bool },
    Symlink(String),
    Directory(BTreeMap<String, Node>),
}

impl Node {
    pub fn file(data: impl Into<Vec<u8>>) -> Self {
        Self::File { data: data.into(), executable: false }
    }

    pub fn program(data: &str) -> Self {
        Self::File { data: data.into(), executable: true }
    }

    pub fn empty_directory() -> Self {
        Self::Directory(BTreeMap::new())
    }
}

#[derive(Default)]
pub struct Inputs {
    root: BTreeMap<String, Node>,
}

impl Inputs {
    /// Adds `node` at `path`, which is relative to the project's root, and makes its parent directories.
    pub fn with(mut self, path: &str, node: Node) -> Self {
        let mut parts = path.split('/').peekable();
        let mut entries = &mut self.root;
        let mut node = Some(node);
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                entries.insert(part.to_owned(), node.take().unwrap());
                break;
            }
            let child = entries.entry(part.to_owned()).or_insert_with(Node::empty_directory);
            let Node::Directory(children) = child else { panic!("{part} is no directory") };
            entries = children;
        }
        self
    }
}

/// Encodes a directory, sorted by name, and pushes its message to `blobs` after those of everything in it. Returns
/// its digest.
fn encode(entries: &BTreeMap<String, Node>, blobs: &mut Vec<Vec<u8>>) -> reapi::Digest {
    let mut message = reapi::Directory::default();
    for (name, node) in entries {
        let name = name.clone();
        match node {
            Node::File { data, executable } => {
                blobs.push(data.clone());
                message.files.push(reapi::FileNode {
                    name,
                    digest: Some(digest(data)),
                    is_executable: *executable,
                    ..Default::default()
                });
            }
            Node::Symlink(target) => {
                let target = target.clone();
                message.symlinks.push(reapi::SymlinkNode { name, target, ..Default::default() });
            }
            Node::Directory(children) => {
                let digest = Some(encode(children, blobs));
                message.directories.push(reapi::DirectoryNode { name, digest });
            }
        }
    }
    blobs.push(message.encode_to_vec());
    digest(&blobs[blobs.len() - 1])
}

/// How Buck2 declares the outputs of an action, by `remote_output_paths` of `CommandExecutorConfig`.
pub enum OutputPaths {
    /// Buck2 fills `Command.output_paths`, as its open-source build does by default.
    OutputPaths,
    /// Buck2 declares each path as a file and as a directory, for outputs of which it does not know the kind.
    Compatibility,
}

pub struct Action {
    pub digest: reapi::Digest,
    /// The encoded Action, Command and directories of the input root.
    pub blobs: Vec<Vec<u8>>,
}

impl Action {
    /// Makes an action. Its environment holds only what the rule declares, so neither PATH nor HOME. Buck2 sets the
    /// platform on the Command only and never sets `do_not_cache`. Only tests have a `timeout`, which is in seconds.
    pub fn new(
        arguments: &[&str],
        environment: &[(&str, &str)],
        inputs: &Inputs,
        outputs: (OutputPaths, &[&str]),
        timeout: Option<i64>,
    ) -> Self {
        let mut blobs = Vec::new();
        let root = encode(&inputs.root, &mut blobs);
        let variable = |(name, value): &(&str, &str)| reapi::command::EnvironmentVariable {
            name: (*name).into(),
            value: (*value).into(),
        };
        let mut command = reapi::Command {
            arguments: strings(arguments),
            environment_variables: environment.iter().map(variable).collect(),
            platform: Some(platform()),
            ..Default::default()
        };
        match outputs {
            (OutputPaths::OutputPaths, paths) => command.output_paths = strings(paths),
            (OutputPaths::Compatibility, paths) => {
                command.output_files = strings(paths);
                command.output_directories = strings(paths);
            }
        }
        blobs.push(command.encode_to_vec());
        let action = reapi::Action {
            command_digest: Some(digest(&blobs[blobs.len() - 1])),
            input_root_digest: Some(root),
            timeout: timeout.map(|seconds| protobuf::Duration { seconds, nanos: 0 }),
            ..Default::default()
        };
        blobs.push(action.encode_to_vec());
        Self { digest: digest(&blobs[blobs.len() - 1]), blobs }
    }

    /// Makes an action that runs a shell script without inputs. Kiln finds the shell by the PATH.
    pub fn shell(script: &str, outputs: &[&str], timeout: Option<i64>) -> Self {
        let arguments = ["sh", "-eu", "-c", script];
        let outputs = (OutputPaths::OutputPaths, outputs);
        Self::new(&arguments, &[], &Inputs::default(), outputs, timeout)
    }

    /// Asks which blobs are missing, uploads these, and executes the action. Returns the server's error if a call
    /// fails.
    pub async fn run(&self, buck2: &Buck2) -> Result<Outcome, Failed> {
        self.upload(buck2).await?;
        buck2.execute(&self.digest).await
    }

    /// Uploads the action's blobs that the server lacks. Returns how many these were, or the server's error.
    pub async fn upload(&self, buck2: &Buck2) -> Result<usize, Failed> {
        let digests: Vec<_> = self.blobs.iter().map(|blob| digest(blob)).collect();
        let missing = buck2.missing(&digests).await;
        let wanted = |blob: &&Vec<u8>| missing.contains(&digest(blob));
        let blobs: Vec<_> = self.blobs.iter().filter(wanted).cloned().collect();
        buck2.upload(&blobs).await?;
        Ok(blobs.len())
    }
}

/// Returns the platform that `examples/buck2` sets as its `remote_execution_properties`.
pub fn platform() -> reapi::Platform {
    let property = reapi::platform::Property { name: "OSFamily".into(), value: "linux".into() };
    reapi::Platform { properties: vec![property] }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}
