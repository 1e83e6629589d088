//! The messages of the busiest calls, with `Bytes` where the generated ones copy: in the wire
//! format a string is bytes, and these decode as slices of what arrived.

use bytes::Bytes;
use kiln_protos::{bytestream, reapi, rpc};

use crate::counted::{Counted, LEAF, LIST_IN_2, Shape, counted, many};
use crate::digest::{DigestError, DigestFunction};

/// Most blobs of one batch: the answer, which names each, stays below the 4 MiB that clients of
/// gRPC take by default.
pub const MAX_BATCH_BLOBS: usize = 50_000;
/// Most digests of one request that is nothing but a list of them.
pub const MAX_DIGESTS: usize = 1 << 20;

counted! {
    ReadRequest: LEAF, 0;
    WriteRequest: LEAF, 0;
    FindMissingBlobsRequest: LIST_IN_2, MAX_DIGESTS;
    GetActionResultRequest: Shape(&[many(5, &LEAF)]), MAX_BATCH_BLOBS;
    BatchUpdateBlobsRequest: LIST_IN_2, MAX_BATCH_BLOBS;
    BatchReadBlobsRequest: LIST_IN_2, MAX_BATCH_BLOBS;
    reapi::GetTreeRequest: LEAF, 0;
    reapi::SplitBlobRequest: LEAF, 0;
    reapi::GetChunkMappingRequest: LEAF, 0;
    reapi::SpliceBlobRequest: Shape(&[many(3, &LEAF)]), MAX_DIGESTS;
    reapi::RegisterChunkMappingRequest: Shape(&[many(3, &LEAF)]), MAX_DIGESTS;
    bytestream::QueryWriteStatusRequest: LEAF, 0;
}

/// `google.bytestream.ReadRequest`
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub resource_name: Bytes,
    #[prost(int64, tag = "2")]
    pub read_offset: i64,
    #[prost(int64, tag = "3")]
    pub read_limit: i64,
}

/// `google.bytestream.WriteRequest`
#[derive(Clone, PartialEq, prost::Message)]
pub struct WriteRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub resource_name: Bytes,
    #[prost(int64, tag = "2")]
    pub write_offset: i64,
    #[prost(bool, tag = "3")]
    pub finish_write: bool,
    #[prost(bytes = "bytes", tag = "10")]
    pub data: Bytes,
}

/// `build.bazel.remote.execution.v2.Digest`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Digest {
    #[prost(bytes = "bytes", tag = "1")]
    pub hash: Bytes,
    #[prost(int64, tag = "2")]
    pub size_bytes: i64,
}

/// `build.bazel.remote.execution.v2.FindMissingBlobsRequest`
#[derive(Clone, PartialEq, prost::Message)]
pub struct FindMissingBlobsRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub instance_name: Bytes,
    #[prost(message, repeated, tag = "2")]
    pub blob_digests: Vec<Digest>,
    #[prost(int32, tag = "3")]
    pub digest_function: i32,
}

/// `build.bazel.remote.execution.v2.GetActionResultRequest`
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetActionResultRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub instance_name: Bytes,
    #[prost(message, optional, tag = "2")]
    pub action_digest: Option<Digest>,
    #[prost(bool, tag = "3")]
    pub inline_stdout: bool,
    #[prost(bool, tag = "4")]
    pub inline_stderr: bool,
    #[prost(string, repeated, tag = "5")]
    pub inline_output_files: Vec<String>,
    #[prost(int32, tag = "6")]
    pub digest_function: i32,
}

/// `build.bazel.remote.execution.v2.BatchUpdateBlobsRequest`
#[derive(Clone, PartialEq, prost::Message)]
pub struct BatchUpdateBlobsRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub instance_name: Bytes,
    #[prost(message, repeated, tag = "2")]
    pub requests: Vec<UpdateBlob>,
    #[prost(int32, tag = "5")]
    pub digest_function: i32,
}

/// `build.bazel.remote.execution.v2.BatchUpdateBlobsRequest.Request`
#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdateBlob {
    #[prost(message, optional, tag = "1")]
    pub digest: Option<Digest>,
    #[prost(bytes = "bytes", tag = "2")]
    pub data: Bytes,
    #[prost(int32, tag = "3")]
    pub compressor: i32,
}

/// `build.bazel.remote.execution.v2.BatchUpdateBlobsResponse`
#[derive(Clone, PartialEq, prost::Message)]
pub struct BatchUpdateBlobsResponse {
    #[prost(message, repeated, tag = "1")]
    pub responses: Vec<BlobUpdated>,
}

/// `build.bazel.remote.execution.v2.BatchUpdateBlobsResponse.Response`
#[derive(Clone, PartialEq, prost::Message)]
pub struct BlobUpdated {
    #[prost(message, optional, tag = "1")]
    pub digest: Option<Digest>,
    #[prost(message, optional, tag = "2")]
    pub status: Option<rpc::Status>,
}

/// `build.bazel.remote.execution.v2.BatchReadBlobsRequest`
#[derive(Clone, PartialEq, prost::Message)]
pub struct BatchReadBlobsRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub instance_name: Bytes,
    #[prost(message, repeated, tag = "2")]
    pub digests: Vec<Digest>,
    #[prost(int32, repeated, tag = "3")]
    pub acceptable_compressors: Vec<i32>,
    #[prost(int32, tag = "4")]
    pub digest_function: i32,
}

/// `build.bazel.remote.execution.v2.BatchReadBlobsResponse`
#[derive(Clone, PartialEq, prost::Message)]
pub struct BatchReadBlobsResponse {
    #[prost(message, repeated, tag = "1")]
    pub responses: Vec<BlobRead>,
}

/// `build.bazel.remote.execution.v2.BatchReadBlobsResponse.Response`
#[derive(Clone, PartialEq, prost::Message)]
pub struct BlobRead {
    #[prost(message, optional, tag = "1")]
    pub digest: Option<Digest>,
    #[prost(bytes = "bytes", tag = "2")]
    pub data: Bytes,
    #[prost(message, optional, tag = "3")]
    pub status: Option<rpc::Status>,
    #[prost(int32, tag = "4")]
    pub compressor: i32,
}

impl Digest {
    pub fn parse(&self, function: DigestFunction) -> Result<crate::Digest, DigestError> {
        let size = u64::try_from(self.size_bytes)
            .map_err(|_| DigestError::NegativeSize(self.size_bytes))?;
        crate::Digest::from_hex(&self.hash, size, function)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    /// What our type decodes from `wire` encodes to the same as what the generated one does.
    fn agree<Ours: Message + Default, Theirs: Message + Default>(wire: &[u8]) {
        let ours = Ours::decode(Bytes::copy_from_slice(wire)).expect("valid input decodes");
        let theirs = Theirs::decode(wire).expect("valid input decodes");
        assert_eq!(ours.encode_to_vec(), theirs.encode_to_vec());
    }

    fn wire_digest() -> impl Strategy<Value = Option<reapi::Digest>> {
        proptest::option::of(
            ("[0-9a-f]{0,64}", any::<i64>())
                .prop_map(|(hash, size_bytes)| reapi::Digest { hash, size_bytes }),
        )
    }

    proptest! {
        #[test]
        fn byte_stream_messages_agree_with_the_generated_ones(
            resource_name: String, offset: i64, limit: i64, finish_write: bool, data: Vec<u8>,
        ) {
            let read = bytestream::ReadRequest {
                resource_name: resource_name.clone(), read_offset: offset, read_limit: limit,
            };
            agree::<ReadRequest, bytestream::ReadRequest>(&read.encode_to_vec());
            let write = bytestream::WriteRequest {
                resource_name, write_offset: offset, finish_write, data,
            };
            agree::<WriteRequest, bytestream::WriteRequest>(&write.encode_to_vec());
        }

        #[test]
        fn cache_messages_agree_with_the_generated_ones(
            instance_name: String, digest in wire_digest(), flag: bool, files: Vec<String>,
            data: Vec<u8>, number: i32,
        ) {
            let get = reapi::GetActionResultRequest {
                instance_name: instance_name.clone(), action_digest: digest.clone(),
                inline_stdout: flag, inline_stderr: !flag, inline_output_files: files,
                digest_function: number,
            };
            agree::<GetActionResultRequest, reapi::GetActionResultRequest>(&get.encode_to_vec());
            let request = reapi::batch_update_blobs_request::Request {
                digest: digest.clone(), data: data.clone(), compressor: number,
            };
            let update = reapi::BatchUpdateBlobsRequest {
                instance_name: instance_name.clone(), requests: vec![request.clone(), request],
                digest_function: number,
            };
            agree::<BatchUpdateBlobsRequest, reapi::BatchUpdateBlobsRequest>(
                &update.encode_to_vec(),
            );
            let read = reapi::BatchReadBlobsRequest {
                instance_name, digests: digest.clone().into_iter().collect(),
                acceptable_compressors: vec![number, 1], digest_function: number,
            };
            agree::<BatchReadBlobsRequest, reapi::BatchReadBlobsRequest>(&read.encode_to_vec());
            let response = reapi::batch_read_blobs_response::Response {
                digest, data, compressor: number, status: Some(rpc::Status::default()),
            };
            let responses = reapi::BatchReadBlobsResponse { responses: vec![response] };
            agree::<BatchReadBlobsResponse, reapi::BatchReadBlobsResponse>(
                &responses.encode_to_vec(),
            );
        }

        #[test]
        fn arbitrary_bytes_never_panic(data: Vec<u8>) {
            let data = Bytes::from(data);
            let _ = ReadRequest::decode(data.clone());
            let _ = WriteRequest::decode(data.clone());
            let _ = GetActionResultRequest::decode(data.clone());
            let _ = BatchUpdateBlobsRequest::decode(data.clone());
            let _ = BatchReadBlobsRequest::decode(data);
        }
    }
}
