//! tonic's client, as a program with generated clients has it: the blob is copied into each
//! message and out of it again.

use bytes::{Buf, BufMut, Bytes};
use kiln_protos::bytestream::ReadResponse;
use prost::Message;
use tokio::runtime::Handle;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use super::call::{Address, Rpc};
use crate::load::error::CallError;
use crate::load::wire::{Framed, PREFIX};

#[derive(Clone)]
pub struct Usual(Grpc<Channel>);

impl Usual {
    pub async fn connect(address: &Address, runtime: &Handle) -> Result<Self, CallError> {
        let endpoint = Endpoint::from_shared(format!("http://{}", address.authority))
            .map_err(CallError::lost)?
            .initial_stream_window_size(address.windows.stream)
            .initial_connection_window_size(address.windows.connection)
            .tcp_nodelay(true);
        let channel = runtime
            .spawn(async move { endpoint.connect().await })
            .await
            .map_err(CallError::lost)?
            .map_err(CallError::lost)?;
        Ok(Self(Grpc::new(channel).max_decoding_message_size(usize::MAX)))
    }

    pub async fn unary(&mut self, rpc: &Rpc, message: Framed) -> Result<Bytes, CallError> {
        self.0.ready().await.map_err(CallError::lost)?;
        let reply = self.0.unary(Request::new(message), rpc.path.clone(), Raw).await;
        Ok(reply?.into_inner())
    }

    pub async fn server_stream(
        &mut self,
        rpc: &Rpc,
        message: Framed,
    ) -> Result<Vec<Bytes>, CallError> {
        let mut replies = self.open(rpc, message).await?;
        let mut all = Vec::new();
        while let Some(reply) = replies.message().await? {
            all.push(reply);
        }
        Ok(all)
    }

    pub async fn client_stream(
        &mut self,
        rpc: &Rpc,
        messages: impl ExactSizeIterator<Item = Framed> + Send + Sync + 'static,
    ) -> Result<Bytes, CallError> {
        self.0.ready().await.map_err(CallError::lost)?;
        // A generated message owns its bytes: one copy here, and one when it is encoded.
        let owned = messages.map(|message| {
            let (fields, data) = message.into_inner();
            fields.chain(Bytes::from(data.to_vec()))
        });
        let request = Request::new(futures_util::stream::iter(owned));
        let reply = self.0.client_streaming(request, rpc.path.clone(), Raw).await;
        Ok(reply?.into_inner())
    }

    pub async fn read(
        &mut self,
        rpc: &Rpc,
        message: Framed,
        mut sink: impl FnMut(&[u8]) + Send,
    ) -> Result<u64, CallError> {
        let mut replies = self.open(rpc, message).await?;
        let mut total = 0;
        while let Some(reply) = replies.message().await? {
            let data = ReadResponse::decode(reply).map_err(CallError::lost)?.data;
            total += data.len() as u64;
            sink(&data);
        }
        Ok(total)
    }

    async fn open(&mut self, rpc: &Rpc, message: Framed) -> Result<Streaming<Bytes>, CallError> {
        self.0.ready().await.map_err(CallError::lost)?;
        let replies = self.0.server_streaming(Request::new(message), rpc.path.clone(), Raw).await;
        Ok(replies?.into_inner())
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        let code = i32::from(status.code()).unsigned_abs();
        Self::Status { code, message: status.message().to_owned() }
    }
}

/// A codec for messages that are encoded already, and whose answers are decoded where they are
/// needed.
struct Raw;

impl Codec for Raw {
    type Encode = Framed;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Framed;
    type Error = Status;

    fn encode(&mut self, mut item: Framed, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // tonic writes the prefix itself.
        item.advance(PREFIX);
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
