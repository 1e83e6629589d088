//! Whether an action can be a request to a tool, to which one, and what the request is.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use kiln_cas::{Digest, DigestFunction, Hasher};
use kiln_protos::persistent::{Input, WorkRequest};

use super::arguments::{self, Arguments};
use super::protocol::Protocol;
use crate::input_root::{InputFile, InputSymlink, Listing};
use crate::outputs::OutputSpec;
use crate::paths;
use crate::platform::Persistent;
use crate::sandbox::{CommandSpec, Conditions, RootFs};

/// Most entries in the uppermost directory of the input root: each is a mount of its own.
const MAX_UPPERMOST: usize = 512;
/// Most paths in `kiln-tool-inputs`: each is compared with each file.
const MAX_NAMED: usize = 256;
/// Names the directory in which Buck2 has an action put what it does not keep.
const BUCK2_SCRATCH: &[u8] = b"BUCK_SCRATCH_PATH";
/// Most bytes of a flag file.
const MAX_FLAG_FILE_BYTES: u64 = 16 << 20;

/// Why an action that asks for a tool runs by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// Whoever asked may not use tools that remember what they did.
    Caller,
    /// The hermeticity check is to see what the action does by itself.
    HermeticityCheck,
    /// The input root is `/`.
    Root,
    WorkingDirectory,
    /// An output lies in the uppermost directory, in which a tool cannot write.
    Outputs,
    Protocol,
    NoFlagFile,
    NoToolInputs,
    /// `kiln-tool-inputs` has too many paths, or one at which there is no file and no directory
    /// with a file.
    ToolInputs,
    TooManyEntries,
    /// The flag files cannot be expanded.
    FlagFiles,
    /// The input root cannot be listed any more.
    Inputs,
    /// A tool of this kind has lately ended before it answered anything.
    Unreliable,
    NoRoom,
    /// The tool could not be started or given its inputs.
    NotStarted,
    /// The tool ended before it answered.
    Died,
    /// The tool failed, and what it has left behind may be why.
    WornOut,
}

impl Unfit {
    pub const ALL: [Self; 17] = [
        Self::Caller,
        Self::HermeticityCheck,
        Self::Root,
        Self::WorkingDirectory,
        Self::Outputs,
        Self::Protocol,
        Self::NoFlagFile,
        Self::NoToolInputs,
        Self::ToolInputs,
        Self::TooManyEntries,
        Self::FlagFiles,
        Self::Inputs,
        Self::Unreliable,
        Self::NoRoom,
        Self::NotStarted,
        Self::Died,
        Self::WornOut,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::HermeticityCheck => "hermeticity",
            Self::Root => "root",
            Self::WorkingDirectory => "working_directory",
            Self::Outputs => "outputs",
            Self::Protocol => "protocol",
            Self::NoFlagFile => "no_flag_file",
            Self::NoToolInputs => "no_tool_inputs",
            Self::ToolInputs => "tool_inputs",
            Self::TooManyEntries => "too_many_entries",
            Self::FlagFiles => "flag_files",
            Self::Inputs => "inputs",
            Self::Unreliable => "unreliable",
            Self::NoRoom => "no_room",
            Self::NotStarted => "not_started",
            Self::Died => "died",
            Self::WornOut => "worn_out",
        }
    }
}

/// A request to a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The key of the tool: tools with equal keys can do each other's requests.
    pub key: Digest,
    pub protocol: Protocol,
    /// The tool's command line.
    pub startup: Vec<Vec<u8>>,
    /// The encoded request, as the tool reads it from its stdin.
    pub request: Bytes,
}

/// An action that asks for a tool.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub wish: &'a Persistent,
    /// The action's command, with the layers of its input root in `lower`.
    pub spec: &'a CommandSpec,
    pub outputs: &'a OutputSpec,
    pub instance: &'a str,
    /// The name of those whose tools the action may use; `None`: it may use none.
    pub tools: Option<&'a str>,
}

/// An action that may be done by a tool, as far as can be said before its inputs are looked at.
pub struct Candidate {
    protocol: Protocol,
    arguments: Arguments,
}

impl Subject<'_> {
    pub fn candidate(&self) -> Result<Candidate, Unfit> {
        let spec = self.spec;
        let hindrances = [
            (spec.conditions != Conditions::default(), Unfit::HermeticityCheck),
            (self.tools.is_none(), Unfit::Caller),
            (spec.root == RootFs::Inputs, Unfit::Root),
            (!spec.working_directory.is_empty(), Unfit::WorkingDirectory),
            (self.outputs.expected.iter().any(|it| !it.path.contains('/')), Unfit::Outputs),
        ];
        if let Some((_, why)) = hindrances.into_iter().find(|(hinders, _)| *hinders) {
            return Err(why);
        }
        let protocol = Protocol::named(self.wish.protocol.as_deref()).ok_or(Unfit::Protocol)?;
        let arguments = arguments::split(&spec.arguments).ok_or(Unfit::NoFlagFile)?;
        Ok(Candidate { protocol, arguments })
    }

    pub async fn job(&self, candidate: Candidate, listing: &Listing) -> Result<Job, Unfit> {
        let Candidate { protocol, arguments: Arguments { startup, flag_files } } = candidate;
        if self.uppermost(listing) > MAX_UPPERMOST {
            return Err(Unfit::TooManyEntries);
        }
        let paths = listing.files.iter().map(|file| file.path.as_str());
        if self.wish.inputs.len() > MAX_NAMED {
            return Err(Unfit::ToolInputs);
        }
        if let Some(named) = self.wish.unmatched(paths) {
            tracing::debug!(named, "kiln-tool-inputs names no file of the input root");
            return Err(Unfit::ToolInputs);
        }
        let is_tool = |file: &&InputFile| file.tool || self.wish.names(&file.path);
        let tool: Vec<&InputFile> = listing.files.iter().filter(is_tool).collect();
        if tool.is_empty() {
            return Err(Unfit::NoToolInputs);
        }
        let key = self.key(protocol, &startup, &tool, &listing.symlinks);
        let files: HashMap<&str, &InputFile> =
            listing.files.iter().map(|file| (file.path.as_str(), file)).collect();
        let read = |name: String| {
            let path = paths::resolve("", &name).ok();
            let file = path.and_then(|path| files.get(path.as_str()).copied());
            async move { self.read(file?).await }
        };
        let expanded = arguments::expand(&flag_files, read).await;
        let arguments = expanded.map_err(|error| {
            tracing::debug!(%error, "flag files of a persistent worker");
            Unfit::FlagFiles
        })?;
        let input = |file: &InputFile| Input {
            path: file.path.clone(),
            digest: file.digest.hex().into_bytes().into(),
        };
        let inputs = listing.files.iter().map(input).collect();
        let request = WorkRequest { arguments, inputs, ..Default::default() };
        Ok(Job { key, protocol, startup, request: protocol.encode(&request) })
    }

    /// Entries that a tool's input root would have.
    fn uppermost(&self, listing: &Listing) -> usize {
        let made = self.spec.directories.iter().filter_map(|path| path.split('/').next());
        let all: BTreeSet<&str> =
            listing.uppermost.iter().map(|name| &**name).chain(made).collect();
        all.len()
    }

    /// The text of a flag file, from the layer on this machine in which it lies; `None`: it is too
    /// large, cannot be read, or is not UTF-8.
    async fn read(&self, file: &InputFile) -> Option<String> {
        if file.digest.size > MAX_FLAG_FILE_BYTES {
            return None;
        }
        for layer in &self.spec.lower {
            if let Ok(bytes) = tokio::fs::read(layer.join(&file.path)).await {
                return String::from_utf8(bytes).ok();
            }
        }
        None
    }

    /// All that a tool is made of: whoever has the same would get an equal one. The client's own key
    /// is a part of it, and never enough.
    fn key(
        &self,
        protocol: Protocol,
        startup: &[Vec<u8>],
        tool: &[&InputFile],
        symlinks: &[InputSymlink],
    ) -> Digest {
        let Self { wish, spec, instance, tools, .. } = self;
        let mut key = Key(DigestFunction::Blake3.hasher());
        key.field(b"client", wish.key.as_bytes());
        key.field(b"instance", instance.as_bytes());
        key.field(b"caller", tools.unwrap_or_default().as_bytes());
        key.field(b"protocol", format!("{protocol:?}").as_bytes());
        key.field(b"network", &[u8::from(spec.network)]);
        key.field(b"root", format!("{:?}", spec.root).as_bytes());
        key.field(b"limits", format!("{:?}", spec.limits).as_bytes());
        startup.iter().for_each(|argument| key.field(b"argument", argument));
        let mut environment = environment(spec);
        environment.sort();
        for (name, value) in &environment {
            key.field(b"variable", name);
            key.field(b"value", value);
        }
        for file in tool {
            key.field(b"file", file.path.as_bytes());
            key.field(
                if file.executable { b"x" } else { b"f" },
                file.digest.to_string().as_bytes(),
            );
        }
        // Any of them may lead to the tool's files, and nobody marks them.
        for symlink in symlinks {
            key.field(b"symlink", symlink.path.as_bytes());
            key.field(b"target", symlink.target.as_bytes());
        }
        key.0.finish()
    }
}

/// A tool's environment. Where Buck2 has an action put what it does not keep is another place for each
/// action, and no request tells a tool of it: it gets the one place that stays as long as it does.
pub fn environment(spec: &CommandSpec) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut environment = spec.environment.clone();
    for (_, value) in environment.iter_mut().filter(|(name, _)| name == BUCK2_SCRATCH) {
        *value = b"/tmp".to_vec();
    }
    environment
}

struct Key(Hasher);

impl Key {
    /// Adds a field to the hash, with lengths, so that no two lists of fields give the same bytes.
    fn field(&mut self, name: &[u8], value: &[u8]) {
        for part in [name, value] {
            self.0.update(&(part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }
}
