//! Connections as Buck2 makes them, and the metadata by which Buck2 describes itself in each request.

use std::time::Duration;

use kiln_protos::reapi;
use kiln_protos::reapi::capabilities_client::CapabilitiesClient;
use prost::Message;
use tonic::transport::{Channel, Endpoint};

use super::client::Settings;

/// The invocation id of the one build that these tests pretend to run.
pub const BUILD_ID: &str = "7f3c0b3e-4a66-4c3f-9d2c-0f5a3b1e8d21";

/// Returns `path` without a slash at its end, as Buck2 requires outputs to be named. Panics unless it is relative and
/// normalised.
pub fn forward(path: String) -> String {
    let path = path.strip_suffix('/').unwrap_or(&path).to_owned();
    let normal = |part: &str| !part.is_empty() && part != "." && part != "..";
    assert!(path.split('/').all(normal), "{path:?} is not a forward relative path");
    path
}

/// Connects to `address`, with or without the scheme `grpc`. Panics where it has the scheme `http`, which Buck2
/// refuses, too. Buck2 opens one such connection for each service.
pub async fn channel(address: &str) -> Channel {
    let authority = address.strip_prefix("grpc://").unwrap_or(address);
    Endpoint::from_shared(format!("http://{authority}"))
        .unwrap()
        // These are `grpc_keepalive_time_secs` and its companions, set shorter than any user would set them.
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true)
        .connect()
        .await
        .expect("the server accepts connections")
}

pub async fn cache_capabilities(channel: Channel, settings: &Settings) -> reapi::CacheCapabilities {
    let instance_name = settings.instance_name.unwrap_or_default().to_owned();
    // Buck2 sends every call but this one with a RequestMetadata.
    let answer = CapabilitiesClient::new(channel)
        .get_capabilities(reapi::GetCapabilitiesRequest { instance_name })
        .await
        .unwrap();
    answer.into_inner().cache_capabilities.unwrap()
}

/// Wraps the message of a call that is about an action: Buck2 names its build there.
pub fn with_metadata<T>(message: T) -> tonic::Request<T> {
    metadata_of(BUILD_ID, message)
}

/// Wraps the message of a call to the action cache: Buck2 does not name its build there.
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
