//! One HTTP/2 connection and the kinds of call on it, with one of two clients.

mod call;
mod lean;
mod usual;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use tokio::runtime::Handle;

pub use self::call::{Address, Rpc, Windows, request_metadata};
use super::args::ClientKind;
use super::error::CallError;
use super::wire::Framed;

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

    /// The method at `path`, which is `/package.Service/Method`, of this connection's server.
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

    /// Calls a method that takes one message and answers one.
    pub async fn unary(&mut self, rpc: &Rpc, message: Framed) -> Result<Bytes, CallError> {
        match &mut self.client {
            Client::Lean(client) => client.unary(rpc, message).await,
            Client::Usual(client) => client.unary(rpc, message).await,
        }
    }

    /// Calls a method that takes one message and answers any number, all of which are kept.
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

    /// Calls a method that takes any number of messages and answers one.
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
