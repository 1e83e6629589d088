//! What Buck2's open-source remote execution client sends, and what it insists on in the answers:
//! where Buck2 would report an error, an assertion fails here.

use std::collections::BTreeMap;

use kiln_cas::DigestFunction;
use kiln_protos::bytestream::byte_stream_client::ByteStreamClient;
use kiln_protos::bytestream::{ReadRequest, WriteRequest};
use kiln_protos::longrunning::operation;
use kiln_protos::reapi;
use kiln_protos::reapi::action_cache_client::ActionCacheClient;
use kiln_protos::reapi::compressor::Value as Compressor;
use kiln_protos::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use kiln_protos::reapi::execution_client::ExecutionClient;
use prost::Message;
use tonic::transport::Channel;

use super::channel::{
    BUILD_ID, cache_capabilities, channel, compress, forward, with_metadata, without_build,
};

/// How many digests Buck2 puts into one `FindMissingBlobs`, unless `find_missing_blobs_batch_size` says otherwise.
const FIND_MISSING_BATCH: usize = 100;
/// The most bytes of a batch where the server does not say it, or Buck2 does not ask.
const DEFAULT_MAX_TOTAL_BATCH_SIZE: usize = 4 * 1000 * 1000;
/// Buck2 sends blobs of fewer bytes uncompressed even where it compresses batches.
const BATCH_COMPRESSION_THRESHOLD: usize = 100;

/// The keys of the section `[buck2_re_client]` that the tests set.
#[derive(Clone, Copy, Default)]
pub struct Settings {
    pub instance_name: Option<&'static str>,
    /// Stands for `capabilities = false`: Buck2 asks the server for nothing and compresses nothing.
    pub without_capabilities: bool,
    pub max_total_batch_size: Option<usize>,
    /// Whether this is a version of Buck2 that compresses blobs in batches too, where the server can take it.
    pub compressed_batches: bool,
}

pub struct Buck2 {
    settings: Settings,
    pub max_total_batch_size: usize,
    pub zstd: bool,
    batch_zstd: bool,
    cas: Channel,
    execution: Channel,
    action_cache: Channel,
    byte_stream: Channel,
}

/// The error of a call, with the code and the message that Buck2 shows to its user.
#[derive(Debug)]
pub struct Failed {
    pub code: tonic::Code,
    pub message: String,
}

impl From<tonic::Status> for Failed {
    fn from(status: tonic::Status) -> Self {
        Self { code: status.code(), message: status.message().to_owned() }
    }
}

/// What Buck2 takes from an `ActionResult`.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub exit_code: i32,
    /// For each path, the file's digest and whether it is executable.
    pub files: BTreeMap<String, (reapi::Digest, bool)>,
    pub symlinks: BTreeMap<String, String>,
    /// For each path, the digest of the directory's `Tree` message.
    pub directories: BTreeMap<String, reapi::Digest>,
    pub stdout: (Vec<u8>, Option<reapi::Digest>),
    pub stderr: (Vec<u8>, Option<reapi::Digest>),
    pub metadata: reapi::ExecutedActionMetadata,
}

pub fn digest(data: &[u8]) -> reapi::Digest {
    DigestFunction::Sha256.digest(data).to_wire()
}

impl Buck2 {
    /// Connects to `address`, which is written as in `.buckconfig`. Panics where Buck2 would not start.
    pub async fn connect(address: &str, settings: Settings) -> Self {
        let (execution, capabilities) = (channel(address).await, channel(address).await);
        let (mut max_total_batch_size, mut zstd, mut batch_zstd) = (None, false, false);
        if !settings.without_capabilities {
            let cache = cache_capabilities(capabilities, &settings).await;
            max_total_batch_size = usize::try_from(cache.max_batch_total_size_bytes).ok();
            zstd = cache.supported_compressors.contains(&(Compressor::Zstd as i32));
            batch_zstd = settings.compressed_batches
                && cache.supported_batch_update_compressors.contains(&(Compressor::Zstd as i32));
        }
        let sizes = [max_total_batch_size.filter(|size| *size != 0), settings.max_total_batch_size];
        Self {
            settings,
            max_total_batch_size: sizes
                .into_iter()
                .flatten()
                .min()
                .unwrap_or(DEFAULT_MAX_TOTAL_BATCH_SIZE),
            zstd,
            batch_zstd,
            cas: channel(address).await,
            execution,
            action_cache: channel(address).await,
            byte_stream: channel(address).await,
        }
    }

    fn instance_name(&self) -> String {
        self.settings.instance_name.unwrap_or_default().to_owned()
    }

    fn resource_prefix(&self) -> String {
        self.settings.instance_name.map_or_else(String::new, |name| format!("{name}/"))
    }

    fn cas(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.cas.clone())
            .max_decoding_message_size(2 * self.max_total_batch_size)
    }

    fn byte_stream(&self) -> ByteStreamClient<Channel> {
        ByteStreamClient::new(self.byte_stream.clone())
            .max_decoding_message_size(2 * self.max_total_batch_size)
    }

    /// Returns those of the digests that the server lacks. Buck2 keeps both answers, that a blob is there and that it
    /// is missing, for 12 hours.
    pub async fn missing(&self, digests: &[reapi::Digest]) -> Vec<reapi::Digest> {
        let mut missing = Vec::new();
        for some in digests.chunks(FIND_MISSING_BATCH) {
            let request = reapi::FindMissingBlobsRequest {
                instance_name: self.instance_name(),
                blob_digests: some.to_vec(),
                ..Default::default()
            };
            let answer = self.cas().find_missing_blobs(with_metadata(request)).await.unwrap();
            missing.extend(answer.into_inner().missing_blob_digests);
        }
        missing
    }

    /// Uploads blobs. Those below the maximum go in batches, which Buck2 fills by the sizes in the digests alone; all
    /// others go by ByteStream.
    pub async fn upload(&self, blobs: &[Vec<u8>]) -> Result<(), Failed> {
        let (mut batch, mut size) = (Vec::new(), 0);
        for blob in blobs.iter().filter(|blob| !blob.is_empty()) {
            if blob.len() >= self.max_total_batch_size {
                self.write(blob).await?;
                continue;
            }
            size += blob.len();
            if size >= self.max_total_batch_size {
                self.update_batch(std::mem::take(&mut batch)).await?;
                size = blob.len();
            }
            batch.push(blob.clone());
        }
        if batch.is_empty() { Ok(()) } else { self.update_batch(batch).await }
    }

    async fn update_batch(&self, blobs: Vec<Vec<u8>>) -> Result<(), Failed> {
        let upload = |blob: Vec<u8>| {
            let digest = Some(digest(&blob));
            let (data, compressor) = match self.batch_zstd {
                true if blob.len() > BATCH_COMPRESSION_THRESHOLD => {
                    (compress(&blob), Compressor::Zstd)
                }
                _ => (blob, Compressor::Identity),
            };
            let compressor = compressor as i32;
            reapi::batch_update_blobs_request::Request { digest, data, compressor }
        };
        let request = reapi::BatchUpdateBlobsRequest {
            instance_name: self.instance_name(),
            requests: blobs.into_iter().map(upload).collect(),
            ..Default::default()
        };
        let answer = self.cas().batch_update_blobs(with_metadata(request)).await?.into_inner();
        for response in answer.responses {
            let status = response.status.unwrap_or_default();
            assert_eq!(status.code, 0, "upload: {}", status.message);
        }
        Ok(())
    }

    /// Writes a blob by ByteStream in messages of up to a batch's maximum, each of which repeats the resource name.
    pub async fn write(&self, blob: &[u8]) -> Result<(), Failed> {
        let digest = digest(blob);
        let (kind, data) = match self.zstd {
            true => ("compressed-blobs/zstd", compress(blob)),
            false => ("blobs", blob.to_vec()),
        };
        let resource_name = format!(
            "{}uploads/{BUILD_ID}/{kind}/{}/{}",
            self.resource_prefix(),
            digest.hash,
            digest.size_bytes
        );
        let mut segments: Vec<WriteRequest> = Vec::new();
        let mut write_offset = 0;
        for piece in data.chunks(self.max_total_batch_size) {
            let (resource_name, data) = (resource_name.clone(), piece.to_vec());
            segments.push(WriteRequest { resource_name, write_offset, data, finish_write: false });
            write_offset += piece.len() as i64;
        }
        segments.last_mut().unwrap().finish_write = true;
        let segments = with_metadata(futures_util::stream::iter(segments));
        let committed = self.byte_stream().write(segments).await?.into_inner().committed_size;
        assert!([write_offset, -1].contains(&committed), "committed_size {committed}");
        Ok(())
    }

    /// Returns the bytes of a blob, by `BatchReadBlobs` if it is below the maximum, otherwise by `ByteStream.Read`.
    pub async fn download(&self, digest: &reapi::Digest) -> Vec<u8> {
        match usize::try_from(digest.size_bytes).unwrap() {
            0 => Vec::new(),
            size if size >= self.max_total_batch_size => self.read(digest).await,
            _ => self.read_batch(digest).await,
        }
    }

    async fn read_batch(&self, digest: &reapi::Digest) -> Vec<u8> {
        let mut acceptable_compressors = vec![Compressor::Identity as i32];
        if self.batch_zstd {
            acceptable_compressors.insert(0, Compressor::Zstd as i32);
        }
        let request = reapi::BatchReadBlobsRequest {
            instance_name: self.instance_name(),
            digests: vec![digest.clone()],
            acceptable_compressors,
            ..Default::default()
        };
        let answer = self.cas().batch_read_blobs(with_metadata(request)).await.unwrap();
        let [response] = answer.into_inner().responses.try_into().unwrap();
        let status = response.status.unwrap_or_default();
        assert_eq!(status.code, 0, "download: {}", status.message);
        assert_eq!(response.digest.as_ref(), Some(digest));
        if response.compressor == Compressor::Identity as i32 {
            return response.data;
        }
        assert!(self.batch_zstd && response.compressor == Compressor::Zstd as i32);
        zstd::decode_all(&response.data[..]).unwrap()
    }

    async fn read(&self, digest: &reapi::Digest) -> Vec<u8> {
        let kind = if self.zstd { "compressed-blobs/zstd" } else { "blobs" };
        let prefix = self.resource_prefix();
        let resource_name = format!("{prefix}{kind}/{}/{}", digest.hash, digest.size_bytes);
        let request = ReadRequest { resource_name, read_offset: 0, read_limit: 0 };
        let answer = self.byte_stream().read(with_metadata(request)).await.unwrap();
        let (mut messages, mut data) = (answer.into_inner(), Vec::new());
        while let Some(message) = messages.message().await.unwrap() {
            data.extend(message.data);
        }
        if self.zstd { zstd::decode_all(&data[..]).unwrap() } else { data }
    }

    /// Looks an action up in the cache. Buck2 asks for no inlined contents. Panics on any error but NOT_FOUND,
    /// because that fails Buck2's build.
    pub async fn cached(&self, action: &reapi::Digest) -> Option<Outcome> {
        let request = reapi::GetActionResultRequest {
            instance_name: self.instance_name(),
            action_digest: Some(action.clone()),
            ..Default::default()
        };
        let mut client = ActionCacheClient::new(self.action_cache.clone());
        match client.get_action_result(without_build(request)).await {
            Ok(result) => Some(Outcome::of(result.into_inner())),
            Err(status) if status.code() == tonic::Code::NotFound => None,
            Err(status) => panic!("GetActionResult: {status}"),
        }
    }

    /// Writes a result. Buck2 reads the answer as it reads that of `GetActionResult`.
    pub async fn write_result(
        &self,
        action: &reapi::Digest,
        result: reapi::ActionResult,
    ) -> Result<Outcome, Failed> {
        let request = reapi::UpdateActionResultRequest {
            instance_name: self.instance_name(),
            action_digest: Some(action.clone()),
            action_result: Some(result),
            ..Default::default()
        };
        let mut client = ActionCacheClient::new(self.action_cache.clone());
        let stored = client.update_action_result(without_build(request)).await?;
        Ok(Outcome::of(stored.into_inner()))
    }

    /// Executes an action. Buck2 takes any status but OK in the response as an error and drops the result; so it does
    /// for timeouts, too.
    pub async fn execute(&self, action: &reapi::Digest) -> Result<Outcome, Failed> {
        let request = reapi::ExecuteRequest {
            instance_name: self.instance_name(),
            action_digest: Some(action.clone()),
            execution_policy: Some(reapi::ExecutionPolicy { priority: 0 }),
            results_cache_policy: Some(reapi::ResultsCachePolicy { priority: 0 }),
            ..Default::default()
        };
        let mut client = ExecutionClient::new(self.execution.clone());
        let mut updates = client.execute(with_metadata(request)).await?.into_inner();
        while let Some(update) = updates.message().await? {
            if !update.done {
                let metadata = update.metadata.unwrap_or_default();
                let metadata =
                    reapi::ExecuteOperationMetadata::decode(&metadata.value[..]).unwrap();
                assert_eq!(metadata.action_digest.as_ref(), Some(action));
                continue;
            }
            let result = update.result.expect("a result of an operation that is done");
            let operation::Result::Response(response) = result else {
                panic!("Operation.error is set: {result:?}")
            };
            let response = reapi::ExecuteResponse::decode(&response.value[..]).unwrap();
            let status = response.status.unwrap_or_default();
            if status.code != 0 {
                return Err(Failed { code: status.code.into(), message: status.message });
            }
            return Ok(Outcome::of(response.result.expect("the action result is defined")));
        }
        panic!("the stream ended without an ExecuteResponse")
    }

    /// Returns for each path in the directory the content of the file or the target of the symlink.
    pub async fn directory(&self, tree: &reapi::Digest) -> BTreeMap<String, String> {
        let tree = reapi::Tree::decode(&self.download(tree).await[..]).unwrap();
        // Buck2 finds a child by the digest of its message, which it encodes anew for that.
        let children: BTreeMap<String, &reapi::Directory> = tree
            .children
            .iter()
            .map(|child| (digest(&child.encode_to_vec()).hash, child))
            .collect();
        let mut all = BTreeMap::new();
        let mut open = vec![(String::new(), tree.root.as_ref().expect("Tree.root"))];
        while let Some((path, directory)) = open.pop() {
            for node in &directory.directories {
                let child = children[&node.digest.as_ref().unwrap().hash];
                open.push((format!("{path}{}/", node.name), child));
            }
            for node in &directory.symlinks {
                all.insert(format!("{path}{}", node.name), format!("-> {}", node.target));
            }
            for node in &directory.files {
                let content = self.download(node.digest.as_ref().unwrap()).await;
                all.insert(format!("{path}{}", node.name), String::from_utf8(content).unwrap());
            }
        }
        all
    }

    /// Returns the inline text, or downloads the blob where nothing is inline.
    pub async fn text(&self, (raw, digest): &(Vec<u8>, Option<reapi::Digest>)) -> String {
        let bytes = match digest {
            Some(digest) if raw.is_empty() => self.download(digest).await,
            _ => raw.clone(),
        };
        String::from_utf8(bytes).unwrap()
    }
}

impl Outcome {
    /// Reads a result as Buck2 does. Panics where Buck2 would report an error.
    pub fn of(result: reapi::ActionResult) -> Self {
        let metadata = result.execution_metadata.expect("the execution metadata are defined");
        let mut outcome = Self {
            exit_code: result.exit_code,
            files: BTreeMap::new(),
            symlinks: BTreeMap::new(),
            directories: BTreeMap::new(),
            stdout: (result.stdout_raw, result.stdout_digest),
            stderr: (result.stderr_raw, result.stderr_digest),
            metadata,
        };
        for file in result.output_files {
            let digest = file.digest.expect("OutputFile.digest");
            outcome.files.insert(forward(file.path), (digest, file.is_executable));
        }
        for link in result.output_symlinks {
            assert!(!link.target.starts_with('/'), "Buck2 takes relative targets only");
            outcome.symlinks.insert(forward(link.path), link.target);
        }
        for directory in result.output_directories {
            let tree = directory.tree_digest.expect("OutputDirectory.tree_digest");
            outcome.directories.insert(forward(directory.path), tree);
        }
        outcome
    }
}
