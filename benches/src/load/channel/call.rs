//! Where calls go, and what is sent with each of them.

use std::net::SocketAddr;

use http::header::{HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Uri};
use kiln_protos::reapi;
use prost::Message;
use tonic::metadata::BinaryMetadataValue;

/// The sizes of HTTP/2 windows and frames, in bytes; `None`: the protocol's default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Windows {
    pub stream: Option<u32>,
    pub connection: Option<u32>,
    pub frame: Option<u32>,
}

/// The server to connect to, and the settings of the connection.
#[derive(Debug, Clone)]
pub struct Address {
    pub socket: SocketAddr,
    pub authority: Authority,
    pub windows: Windows,
    /// The RequestMetadata that is sent with every call; `None`: none is sent.
    pub metadata: Option<HeaderValue>,
}

/// Name of the header that holds a RequestMetadata.
pub const REQUEST_METADATA: HeaderName =
    HeaderName::from_static("build.bazel.remote.execution.v2.requestmetadata-bin");

/// The RequestMetadata that Bazel would send with the calls of one action, as the value of a
/// header.
pub fn request_metadata() -> Option<HeaderValue> {
    let metadata = reapi::RequestMetadata {
        tool_details: Some(reapi::ToolDetails {
            tool_name: "bazel".to_owned(),
            tool_version: "8.4.2".to_owned(),
        }),
        action_id: "c".repeat(64),
        tool_invocation_id: "5f3c1e1a-7a7e-4c0e-a8fd-0b1a6a0d94b2".to_owned(),
        correlated_invocations_id: "0f3c1e1a-7a7e-4c0e-a8fd-0b1a6a0d94b2".to_owned(),
        action_mnemonic: "CppCompile".to_owned(),
        target_id: "//server/http:http".to_owned(),
        configuration_id: "d".repeat(64),
    };
    let value = BinaryMetadataValue::from_bytes(&metadata.encode_to_vec());
    HeaderValue::from_bytes(value.as_encoded_bytes()).ok()
}

/// A method of one target.
#[derive(Debug, Clone)]
pub struct Rpc {
    pub uri: Uri,
    pub path: PathAndQuery,
}
