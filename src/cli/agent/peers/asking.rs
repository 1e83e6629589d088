//! Asks other agents for pieces of releases.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kiln_deploy::agent::{Asked, Exchange, Identity, PeerError, Rate};
use kiln_deploy::swarm::PeerCard;
use kiln_net::http::{Client, Options, Response, StatusCode, collect, described, direct_client};
use lru::LruCache;
use tokio::runtime::Handle;

use super::PASS;
use super::tls::Own;

/// How long a connection may take to come about, with TLS. On a slow link that others keep full each of its round trips takes
/// seconds, and a first packet that was lost is sent again after 1, 3 and 7 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(12);
/// How long an answer may take, with its connection, and the next bytes of one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it takes at most until it is seen that whoever asks does something else.
const LOOK: Duration = Duration::from_millis(200);
/// Agents with connections that are kept, and connections to one.
const MAX_CLIENTS: NonZeroUsize = NonZeroUsize::new(32).expect("it is not 0");
const CONNECTIONS: usize = 3;

pub struct Asking {
    runtime: Handle,
    own: Arc<Own>,
    /// The address by which others reach this agent; `None`: they cannot.
    address: Option<String>,
    /// The limit to the bytes that come from other agents in a second.
    rate: Arc<Rate>,
    /// Connections that are kept, by the other agent's fingerprint and address.
    clients: Mutex<LruCache<(String, String), Client>>,
}

impl Asking {
    /// Must be called within a Tokio runtime.
    pub fn new(own: Arc<Own>, address: Option<String>, rate: Arc<Rate>) -> Self {
        let clients = Mutex::new(LruCache::new(MAX_CLIENTS));
        Self { runtime: Handle::current(), own, address, rate, clients }
    }

    fn client(&self, peer: &PeerCard) -> Result<Client, PeerError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (peer.fingerprint.clone(), peer.address.clone());
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let tls = self.own.client(&peer.fingerprint);
        let tls = tls.map_err(|error| PeerError::Gone(error.to_string()))?;
        let options =
            Options { idle_connections: CONNECTIONS, ..Options::new(tls, CONNECT_TIMEOUT) };
        let client = direct_client(options);
        let client = client.map_err(|error| PeerError::Gone(error.to_string()))?;
        clients.put(key, client.clone());
        Ok(client)
    }

    /// Waits for something from another agent, and no longer than whoever asks goes on.
    fn wait<T>(
        &self,
        goes_on: &dyn Fn() -> bool,
        future: impl Future<Output = T>,
    ) -> Result<T, PeerError> {
        self.runtime.block_on(async {
            tokio::pin!(future);
            let until = Instant::now() + ANSWER_TIMEOUT;
            loop {
                match tokio::time::timeout(LOOK, future.as_mut()).await {
                    Ok(came) => return Ok(came),
                    Err(_) if !goes_on() => return Err(PeerError::Stopped),
                    Err(_) if Instant::now() >= until => {
                        return Err(PeerError::Gone("it does not go on".to_owned()));
                    }
                    Err(_) => {}
                }
            }
        })
    }

    async fn ask(&self, peer: &PeerCard, path: &str, pass: &str) -> Result<Response, PeerError> {
        let url = format!("https://{}/v1/{path}", peer.address);
        let url = kiln_net::urls::parse(&url);
        let url = url.map_err(|error| PeerError::Gone(error.to_string()))?;
        let answer = self.client(peer)?.get(url).header(PASS, pass).send().await;
        let answer = answer.map_err(|error| PeerError::Gone(described(error)))?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::SERVICE_UNAVAILABLE => Err(PeerError::Busy),
            StatusCode::NOT_FOUND => Err(PeerError::Lacks),
            status => Err(PeerError::Gone(format!("it answered {status}"))),
        }
    }
}

impl Exchange for Asking {
    fn identity(&self) -> Identity {
        Identity { fingerprint: self.own.fingerprint.clone(), address: self.address.clone() }
    }

    fn has(
        &self,
        peer: &PeerCard,
        asked: &Asked<'_>,
        most: usize,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, PeerError> {
        self.wait(goes_on, async {
            let answer = self.ask(peer, &format!("has/{}", asked.list), asked.pass).await?;
            let body = collect(answer, most).await;
            body.map_err(|error| PeerError::Gone(error.to_string()))
        })?
    }

    fn piece(
        &self,
        peer: &PeerCard,
        asked: &Asked<'_>,
        piece: u32,
        size: u32,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, PeerError> {
        let path = format!("piece/{}/{piece}", asked.list);
        let mut answer = self.wait(goes_on, self.ask(peer, &path, asked.pass))??;
        let mut data = Vec::new();
        loop {
            let next = self.wait(goes_on, answer.chunk())?;
            let next = next.map_err(|error| PeerError::Gone(described(error)))?;
            let Some(chunk) = next else { return Ok(data) };
            data.extend_from_slice(&chunk);
            // Whoever sends more than was asked for sends something else.
            if data.len() > size as usize {
                return Ok(data);
            }
            if !goes_on() || !self.rate.pass(chunk.len(), goes_on) {
                return Err(PeerError::Stopped);
            }
        }
    }
}
