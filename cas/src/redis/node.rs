//! One server and the connection to it, which comes back by itself.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, Value};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use kiln_net::Backoff;
use tokio::time::{Instant, sleep_until, timeout};

use super::address::Address;
use super::error::RedisError;
use super::link::{Closed, Link};
use super::observe::{Counts, Incarnation};
use super::pipeline::Pipeline;
use super::server::{Server, inspect};
use crate::error::Reason;

/// How long the server may take to accept the login, and again to answer `INFO`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Between failed attempts to connect: doubled from the first to the last of these.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
/// Requests that wait to be written to one connection; more wait outside.
const PIPELINE_BUFFER: usize = 1024;

type Attempt = Shared<BoxFuture<'static, Result<Link, RedisError>>>;

pub(super) struct Node {
    pub(super) address: Address,
    client: Client,
    /// Makes connections for subscriptions, which speak the older protocol.
    pub(super) subscriber: Client,
    pub(super) pipeline: Pipeline,
    counts: Arc<Counts>,
    incarnation: Incarnation,
    current: RwLock<Option<Link>>,
    attempt: Mutex<Option<Attempt>>,
    trouble: Mutex<Trouble>,
}

#[derive(Default)]
struct Trouble {
    failures: u32,
    last: Option<RedisError>,
    not_before: Option<Instant>,
}

/// The pause after so many failures in a row.
pub(super) fn pause(failures: u32) -> Duration {
    BACKOFF.pause(failures)
}

impl Node {
    pub(super) fn new(
        address: Address,
        client: Client,
        subscriber: Client,
        counts: Arc<Counts>,
    ) -> Self {
        Self {
            pipeline: Pipeline::new(address.clone(), counts.clone()),
            address,
            client,
            subscriber,
            counts,
            incarnation: Incarnation::default(),
            current: RwLock::default(),
            attempt: Mutex::default(),
            trouble: Mutex::default(),
        }
    }

    fn current(&self) -> Option<Link> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().filter(|link| !link.is_closed()).cloned()
    }

    /// There is a connection, as far as is known.
    pub(super) fn is_linked(&self) -> bool {
        self.current().is_some()
    }

    /// There was a connection, and what may be lost with another process was counted.
    pub(super) fn was_linked(&self) -> bool {
        self.incarnation.is_known()
    }

    /// The connection, made anew where there is none. All who ask meanwhile wait for the same
    /// attempt; it goes on when they give up.
    pub(super) async fn link(self: &Arc<Self>) -> Result<Link, RedisError> {
        match self.current() {
            Some(link) => Ok(link),
            None => self.attempt().await,
        }
    }

    fn attempt(self: &Arc<Self>) -> Attempt {
        let mut attempt = self.attempt.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = attempt.as_ref().filter(|attempt| attempt.peek().is_none()) {
            return running.clone();
        }
        let node = self.clone();
        let task = tokio::spawn(async move {
            match node.current() {
                Some(link) => Ok(link),
                None => node.reconnect().await,
            }
        });
        let address = self.address.clone();
        let started = async move {
            task.await
                .unwrap_or_else(|error| Err(RedisError::unavailable(&address, Reason::of(error))))
        };
        attempt.insert(started.boxed().shared()).clone()
    }

    async fn reconnect(&self) -> Result<Link, RedisError> {
        let not_before = self.trouble().not_before;
        if let Some(not_before) = not_before {
            sleep_until(not_before).await;
        }
        let result = self.connect().await;
        let mut trouble = self.trouble();
        match &result {
            Ok(link) => {
                *trouble = Trouble::default();
                self.counts.connections.fetch_add(1, Ordering::Relaxed);
                if self.incarnation.changed(&link.server.incarnation) {
                    self.counts.changes.fetch_add(1, Ordering::AcqRel);
                }
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(link.clone());
            }
            Err(error) => {
                trouble.failures += 1;
                trouble.not_before = Some(Instant::now() + pause(trouble.failures));
                trouble.last = Some(error.clone());
            }
        }
        result
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<Link, RedisError> {
        let closed = Closed::default();
        let notice = closed.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE_BUFFER)
            .set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    notice.set();
                }
                Ok::<_, ::redis::aio::SendError>(())
            });
        let failed = |error| RedisError::connecting(&self.address, error);
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = Box::pin(connecting).await.map_err(failed)?;
        let server = self.inspect(&mut connection).await?;
        Ok(Link::new(connection, server, closed))
    }

    async fn inspect(&self, connection: &mut MultiplexedConnection) -> Result<Server, RedisError> {
        let address = &self.address;
        self.count();
        let info = ::redis::cmd("INFO");
        let info = timeout(CONNECT_TIMEOUT, info.query_async::<String>(connection))
            .await
            .map_err(|_| RedisError::unavailable(address, "INFO was not answered in time"))?
            .map_err(|error| RedisError::connecting(address, error))?;
        let server = inspect(&info).map_err(|why| RedisError::WrongServer {
            address: address.to_string(),
            reason: why.into(),
        })?;
        if server.replica && !server.cluster {
            let (address, reason) = (address.to_string(), "it is a replica".into());
            return Err(RedisError::FailingOver { address, reason });
        }
        Ok(server)
    }

    /// Why connecting failed last, if it did since it last worked.
    pub(super) fn last_failure(&self) -> Option<RedisError> {
        self.trouble().last.clone()
    }

    fn count(&self) {
        self.counts.round_trips.fetch_add(1, Ordering::Relaxed);
    }

    /// The answer to `CLUSTER SLOTS`.
    pub(super) async fn slots(self: &Arc<Self>) -> Result<Value, RedisError> {
        let mut link = self.link().await?;
        self.count();
        let mut slots = ::redis::cmd("CLUSTER");
        slots.arg("SLOTS");
        let asked = slots.query_async(&mut link.connection);
        match timeout(CONNECT_TIMEOUT, asked).await {
            Ok(Ok(slots)) => Ok(slots),
            Ok(Err(error)) => {
                link.discard();
                Err(RedisError::connecting(&self.address, error))
            }
            Err(_) => {
                link.discard();
                Err(RedisError::unavailable(
                    &self.address,
                    "CLUSTER SLOTS was not answered in time",
                ))
            }
        }
    }
}
