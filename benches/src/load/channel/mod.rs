//! One HTTP/2 connection and the kinds of call on it, with one of two clients.

mod lean;
mod usual;

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use kiln_protos::reapi;
use prost::Message;
use tokio::runtime::Handle;
use tonic::metadata::BinaryMetadataValue;

use super::args::ClientKind;
use super::error::CallError;
use super::wire::Framed;

/// HTTP/2 settings; `None`: the protocol's default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Windows {
    pub stream: Option<u32>,
    pub connection: Option<u32>,
    pub frame: Option<u32>,
}

/// Where and how to connect.
#[derive(Debug, Clone)]
pub struct Address {
    pub socket: SocketAddr,
    pub authority: Authority,
    pub windows: Windows,
    /// Sent with every call.
    pub metadata: Option<HeaderValue>,
}

/// Name of the header that holds a RequestMetadata.
const REQUEST_METADATA: HeaderName =
    HeaderName::from_static("build.bazel.remote.execution.v2.requestmetadata-bin");

/// What Bazel would send with the calls of one action, as a header.
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
    uri: Uri,
    path: PathAndQuery,
}

#[derive(Clone)]
pub struct Channel {
    client: Client,
    authority: Authority,
}

#[derive(Clone)]
enum Client {
    Lean(lean::Lean),
    Usual(usual::Usual),
}

impl Channel {
    /// Connects and leaves the connection's work to `runtime`, where calls should run as well.
    pub async fn connect(
        kind: ClientKind,
        address: &Address,
        runtime: &Handle,
    ) -> Result<Self, CallError> {
        let client = match kind {
            ClientKind::Lean => Client::Lean(lean::Lean::connect(address, runtime).await?),
            ClientKind::Tonic => Client::Usual(usual::Usual::connect(address, runtime).await?),
        };
        Ok(Self { client, authority: address.authority.clone() })
    }

    /// `path`: `/package.Service/Method`.
    pub fn rpc(&self, path: &'static str) -> Result<Rpc, CallError> {
        let path = PathAndQuery::from_static(path);
        let uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(path.clone())
            .build()
            .map_err(CallError::lost)?;
        Ok(Rpc { uri, path })
    }

    /// One message out, one back.
    pub async fn unary(&mut self, rpc: &Rpc, message: Framed) -> Result<Bytes, CallError> {
        match &mut self.client {
            Client::Lean(client) => client.unary(rpc, message).await,
            Client::Usual(client) => client.unary(rpc, message).await,
        }
    }

    /// One message out, any number back, all of them kept.
    pub async fn server_stream(
        &mut self,
        rpc: &Rpc,
        message: Framed,
    ) -> Result<Vec<Bytes>, CallError> {
        match &mut self.client {
            Client::Lean(client) => client.server_stream(rpc, message).await,
            Client::Usual(client) => client.server_stream(rpc, message).await,
        }
    }

    /// Any number of messages out, one back.
    pub async fn client_stream(
        &mut self,
        rpc: &Rpc,
        messages: impl ExactSizeIterator<Item = Framed> + Send + Sync + 'static,
    ) -> Result<Bytes, CallError> {
        match &mut self.client {
            Client::Lean(client) => client.client_stream(rpc, messages).await,
            Client::Usual(client) => client.client_stream(rpc, messages).await,
        }
    }

    /// ByteStream.Read: hands data to `sink` as it comes and answers how many bytes came.
    pub async fn read(
        &mut self,
        rpc: &Rpc,
        message: Framed,
        sink: impl FnMut(&[u8]) + Send,
    ) -> Result<u64, CallError> {
        match &mut self.client {
            Client::Lean(client) => client.read(rpc, message, sink).await,
            Client::Usual(client) => client.read(rpc, message, sink).await,
        }
    }
}
