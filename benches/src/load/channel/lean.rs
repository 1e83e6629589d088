//! gRPC straight over `h2`: the client shares the cores with what it measures, so it does
//! nothing per call that is not needed.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use http::{Method, Request};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::call::{Address, REQUEST_METADATA, Rpc, Windows};
use crate::load::error::{CallError, UNKNOWN};
use crate::load::wire::{DataScanner, Framed, next_message};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

#[derive(Clone)]
pub struct Lean {
    sender: SendRequest<Framed>,
    metadata: Option<HeaderValue>,
}

impl Lean {
    pub async fn connect(address: &Address, runtime: &Handle) -> Result<Self, CallError> {
        let stream = std::net::TcpStream::connect(address.socket).map_err(CallError::lost)?;
        stream.set_nodelay(true).map_err(CallError::lost)?;
        stream.set_nonblocking(true).map_err(CallError::lost)?;
        let windows = address.windows;
        let sender = runtime
            .spawn(async move { handshake(stream, windows).await })
            .await
            .map_err(CallError::lost)??;
        Ok(Self { sender, metadata: address.metadata.clone() })
    }

    pub async fn unary(&mut self, rpc: &Rpc, message: Framed) -> Result<Bytes, CallError> {
        let (response, mut request) = self.open(rpc).await?;
        request.send_data(message, true)?;
        single(self::messages(response).await?)
    }

    pub async fn server_stream(
        &mut self,
        rpc: &Rpc,
        message: Framed,
    ) -> Result<Vec<Bytes>, CallError> {
        let (response, mut request) = self.open(rpc).await?;
        request.send_data(message, true)?;
        messages(response).await
    }

    /// Sends all messages and answers the one that comes back. They share the blob's bytes, so they
    /// are all queued at once and leave as the server's windows open.
    pub async fn client_stream(
        &mut self,
        rpc: &Rpc,
        messages: impl ExactSizeIterator<Item = Framed>,
    ) -> Result<Bytes, CallError> {
        let (response, mut request) = self.open(rpc).await?;
        let count = messages.len();
        for (n, message) in messages.enumerate() {
            if request.send_data(message, n + 1 == count).is_err() {
                break;
            }
        }
        single(self::messages(response).await?)
    }

    pub async fn read(
        &mut self,
        rpc: &Rpc,
        message: Framed,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<u64, CallError> {
        let (response, mut request) = self.open(rpc).await?;
        request.send_data(message, true)?;
        let mut body = body(response).await?;
        let mut scanner = DataScanner::default();
        let mut total = 0;
        while let Some(chunk) = next_chunk(&mut body).await? {
            scanner.scan(&chunk, |data| {
                total += data.len() as u64;
                sink(data);
            })?;
        }
        check_trailers(&mut body).await?;
        scanner.finish()?;
        Ok(total)
    }

    async fn open(&mut self, rpc: &Rpc) -> Result<(ResponseFuture, SendStream<Framed>), CallError> {
        poll_fn(|context| self.sender.poll_ready(context)).await?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = rpc.uri.clone();
        request.headers_mut().insert(TE, TRAILERS);
        request.headers_mut().insert(CONTENT_TYPE, GRPC);
        if let Some(metadata) = &self.metadata {
            request.headers_mut().insert(REQUEST_METADATA, metadata.clone());
        }
        Ok(self.sender.send_request(request, false)?)
    }
}

async fn handshake(
    stream: std::net::TcpStream,
    windows: Windows,
) -> Result<SendRequest<Framed>, CallError> {
    let stream = TcpStream::from_std(stream).map_err(CallError::lost)?;
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false);
    if let Some(size) = windows.stream {
        builder.initial_window_size(size);
    }
    if let Some(size) = windows.connection {
        builder.initial_connection_window_size(size);
    }
    if let Some(size) = windows.frame {
        builder.max_frame_size(size);
    }
    let (sender, connection) = builder.handshake(stream).await?;
    tokio::spawn(async move {
        // Whoever waits for an answer is told of a broken connection there.
        let _ = connection.await;
    });
    Ok(sender)
}

/// The body of an answer that is not refused outright.
async fn body(response: ResponseFuture) -> Result<RecvStream, CallError> {
    let response = response.await?;
    if response.status() != http::StatusCode::OK {
        return Err(CallError::Http(response.status().as_u16()));
    }
    if response.headers().contains_key(GRPC_STATUS) {
        check_status(response.headers())?;
    }
    Ok(response.into_body())
}

async fn messages(response: ResponseFuture) -> Result<Vec<Bytes>, CallError> {
    let mut body = body(response).await?;
    let mut all = Bytes::new();
    while let Some(chunk) = next_chunk(&mut body).await? {
        all = if all.is_empty() { chunk } else { joined(all, &chunk) };
    }
    check_trailers(&mut body).await?;
    let mut messages = Vec::with_capacity(1);
    while let Some(message) = next_message(&mut all)? {
        messages.push(message);
    }
    Ok(messages)
}

fn joined(start: Bytes, end: &Bytes) -> Bytes {
    let mut whole = start.try_into_mut().unwrap_or_else(|start| BytesMut::from(&start[..]));
    whole.extend_from_slice(end);
    whole.freeze()
}

fn single(mut messages: Vec<Bytes>) -> Result<Bytes, CallError> {
    match (messages.pop(), messages.is_empty()) {
        (Some(message), true) => Ok(message),
        _ => Err(CallError::wrong("a unary call was not answered with exactly one message")),
    }
}

async fn next_chunk(body: &mut RecvStream) -> Result<Option<Bytes>, CallError> {
    match body.data().await.transpose()? {
        Some(chunk) => {
            body.flow_control().release_capacity(chunk.len())?;
            Ok(Some(chunk))
        }
        None => Ok(None),
    }
}

async fn check_trailers(body: &mut RecvStream) -> Result<(), CallError> {
    match body.trailers().await? {
        Some(trailers) => check_status(&trailers),
        None => Err(CallError::wrong("the answer ended without a status")),
    }
}

fn check_status(headers: &HeaderMap) -> Result<(), CallError> {
    let code = headers.get(GRPC_STATUS).map(HeaderValue::as_bytes);
    match code {
        Some(b"0") => Ok(()),
        Some(code) => {
            let code = std::str::from_utf8(code).ok().and_then(|code| code.parse().ok());
            let message = headers.get(GRPC_MESSAGE).map(HeaderValue::as_bytes).unwrap_or_default();
            Err(CallError::Status {
                code: code.unwrap_or(UNKNOWN),
                message: String::from_utf8_lossy(message).into_owned(),
            })
        }
        None => Err(CallError::wrong("the trailers hold no grpc-status")),
    }
}
