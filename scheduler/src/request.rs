//! Makes domain types of an `ExecuteRequest` and its `Action`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiln_cas::action::{Action, MAX_ACTION_BYTES, MAX_COMMAND_BYTES};
use kiln_cas::services::encoded_request_metadata;
use kiln_cas::{ActionKey, BlobStore, Digest, DigestFunction, StoreError, buck2, counted};
use kiln_protos::{reapi, rpc};
use prost::Message;
use tonic::Code;
use tonic::metadata::MetadataMap;

use crate::config::SchedulerConfig;
use crate::fanout;
use crate::job::{ActionFacts, LeaseMessages, Request, UnixNanos};
use crate::queue::platform::Requirement;
use crate::status::{missing_blobs, status, store_status};

/// Bytes; a longer one is not an honest instance name.
pub const MAX_INSTANCE_NAME: usize = 512;
/// Largest root directory that is read ahead, in bytes.
const MAX_AHEAD: u64 = 16 << 10;
/// Platform properties of an action.
const MAX_PROPERTIES: usize = 256;

/// A well-formed request, of whose action nothing is known yet.
pub struct Asked {
    pub key: ActionKey,
    pub priority: i32,
    pub request: Arc<Request>,
    pub inline: Inline,
}

/// Contents that the client wants within the answer.
#[derive(Debug, Clone, Default)]
pub struct Inline {
    pub stdout: bool,
    pub stderr: bool,
    pub files: Vec<String>,
}

impl Inline {
    pub fn is_empty(&self) -> bool {
        !self.stdout && !self.stderr && self.files.is_empty()
    }
}

/// What the server knows of whoever sent a request.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// The caller's account and the group that shares its tools, as in [`Request::owner`] and
    /// [`Request::tools`].
    pub owner: Option<Arc<str>>,
    pub tools: Option<Arc<str>>,
    /// Whose storage is charged, as in [`Request::account`].
    pub account: Arc<str>,
    /// How the caller reaches the server, as in [`Request::base_url`].
    pub base_url: Option<Arc<str>>,
}

pub fn parse(
    config: &SchedulerConfig,
    request: reapi::ExecuteRequest,
    headers: &MetadataMap,
    received_at: UnixNanos,
    caller: Caller,
) -> Result<Asked, rpc::Status> {
    let instance = request.instance_name;
    if instance.len() > MAX_INSTANCE_NAME {
        let length = instance.len();
        return Err(invalid(format!(
            "instance_name has {length} bytes, more than the limit of {MAX_INSTANCE_NAME}"
        )));
    }
    let function = match request.digest_function {
        0 => config.default_functions.get(&instance).copied().unwrap_or(DigestFunction::Sha256),
        value => DigestFunction::from_wire(value)
            .map_err(|error| invalid(format!("digest_function: {error}")))?,
    };
    let action = digest("action_digest", request.action_digest.as_ref(), function)?;
    // It is for people and fairness: what cannot be read is as if it were not there.
    let (metadata, metadata_bytes) = encoded_request_metadata(headers).unwrap_or_default();
    let request_facts = Request {
        metadata,
        metadata_bytes,
        received_at,
        skip_cache_lookup: request.skip_cache_lookup,
        owner: caller.owner,
        tools: caller.tools,
        account: caller.account,
        base_url: caller.base_url,
        rerun: None,
        shard: None,
    };
    Ok(Asked {
        key: ActionKey { instance: instance.into(), action },
        priority: request.execution_policy.map_or(0, |policy| policy.priority),
        request: Arc::new(request_facts),
        inline: Inline {
            stdout: request.inline_stdout,
            stderr: request.inline_stderr,
            files: request.inline_output_files,
        },
    })
}

/// An action that has been read and checked.
pub struct ReadAction {
    pub facts: ActionFacts,
    /// The command, where only it names the platform: clients that do so leave the action's name to be
    /// told from it.
    pub named: Option<buck2::Named>,
    /// The messages that were read: the Action, and the Command if it was.
    pub messages: Vec<Bytes>,
    /// How many shards the action asks for; `None`: it does not ask to be run in parts.
    pub shards: Option<fanout::Wish>,
}

pub async fn read_action(
    config: &SchedulerConfig,
    blobs: &dyn BlobStore,
    digest: &Digest,
) -> Result<ReadAction, rpc::Status> {
    let bytes = read(blobs, "the action", digest, MAX_ACTION_BYTES).await?;
    let action =
        Action::decode(bytes.clone(), digest).map_err(|error| invalid(error.to_string()))?;
    let timeout_ms = action.timeout.map(|timeout| timeout_ms(config, timeout)).transpose()?;
    let (command, input_root) = (action.command, action.input_root);
    let mut messages = vec![bytes];
    let (platform, named) = match action.platform {
        Some(platform) => (platform, None),
        // Before REAPI 2.2, and in Buck2, only the command has one.
        None => {
            let bytes = read_command(blobs, &command, &input_root).await?;
            let mut named = named(&command, bytes.clone())?;
            messages.push(bytes);
            (named.platform.take().unwrap_or_default(), Some(named))
        }
    };
    let (platform, shards) = requirement(platform)?;
    let facts = ActionFacts {
        command,
        input_root,
        platform,
        timeout_ms,
        do_not_cache: action.do_not_cache,
    };
    Ok(ReadAction { facts, named, messages, shards })
}

/// The command of an action that is to be queued, unless it was read before. One that cannot be had
/// the worker asks for again, and says all that is missing.
pub async fn add_command(blobs: &dyn BlobStore, action: &mut ReadAction) {
    let command = &action.facts.command;
    if action.named.is_some() || command.size > LeaseMessages::MOST_BYTES as u64 {
        return;
    }
    if let Ok(bytes) = read(blobs, "the command", command, MAX_COMMAND_BYTES).await {
        action.messages.push(bytes);
    }
}

/// The request with a target and a mnemonic, where those of Buck2 can be told from the command.
pub fn completed(request: &Arc<Request>, command: Option<&buck2::Named>) -> Arc<Request> {
    let Some(command) = command else { return request.clone() };
    let mut metadata = request.metadata.clone();
    buck2::complete(&mut metadata, command);
    if metadata == request.metadata {
        return request.clone();
    }
    let metadata_bytes = metadata.encode_to_vec().into();
    Arc::new(Request { metadata, metadata_bytes, ..Request::clone(request) })
}

async fn read_command(
    blobs: &dyn BlobStore,
    command: &Digest,
    input_root: &Digest,
) -> Result<Bytes, rpc::Status> {
    // Where the one is not at hand the other is not either, and it goes with the lease.
    let small = input_root.size <= MAX_AHEAD && !input_root.is_empty_blob();
    let ahead = async {
        if small {
            drop(blobs.read(input_root, 0, None).await)
        }
    };
    let (read, ()) = tokio::join!(blobs.read(command, 0, None), ahead);
    let blob = match read {
        Ok(blob) => blob,
        Err(StoreError::NotFound(_)) => {
            let missing = blobs.find_missing(&[*command, *input_root]).await;
            return Err(missing_blobs(&missing.unwrap_or_else(|_| vec![*command])));
        }
        Err(error) => return Err(store_status("the command cannot be read", &error)),
    };
    let bytes = blob.collect(MAX_COMMAND_BYTES).await;
    bytes.map_err(|error| store_status("the command cannot be read", &error))
}

fn named(command: &Digest, bytes: Bytes) -> Result<buck2::Named, rpc::Status> {
    counted::count::<reapi::Command>(&bytes)
        .map_err(|error| invalid(format!("blob {command} is not a Command: {error}")))?;
    buck2::Named::decode(bytes)
        .map_err(|error| invalid(format!("blob {command} is not a Command: {error}")))
}

async fn read(
    blobs: &dyn BlobStore,
    what: &str,
    digest: &Digest,
    limit: u64,
) -> Result<Bytes, rpc::Status> {
    if digest.size > limit {
        let size = digest.size;
        return Err(invalid(format!("{what} has {size} bytes, more than the limit of {limit}")));
    }
    let context = || format!("{what} cannot be read");
    let blob = blobs.read(digest, 0, None).await.map_err(|e| store_status(&context(), &e))?;
    blob.collect(limit).await.map_err(|e| store_status(&context(), &e))
}

fn digest(
    field: &str,
    digest: Option<&reapi::Digest>,
    function: DigestFunction,
) -> Result<Digest, rpc::Status> {
    let digest = digest.ok_or_else(|| invalid(format!("{field} is not set")))?;
    Digest::from_wire(digest, function).map_err(|error| invalid(format!("{field}: {error}")))
}

/// The timeout in milliseconds, rounded up. Errors: it is longer than the server allows.
fn timeout_ms(config: &SchedulerConfig, timeout: Duration) -> Result<u64, rpc::Status> {
    let ms = timeout.as_nanos().div_ceil(1_000_000);
    let max = config.max_timeout.as_millis();
    if ms > max {
        return Err(invalid(format!(
            "Action.timeout of {} s is more than the server's maximum of {} s; \
             lower the action's timeout or raise the server's",
            ms.div_ceil(1000),
            max / 1000
        )));
    }
    Ok(u64::try_from(ms).unwrap_or(u64::MAX))
}

/// The requirement that a worker must meet, and the wish to be run in parts, which is for the
/// scheduler alone.
fn requirement(
    platform: reapi::Platform,
) -> Result<(Requirement, Option<fanout::Wish>), rpc::Status> {
    let count = platform.properties.len();
    if count > MAX_PROPERTIES {
        return Err(invalid(format!(
            "Platform.properties has {count} entries, more than the limit of {MAX_PROPERTIES}"
        )));
    }
    let properties = platform.properties.into_iter().map(|p| (p.name, p.value));
    let (properties, wish) = fanout::take(properties).map_err(invalid)?;
    Ok((Requirement::new(properties), wish))
}

fn invalid(message: String) -> rpc::Status {
    status(Code::InvalidArgument, message)
}
