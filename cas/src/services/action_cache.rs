//! The ActionCache service.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use http::{Extensions, Request, Response, request};
use kiln_protos::reapi::{self, ActionResult, Directory};
use prost::Message;
use tonic::Status;
use tonic::body::Body;

use super::fields::{function, wire_digest};
use super::guard::Guard;
use super::hits::Hits;
use super::missing::missing_blobs_error;
use super::off_thread::off_thread;
use super::rpc::{Handler, MAX_MESSAGE, add, decode_single, method, reply, unknown_method};
use super::status::{digest_status, store_status};
use super::wire::{self, Encoded, RequestBody};
use crate::access::Right;
use crate::action_cache::{ActionKey, SharedActionCache};
use crate::blob::SharedBlobStore;
use crate::budget::Charge;
use crate::counted;
use crate::digest::{Digest, DigestError, DigestFunction};
use crate::error::StoreError;
use crate::result::{MAX_ACTION_RESULT, Named, complete_for_all_clients, named_blobs};
use crate::tree::{TreeParts, validate_directory};

/// Room for inlined output: what gRPC's default limit leaves above the largest result.
const MAX_INLINE: u64 = (4 << 20) - (64 << 10) - MAX_ACTION_RESULT as u64;
/// How often a result is put at most, where the cache fails each time since its blobs were found.
const PUTS: usize = 4;
/// Largest encoded `Tree` of an output directory, in bytes.
const MAX_TREE: u64 = 64 << 20;

pub struct ActionCacheService {
    pub actions: SharedActionCache,
    pub blobs: SharedBlobStore,
    pub guard: Guard,
    pub hits: Hits,
}

impl Handler for ActionCacheService {
    const NAME: &'static str = "build.bazel.remote.execution.v2.ActionCache";

    async fn handle<B: RequestBody>(
        self: Arc<Self>,
        request: Request<B>,
    ) -> Result<Response<Body>, Status> {
        match method(&request) {
            "GetActionResult" => {
                let (parts, body) = request.into_parts();
                self.get(&parts, body).await
            }
            "UpdateActionResult" => {
                let (parts, body) = request.into_parts();
                Box::pin(self.update(parts.extensions, body)).await
            }
            other => Err(unknown_method(Self::NAME, other)),
        }
    }
}

impl ActionCacheService {
    async fn get(
        &self,
        parts: &request::Parts,
        body: impl RequestBody,
    ) -> Result<Response<Body>, Status> {
        const NAME: &str = "GetActionResultRequest";
        let (request, mut charge): (wire::GetActionResultRequest, _) =
            decode_single(&parts.extensions, body, NAME, MAX_MESSAGE).await?;
        let key = key(&request)?;
        self.guard.check(&parts.extensions, Right::Read, &key.instance)?;
        let result =
            self.actions.get(&key).await.map_err(|error| store_status("action_digest", &error))?;
        // Look-ups become part of builds that everybody sees, and push old ones out: a caller that may
        // only read writes nothing there either.
        let is_noted = self.guard.0.allows(&parts.extensions, Right::WriteBlobs, &key.instance);
        let Some(result) = result else {
            if is_noted {
                self.hits.missed(&parts.headers, &key.instance);
            }
            return Err(no_result(&key.action));
        };
        if is_noted {
            self.hits.publish(&parts.headers, &key, &result);
        }
        let wants_inline = request.inline_stdout
            || request.inline_stderr
            || !request.inline_output_files.is_empty();
        if !wants_inline {
            return Ok(reply(Encoded::whole(result)));
        }
        // Decoded, with what is inlined, and as the message that goes out.
        add(&mut charge, (result.len() as u64 + MAX_INLINE) * 2).await?;
        let result = Box::pin(self.inline(&request, &key, result)).await?;
        Ok(reply(Encoded::message(&result).charged(charge)))
    }

    /// Puts what was asked for into the result, as long as it fits into a message.
    async fn inline(
        &self,
        request: &wire::GetActionResultRequest,
        key: &ActionKey,
        result: Bytes,
    ) -> Result<ActionResult, Status> {
        let mut result = ActionResult::decode(result).map_err(|error| {
            store_status("action_digest", &StoreError::corrupt(error.to_string()))
        })?;
        let mut room = MAX_INLINE;
        if request.inline_stdout && result.stdout_raw.is_empty() {
            result.stdout_raw = self.small(key, &result.stdout_digest, &mut room).await?;
        }
        if request.inline_stderr && result.stderr_raw.is_empty() {
            result.stderr_raw = self.small(key, &result.stderr_digest, &mut room).await?;
        }
        let wanted: HashSet<&String> = request.inline_output_files.iter().collect();
        for file in &mut result.output_files {
            if file.contents.is_empty() && wanted.contains(&file.path) {
                file.contents = self.small(key, &file.digest, &mut room).await?;
            }
        }
        Ok(result)
    }

    /// The blob's bytes if they fit into `room`; otherwise none, and the client reads the blob.
    async fn small(
        &self,
        key: &ActionKey,
        digest: &Option<reapi::Digest>,
        room: &mut u64,
    ) -> Result<Vec<u8>, Status> {
        let Some(digest) = digest else { return Ok(Vec::new()) };
        let digest = Digest::from_wire(digest, key.action.function)
            .map_err(|error| digest_status("action_result", &error))?;
        if digest.size > *room {
            return Ok(Vec::new());
        }
        let blob = match self.blobs.read(&digest, 0, None).await {
            Ok(blob) => blob,
            Err(StoreError::NotFound(_)) => return Err(no_result(&key.action)),
            Err(error) => return Err(store_status("action_digest", &error)),
        };
        let data = blob.collect(*room).await.map_err(|e| store_status("action_digest", &e))?;
        *room -= data.len() as u64;
        Ok(data.into())
    }

    async fn update(
        &self,
        caller: Extensions,
        body: impl RequestBody,
    ) -> Result<Response<Body>, Status> {
        const NAME: &str = "UpdateActionResultRequest";
        let (request, mut charge): (reapi::UpdateActionResultRequest, _) =
            decode_single(&caller, body, NAME, MAX_MESSAGE).await?;
        self.guard.check(&caller, Right::WriteResults, &request.instance_name)?;
        let function = function(request.digest_function)?;
        let action = wire_digest("action_digest", &request.action_digest, function)?;
        let result = request
            .action_result
            .ok_or_else(|| Status::invalid_argument("action_result: it is not set"))?;
        let key = ActionKey { instance: request.instance_name.into(), action };
        let stored = store_result(&self.blobs, &self.actions, &key, result, &mut charge).await?;
        Ok(reply(Encoded::whole(stored)))
    }
}

/// Checks a result, completes it for clients of every version and stores it. Returns what was
/// stored. Errors: `FAILED_PRECONDITION` when a blob that it names is absent, be it after a failure of the
/// cache that came while it was stored.
pub async fn store_result(
    blobs: &SharedBlobStore,
    actions: &SharedActionCache,
    key: &ActionKey,
    mut result: ActionResult,
    charge: &mut Charge,
) -> Result<Bytes, Status> {
    let named = named_blobs(&result, key.action.function)
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    complete_for_all_clients(&mut result);
    let encoded = Bytes::from(result.encode_to_vec());
    if encoded.len() > MAX_ACTION_RESULT {
        return Err(Status::invalid_argument(format!(
            "action_result: {} bytes are over the limit of {MAX_ACTION_RESULT}; \
             leave stdout_raw, stderr_raw and contents out and upload them as blobs",
            encoded.len()
        )));
    }
    let not_stored = |error: StoreError| store_status("action_result", &error);
    for _ in 0..PUTS {
        let failures = actions.failures();
        check_present(blobs, &named, key, charge).await?;
        actions.put(key, encoded.clone()).await.map_err(not_stored)?;
        // Otherwise who has the result now need not know of the blobs that were found.
        if actions.failures() == failures {
            return Ok(encoded);
        }
    }
    Err(not_stored(StoreError::unavailable("the action cache has failed too often meanwhile")))
}

async fn check_present(
    blobs: &SharedBlobStore,
    named: &Named,
    key: &ActionKey,
    charge: &mut Charge,
) -> Result<(), Status> {
    refuse_missing(blobs, &named.trees).await?;
    // Each once, however often the result or its trees name it.
    let mut all: HashSet<Digest> = named.blobs.iter().chain(&named.roots).copied().collect();
    for tree in named.trees.iter().collect::<HashSet<_>>() {
        all.extend(files_of(blobs, tree, key, charge).await?);
    }
    let mut all: Vec<Digest> = all.into_iter().collect();
    all.sort_unstable();
    refuse_missing(blobs, &all).await
}

async fn refuse_missing(blobs: &SharedBlobStore, digests: &[Digest]) -> Result<(), Status> {
    let missing =
        blobs.find_missing(digests).await.map_err(|error| store_status("action_result", &error))?;
    if missing.is_empty() {
        return Ok(());
    }
    let what = "action_result: blobs that it names";
    Err(missing_blobs_error(what, "upload them first", &missing))
}

/// The files of an output directory, after checking that its tree is well formed.
async fn files_of(
    blobs: &SharedBlobStore,
    tree_digest: &Digest,
    key: &ActionKey,
    charge: &mut Charge,
) -> Result<Vec<Digest>, Status> {
    let field = format!("action_result.output_directories: tree {tree_digest}");
    let refuse = |error| store_status(&field, &error);
    let size = tree_digest.size;
    if size > MAX_TREE {
        return Err(refuse(StoreError::TooLarge { size, limit: MAX_TREE }));
    }
    // The message goes with the next tree, the digests of the files that it names stay.
    let mut tree = charge.another();
    add(&mut tree, size).await?;
    let blob = blobs.read(tree_digest, 0, None).await.map_err(refuse)?;
    let data = blob.collect(MAX_TREE).await.map_err(refuse)?;
    let function = key.action.function;
    let files = off_thread(size, move || tree_files(&data, function)).await?;
    let files = files.map_err(|error| Status::invalid_argument(format!("{field}: {error}")))?;
    add(charge, (files.len() * size_of::<Digest>()) as u64).await?;
    Ok(files)
}

/// One directory is decoded at a time.
fn tree_files(tree: &Bytes, function: DigestFunction) -> Result<Vec<Digest>, String> {
    let mut files = Vec::new();
    let mut has_root = false;
    for part in TreeParts::new(tree.clone()) {
        let part = part.map_err(|error| format!("it is not a Tree message: {error}"))?;
        has_root |= part.is_root;
        let directory: Directory = counted::decode(part.directory)
            .map_err(|error| format!("it is not a Tree message: {error}"))?;
        validate_directory(&directory).map_err(|error| error.to_string())?;
        for digest in directory.files.iter().filter_map(|file| file.digest.as_ref()) {
            files.push(Digest::from_wire(digest, function).map_err(|error| error.to_string())?);
        }
    }
    if has_root { Ok(files) } else { Err("root is not set".to_owned()) }
}

fn key(request: &wire::GetActionResultRequest) -> Result<ActionKey, Status> {
    let function = function(request.digest_function)?;
    let action = request
        .action_digest
        .as_ref()
        .ok_or(DigestError::Absent)
        .and_then(|digest| digest.parse(function))
        .map_err(|error| digest_status("action_digest", &error))?;
    let instance = std::str::from_utf8(&request.instance_name)
        .map_err(|_| Status::invalid_argument("instance_name: it is not UTF-8"))?;
    Ok(ActionKey { instance: instance.into(), action })
}

fn no_result(action: &Digest) -> Status {
    Status::not_found(format!("action_digest: no result is cached for action {action}"))
}
