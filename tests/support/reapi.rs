//! A small REAPI client: uploads a command and runs it.

use kiln_protos::reapi::action_cache_client::ActionCacheClient;
use kiln_protos::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use kiln_protos::reapi::execution_client::ExecutionClient;
use kiln_protos::{bytestream, longrunning, protobuf, reapi};
use prost::Message;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

/// A connection over which the caller says who it is.
pub type Connection = InterceptedService<Channel, Authorization>;

#[derive(Clone)]
pub struct Client {
    pub channel: Connection,
    pub instance: String,
}

/// The value of the `authorization` header, which says who calls; `None`: it is not sent.
#[derive(Clone, Default)]
pub struct Authorization(pub Option<String>);

impl Interceptor for Authorization {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(value) = &self.0 {
            let value = value.parse().expect("a value of a header");
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

/// The description of one action, with what a test may want to change.
#[derive(Clone)]
pub struct Spec {
    pub command: reapi::Command,
    pub input_root: reapi::Directory,
    pub timeout: Option<u64>,
    pub do_not_cache: bool,
    pub skip_cache_lookup: bool,
}

impl Spec {
    /// An action that runs `sh -c script` without inputs and leaves these outputs.
    pub fn shell(script: &str, outputs: &[&str]) -> Self {
        let command = reapi::Command {
            arguments: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            output_paths: outputs.iter().map(|path| (*path).to_owned()).collect(),
            ..Default::default()
        };
        Self {
            command,
            input_root: reapi::Directory::default(),
            timeout: Some(60),
            do_not_cache: false,
            skip_cache_lookup: false,
        }
    }
}

impl Client {
    pub async fn connect(url: &str) -> Self {
        let channel = Channel::from_shared(url.to_owned())
            .expect("a URL")
            .connect()
            .await
            .expect("the server accepts connections");
        Self::over(channel)
    }

    pub fn over(channel: Channel) -> Self {
        Self::as_caller(channel, Authorization::default())
    }

    /// A client that sends this value of the `authorization` header.
    pub fn as_caller(channel: Channel, authorization: Authorization) -> Self {
        let channel = InterceptedService::new(channel, authorization);
        Self { channel, instance: "e2e/tests".into() }
    }

    pub async fn put(&self, data: &[u8]) -> reapi::Digest {
        let digest = kiln_cas::DigestFunction::Sha256.digest(data).to_wire();
        let request = reapi::batch_update_blobs_request::Request {
            digest: Some(digest.clone()),
            data: data.to_vec(),
            ..Default::default()
        };
        let response = ContentAddressableStorageClient::new(self.channel.clone())
            .batch_update_blobs(reapi::BatchUpdateBlobsRequest {
                instance_name: self.instance.clone(),
                requests: vec![request],
                ..Default::default()
            })
            .await
            .expect("the upload is answered")
            .into_inner();
        let status = response.responses[0].status.clone().unwrap_or_default();
        assert_eq!(status.code, 0, "upload: {}", status.message);
        digest
    }

    pub async fn missing(&self, digests: &[reapi::Digest]) -> Vec<reapi::Digest> {
        let request = reapi::FindMissingBlobsRequest {
            instance_name: self.instance.clone(),
            blob_digests: digests.to_vec(),
            ..Default::default()
        };
        let mut blobs = ContentAddressableStorageClient::new(self.channel.clone());
        let answer = blobs.find_missing_blobs(request).await.expect("an answer");
        answer.into_inner().missing_blob_digests
    }

    pub async fn read(&self, digest: &reapi::Digest) -> Vec<u8> {
        let prefix = match self.instance.as_str() {
            "" => String::new(),
            instance => format!("{instance}/"),
        };
        let name = format!("{prefix}blobs/{}/{}", digest.hash, digest.size_bytes);
        let mut stream =
            bytestream::byte_stream_client::ByteStreamClient::new(self.channel.clone())
                .read(bytestream::ReadRequest { resource_name: name, ..Default::default() })
                .await
                .expect("the blob can be read")
                .into_inner();
        let mut all = Vec::new();
        while let Some(chunk) = stream.message().await.expect("the stream goes on") {
            all.extend(chunk.data);
        }
        all
    }

    /// Uploads the action and returns its digest.
    pub async fn prepare(&self, spec: &Spec) -> reapi::Digest {
        let command = self.put(&spec.command.encode_to_vec()).await;
        let root = self.put(&spec.input_root.encode_to_vec()).await;
        let action = reapi::Action {
            command_digest: Some(command),
            input_root_digest: Some(root),
            timeout: spec
                .timeout
                .map(|seconds| protobuf::Duration { seconds: seconds as i64, nanos: 0 }),
            do_not_cache: spec.do_not_cache,
            ..Default::default()
        };
        self.put(&action.encode_to_vec()).await
    }

    /// Uploads an action and runs it to its end. Errors are those of the call itself.
    pub async fn execute(&self, spec: &Spec) -> Result<reapi::ExecuteResponse, tonic::Status> {
        let action = self.prepare(spec).await;
        self.execute_action(action, spec.skip_cache_lookup).await
    }

    pub async fn execute_action(
        &self,
        action: reapi::Digest,
        skip_cache_lookup: bool,
    ) -> Result<reapi::ExecuteResponse, tonic::Status> {
        self.wait(tonic::Request::new(self.request(action, skip_cache_lookup))).await
    }

    /// Runs an uploaded action with the metadata that Bazel sends: the build, target and mnemonic
    /// that it belongs to.
    pub async fn execute_with(
        &self,
        action: reapi::Digest,
        metadata: &reapi::RequestMetadata,
    ) -> Result<reapi::ExecuteResponse, tonic::Status> {
        let mut request = tonic::Request::new(self.request(action, false));
        let value = tonic::metadata::MetadataValue::from_bytes(&metadata.encode_to_vec());
        request
            .metadata_mut()
            .insert_bin("build.bazel.remote.execution.v2.requestmetadata-bin", value);
        self.wait(request).await
    }

    fn request(&self, action: reapi::Digest, skip_cache_lookup: bool) -> reapi::ExecuteRequest {
        reapi::ExecuteRequest {
            instance_name: self.instance.clone(),
            action_digest: Some(action),
            skip_cache_lookup,
            ..Default::default()
        }
    }

    async fn wait(
        &self,
        request: tonic::Request<reapi::ExecuteRequest>,
    ) -> Result<reapi::ExecuteResponse, tonic::Status> {
        let mut execution = ExecutionClient::new(self.channel.clone());
        let mut updates = execution.execute(request).await?.into_inner();
        while let Some(operation) = updates.message().await? {
            if let Some(longrunning::operation::Result::Response(any)) = operation.result {
                return Ok(reapi::ExecuteResponse::decode(any.value.as_slice())
                    .expect("the response is an ExecuteResponse"));
            }
        }
        Err(tonic::Status::data_loss("the stream ended without a response"))
    }

    pub async fn cached(&self, action: &reapi::Digest) -> Option<reapi::ActionResult> {
        let request = reapi::GetActionResultRequest {
            instance_name: self.instance.clone(),
            action_digest: Some(action.clone()),
            ..Default::default()
        };
        match ActionCacheClient::new(self.channel.clone()).get_action_result(request).await {
            Ok(result) => Some(result.into_inner()),
            Err(status) if status.code() == tonic::Code::NotFound => None,
            Err(status) => panic!("GetActionResult: {status}"),
        }
    }
}

/// The text of stdout and of stderr, each from the result itself (`stdout_raw`) or from the blob
/// that it names.
pub async fn output_text(client: &Client, result: &reapi::ActionResult) -> (String, String) {
    let stdout = text(client, &result.stdout_raw, result.stdout_digest.as_ref()).await;
    let stderr = text(client, &result.stderr_raw, result.stderr_digest.as_ref()).await;
    (stdout, stderr)
}

async fn text(client: &Client, raw: &[u8], digest: Option<&reapi::Digest>) -> String {
    let bytes = match digest {
        Some(digest) if raw.is_empty() && digest.size_bytes > 0 => client.read(digest).await,
        _ => raw.to_vec(),
    };
    String::from_utf8_lossy(&bytes).into_owned()
}
