//! From an `ExecuteRequest` and its `Action` to domain types: all validation is here.

use std::sync::Arc;

use bytes::Bytes;
use kiln_cas::services::make_plain;
use kiln_cas::{ActionKey, BlobStore, Digest, DigestFunction, StoreError, buck2, counted};
use kiln_protos::{protobuf, reapi, rpc};
use prost::Message;
use tonic::Code;
use tonic::metadata::MetadataMap;

use crate::config::SchedulerConfig;
use crate::job::{ActionFacts, Request, UnixNanos};
use crate::queue::platform::Requirement;
use crate::services::status::{missing_blobs, status, store_status};

/// Bytes; a longer one is not an honest instance name.
pub const MAX_INSTANCE_NAME: usize = 512;
/// Bytes of an `Action` and of a `Command`.
const MAX_ACTION: u64 = 1 << 20;
const MAX_COMMAND: u64 = 64 << 20;
/// Largest root directory that is read ahead, in bytes.
const MAX_AHEAD: u64 = 16 << 10;
/// Platform properties of an action.
const MAX_PROPERTIES: usize = 256;
/// Bytes of the RequestMetadata header.
const MAX_METADATA: usize = 16 << 10;

const METADATA_HEADER: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

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

/// What is known of who asks.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// See [`Request::owner`] and [`Request::tools`].
    pub owner: Option<Arc<str>>,
    pub tools: Option<Arc<str>>,
    /// See [`Request::account`].
    pub account: Arc<str>,
    /// See [`Request::base_url`].
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
    let (metadata, metadata_bytes) = request_metadata(headers);
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

/// Metadata is for people and fairness: what cannot be read is as if it were not there.
fn request_metadata(headers: &MetadataMap) -> (reapi::RequestMetadata, Bytes) {
    let bytes = headers.get_bin(METADATA_HEADER).and_then(|value| value.to_bytes().ok());
    let bytes = bytes.filter(|bytes| bytes.len() <= MAX_METADATA).unwrap_or_default();
    let Ok(mut metadata) = reapi::RequestMetadata::decode(bytes.clone()) else {
        return Default::default();
    };
    let bytes = if make_plain(&mut metadata) { metadata.encode_to_vec().into() } else { bytes };
    (metadata, bytes)
}

/// Reads and checks the action, and the command where only it names the platform: that one is returned
/// as well, because clients that do so leave its name to be told from it.
pub async fn read_action(
    config: &SchedulerConfig,
    blobs: &dyn BlobStore,
    action: &Digest,
) -> Result<(ActionFacts, Option<buck2::Named>), rpc::Status> {
    let bytes = read(blobs, "the action", action, MAX_ACTION).await?;
    let message = reapi::Action::decode(bytes)
        .map_err(|error| invalid(format!("blob {action} is not an Action: {error}")))?;
    let function = action.function;
    let command = digest("Action.command_digest", message.command_digest.as_ref(), function)?;
    let input_root =
        digest("Action.input_root_digest", message.input_root_digest.as_ref(), function)?;
    let timeout_ms = timeout(config, message.timeout.as_ref())?;
    let (platform, named) = match message.platform {
        Some(platform) => (platform, None),
        // Before REAPI 2.2, and in Buck2, only the command has one.
        None => {
            let mut named = read_command(blobs, &command, &input_root).await?;
            (named.platform.take().unwrap_or_default(), Some(named))
        }
    };
    let facts = ActionFacts {
        command,
        input_root,
        platform: requirement(platform)?,
        timeout_ms,
        do_not_cache: message.do_not_cache,
    };
    Ok((facts, named))
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
) -> Result<buck2::Named, rpc::Status> {
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
    let bytes = blob.collect(MAX_COMMAND).await;
    let bytes = bytes.map_err(|error| store_status("the command cannot be read", &error))?;
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

fn timeout(
    config: &SchedulerConfig,
    timeout: Option<&protobuf::Duration>,
) -> Result<Option<u64>, rpc::Status> {
    let Some(timeout) = timeout else { return Ok(None) };
    let protobuf::Duration { seconds, nanos } = *timeout;
    let (Ok(seconds), 0..1_000_000_000) = (u64::try_from(seconds), nanos) else {
        return Err(invalid(format!(
            "Action.timeout: {seconds} s and {nanos} ns is not a duration that can be waited for"
        )));
    };
    let ms = seconds
        .saturating_mul(1000)
        .saturating_add(nanos.unsigned_abs().div_ceil(1_000_000).into());
    let max = config.max_timeout.as_millis() as u64;
    if ms > max {
        return Err(invalid(format!(
            "Action.timeout of {} s is more than the server's maximum of {} s; \
             lower the action's timeout or raise the server's",
            ms.div_ceil(1000),
            max / 1000
        )));
    }
    // Zero is how some clients write "none".
    Ok((ms > 0).then_some(ms))
}

fn requirement(platform: reapi::Platform) -> Result<Requirement, rpc::Status> {
    let count = platform.properties.len();
    if count > MAX_PROPERTIES {
        return Err(invalid(format!(
            "Platform.properties has {count} entries, more than the limit of {MAX_PROPERTIES}"
        )));
    }
    Ok(Requirement::new(platform.properties.into_iter().map(|p| (p.name, p.value))))
}

fn invalid(message: String) -> rpc::Status {
    status(Code::InvalidArgument, message)
}
