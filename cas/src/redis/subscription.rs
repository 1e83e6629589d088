//! Messages from channels, over a connection of their own.

use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::{PubSubSink, PubSubStream};
use bytes::Bytes;
use futures_util::StreamExt;
use kiln_net::causes::chain;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, sleep, timeout};

use super::error::RedisError;
use super::node::pause;
use super::topology::Topology;

/// Events that wait for the subscriber; more are dropped, and it is told so.
const BUFFER: usize = 1024;
/// Usual silence after which a subscription asks whether the server is still there.
pub(super) const PING: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Message {
        channel: Arc<str>,
        payload: Bytes,
    },
    /// Messages may have been lost before this: the connection was broken and is back, or the
    /// subscriber was too slow.
    Reconnected,
}

/// Messages to the channels it was made for; it ends when it is dropped. A message is delivered
/// at most once, and is lost while the connection is broken.
pub struct Subscription {
    events: mpsc::Receiver<Event>,
}

impl Subscription {
    /// `patience`: with the server, for a connection or an answer. `ping`: silence after which the
    /// server is asked whether it is still there.
    pub(super) async fn start(
        topology: Arc<Topology>,
        patience: Duration,
        channels: Vec<String>,
        ping: Duration,
    ) -> Result<Self, RedisError> {
        let (events_in, events) = mpsc::channel(BUFFER);
        let mut task = Task { topology, patience, ping, channels, events: events_in, attempts: 0 };
        let connection = task.connect().await?;
        tokio::spawn(task.run(connection));
        Ok(Self { events })
    }

    /// The next event; waits for as long as there is none. `None`: the runtime is shut down.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    #[cfg(test)]
    pub(super) fn is_full(&self) -> bool {
        self.events.len() == BUFFER
    }
}

type Connection = (PubSubSink, PubSubStream);

struct Task {
    topology: Arc<Topology>,
    /// How long the server may take for a connection or an answer.
    patience: Duration,
    /// Silence after which the server is asked whether it is still there.
    ping: Duration,
    channels: Vec<String>,
    events: mpsc::Sender<Event>,
    attempts: usize,
}

impl Task {
    async fn run(mut self, mut connection: Connection) {
        let mut missed = false;
        loop {
            self.deliver(&mut connection, missed).await;
            if self.events.is_closed() {
                return;
            }
            tracing::info!(redis = self.topology.names(), "a subscription is broken");
            let events = self.events.clone();
            connection = tokio::select! {
                connection = self.reconnect() => connection,
                () = events.closed() => return,
            };
            missed = true;
        }
    }

    /// Connects to one of the known nodes, another one each time: messages reach all nodes of a cluster.
    async fn connect(&mut self) -> Result<Connection, RedisError> {
        let known = self.topology.known();
        let address = &known[self.attempts % known.len()];
        self.attempts += 1;
        let node = self.topology.node(address)?;
        let connecting = async {
            let mut connection = node.subscriber.get_async_pubsub().await?;
            connection.subscribe(&self.channels).await?;
            Ok(connection.split())
        };
        match timeout(self.patience, Box::pin(connecting)).await {
            Ok(connected) => connected.map_err(|error| RedisError::connecting(address, error)),
            Err(_) => Err(RedisError::unavailable(address, "no subscription in time")),
        }
    }

    async fn reconnect(&mut self) -> Connection {
        let mut failures = 0;
        loop {
            match self.connect().await {
                Ok(connection) => return connection,
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "a subscription does not come back")
                }
            }
            failures += 1;
            sleep(pause(failures)).await;
            self.topology.refresh(self.topology.age()).await;
        }
    }

    /// Passes messages on until the connection breaks or nobody wants them any more.
    /// `missed`: the subscriber is to be told first that some may be lost.
    async fn deliver(&self, (sink, stream): &mut Connection, mut missed: bool) {
        let mut ping = interval_at(Instant::now() + self.ping, self.ping);
        loop {
            tokio::select! {
                message = stream.next() => {
                    let Some(message) = message else { return };
                    let event = Event::Message {
                        channel: message.get_channel_name().into(),
                        payload: Bytes::copy_from_slice(message.get_payload_bytes()),
                    };
                    // After the first that does not fit none is passed on until the
                    // subscriber can be told.
                    missed = missed || self.events.try_send(event).is_err();
                    ping.reset();
                }
                place = self.events.reserve(), if missed => {
                    let Ok(place) = place else { return };
                    place.send(Event::Reconnected);
                    missed = false;
                }
                _ = ping.tick() => {
                    if !matches!(timeout(self.patience, sink.ping::<()>()).await, Ok(Ok(()))) {
                        return;
                    }
                }
                () = self.events.closed() => return,
            }
        }
    }
}
