//! A TCP proxy in front of a server, which delays bytes, loses answers or refuses connections.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// The way that the proxy treats connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Through,
    /// Answers of the server are lost; the connection stays.
    AnswersLost,
    /// New connections are closed at once.
    Refused,
}

#[derive(Debug, Clone, Copy)]
struct SlowProxyState {
    way: Way,
    /// The number of cuts so far: connections that were made before the last of them are closed.
    cuts: u64,
    /// The port of this machine that new connections go to.
    target: u16,
}

/// Passes connections on to a port of this machine. Ends when dropped.
pub struct SlowProxy {
    address: SocketAddr,
    state: watch::Sender<SlowProxyState>,
}

impl SlowProxy {
    /// Starts a proxy in front of the port `target`. Each byte takes `delay` in each direction, and
    /// any number of them may be on the way.
    pub async fn start(target: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, seen) = watch::channel(SlowProxyState { way: Way::Through, cuts: 0, target });
        tokio::spawn(accept(listener, delay, seen));
        Self { address, state }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn set(&self, way: Way) {
        self.state.send_modify(|state| state.way = way);
    }

    /// Closes all connections, and treats new ones in this way.
    pub fn cut(&self, way: Way) {
        self.state.send_modify(|state| (state.way, state.cuts) = (way, state.cuts + 1));
    }

    /// Closes all connections, and sends new ones to this port.
    pub fn turn_to(&self, target: u16) {
        self.state.send_modify(|state| (state.target, state.cuts) = (target, state.cuts + 1));
    }
}

async fn accept(listener: TcpListener, delay: Duration, state: watch::Receiver<SlowProxyState>) {
    let mut dropped = state.clone();
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            Err(_) = dropped.changed() => return,
        };
        let SlowProxyState { way, target, .. } = *state.borrow();
        if way == Way::Refused {
            continue;
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { continue };
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let ((from_client, to_client), (from_server, to_server)) =
            (client.into_split(), server.into_split());
        tokio::spawn(pass(from_client, to_server, delay, state.clone(), false));
        tokio::spawn(pass(from_server, to_client, delay, state.clone(), true));
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    to: OwnedWriteHalf,
    delay: Duration,
    mut state: watch::Receiver<SlowProxyState>,
    answers: bool,
) {
    let born = state.borrow().cuts;
    let (sender, pieces) = mpsc::unbounded_channel();
    let writing = tokio::spawn(write(to, pieces));
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            cut = state.wait_for(|state| state.cuts > born) => {
                drop(cut);
                writing.abort();
                return;
            }
        };
        let Ok(size @ 1..) = read else { return };
        if answers && state.borrow().way == Way::AnswersLost {
            continue;
        }
        if sender.send((Instant::now() + delay, buffer[..size].to_vec())).is_err() {
            return;
        }
    }
}

async fn write(mut to: OwnedWriteHalf, mut pieces: mpsc::UnboundedReceiver<(Instant, Vec<u8>)>) {
    while let Some((due, piece)) = pieces.recv().await {
        sleep_until(due).await;
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
}
