//! Connections as Buck2 makes them, and what it says of itself in each request.

use std::time::Duration;

use kiln_protos::reapi;
use kiln_protos::reapi::capabilities_client::CapabilitiesClient;
use prost::Message;
use tonic::transport::{Channel, Endpoint};

use super::client::Settings;

/// The id of the one build.
pub const BUILD_ID: &str = "7f3c0b3e-4a66-4c3f-9d2c-0f5a3b1e8d21";

/// Paths are relative and normalised; one slash at the end is allowed.
pub fn forward(path: String) -> String {
    let path = path.strip_suffix('/').unwrap_or(&path).to_owned();
    let normal = |part: &str| !part.is_empty() && part != "." && part != "..";
    assert!(path.split('/').all(normal), "{path:?} is not a forward relative path");
    path
}

/// With or without the scheme `grpc`; `http` is refused. One connection for each service.
pub async fn channel(address: &str) -> Channel {
    let authority = address.strip_prefix("grpc://").unwrap_or(address);
    Endpoint::from_shared(format!("http://{authority}"))
        .unwrap()
        // `grpc_keepalive_time_secs` and its companions, shorter than any user would have them.
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true)
        .connect()
        .await
        .expect("the server accepts connections")
}

pub async fn cache_capabilities(channel: Channel, settings: &Settings) -> reapi::CacheCapabilities {
    let instance_name = settings.instance_name.unwrap_or_default().to_owned();
    // The one call without RequestMetadata.
    let answer = CapabilitiesClient::new(channel)
        .get_capabilities(reapi::GetCapabilitiesRequest { instance_name })
        .await
        .unwrap();
    answer.into_inner().cache_capabilities.unwrap()
}

/// Calls for an action name the build.
pub fn with_metadata<T>(message: T) -> tonic::Request<T> {
    metadata_of(BUILD_ID, message)
}

/// Those of the action cache do not.
pub fn without_build<T>(message: T) -> tonic::Request<T> {
    metadata_of("", message)
}

pub fn metadata_of<T>(tool_invocation_id: &str, message: T) -> tonic::Request<T> {
    let metadata = reapi::RequestMetadata {
        tool_details: Some(reapi::ToolDetails {
            tool_name: "buck2".into(),
            tool_version: "0.1.0".into(),
        }),
        tool_invocation_id: tool_invocation_id.into(),
        ..Default::default()
    };
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert_bin(
        "build.bazel.remote.execution.v2.requestmetadata-bin",
        tonic::metadata::MetadataValue::from_bytes(&metadata.encode_to_vec()),
    );
    request
}

pub fn compress(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 0).unwrap()
}
