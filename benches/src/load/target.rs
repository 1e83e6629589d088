//! One server under measurement.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::uri::{Authority, Uri};
use tokio::runtime::Handle;

use super::args::Options;
use super::channel::{Address, Channel, Windows, request_metadata};
use super::error::CallError;
use super::lanes::Lanes;
use super::prepared::Prepared;

/// A connection and the runtime that its calls run on.
#[derive(Clone)]
pub struct Lane {
    pub channel: Channel,
    pub runtime: Handle,
}

pub struct Target {
    pub name: String,
    pub instance: Arc<str>,
    pub lanes: Vec<Lane>,
    /// Whether the server answers with constants: checks that need it to remember are left out
    /// then.
    pub constant: bool,
    pub pid: Option<u32>,
    pub prepared: Prepared,
    numbers: Arc<AtomicU64>,
}

impl Target {
    pub async fn connect(
        name: &str,
        url: &str,
        constant: bool,
        options: &Options,
        lanes: &Lanes,
    ) -> Result<Self, CallError> {
        let (authority, socket) = resolve(url)?;
        let windows = Windows {
            stream: options.stream_window,
            connection: options.connection_window,
            frame: options.frame_size,
        };
        let metadata = options.request_metadata.then(request_metadata).flatten();
        let address = Address { socket, authority, windows, metadata };
        let mut connected = Vec::new();
        for index in 0..options.connections.get() {
            let runtime = lanes.for_connection(index).clone();
            let channel = Channel::connect(options.client, &address, &runtime).await?;
            connected.push(Lane { channel, runtime });
        }
        Ok(Self {
            name: name.to_owned(),
            instance: options.instance.as_str().into(),
            lanes: connected,
            constant,
            pid: options.pids.iter().find(|pid| pid.name == name).map(|pid| pid.value),
            prepared: Prepared::default(),
            numbers: Arc::default(),
        })
    }

    /// The first connection, for preparations.
    pub fn channel(&self) -> Channel {
        self.lanes[0].channel.clone()
    }

    /// Numbers that this target gets only once in a run.
    pub fn numbers(&self) -> Numbers {
        Numbers(self.numbers.clone())
    }
}

#[derive(Clone, Default)]
pub struct Numbers(Arc<AtomicU64>);

impl Numbers {
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

fn resolve(url: &str) -> Result<(Authority, SocketAddr), CallError> {
    let wrong = |why: &str| CallError::Lost(format!("target URL {url:?}: {why}"));
    let url = url.replace("grpc://", "http://");
    let uri: Uri = url.parse().map_err(|_| wrong("not a URL"))?;
    if uri.scheme_str() != Some("http") {
        return Err(wrong("start it with http:// or grpc://; TLS is not measured here"));
    }
    let authority = uri.authority().ok_or_else(|| wrong("no host and port"))?.clone();
    let address = authority
        .as_str()
        .to_socket_addrs()
        .map_err(|error| wrong(&format!("no address for it: {error}")))?
        .next()
        .ok_or_else(|| wrong("no address for it"))?;
    Ok((authority, address))
}
