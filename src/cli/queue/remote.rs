//! A queue that a server keeps: its runner reads and writes over HTTP. What cannot be said is said again until it was
//! heard, or until another runner has the queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use kiln_ci::queue::serving::{LaneName, Ledger, Pending, QueueError, Step};
use kiln_ci::queue::{Branch, Lane};
use kiln_net::Backoff;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cli::api::{Api, read};
use crate::cli::error::CliError;
use crate::cli::target::Target;
use kiln_web::json::{MergeAsked, MergeCall, MergeLane, MergeStep, MergeTake, MergeTaken};

/// How often the server is asked for requests.
const LOOK: Duration = Duration::from_secs(1);
/// How often the server hears of this runner while that does something long. Its lease lasts five times as long.
const ALIVE: Duration = Duration::from_secs(2);
/// How long a server may take to hear that this runner is alive before the next one is told: in
/// time before the lease ends.
const HEARS: Duration = Duration::from_secs(3);
/// How often one that stands by asks for the queue.
const STAND_BY: Duration = Duration::from_secs(1);
/// The pauses between tries to reach the server.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(300), Duration::from_secs(10));
/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long the server may take to hear that this runner ends.
const LEAVES: Duration = Duration::from_secs(5);

/// The frontends of a fleet that may be asked, any of them.
pub struct Servers {
    all: Vec<Api>,
    current: AtomicUsize,
}

impl Servers {
    pub fn new(target: &Target) -> Result<Self, CliError> {
        let all = Api::each(target)?.into_iter().map(|it| it.within_at_most(PATIENCE)).collect();
        Ok(Self { all, current: AtomicUsize::new(0) })
    }

    /// Posts to one server; where it cannot answer, the next call goes to the next one.
    async fn post(&self, path: &str, body: Vec<u8>) -> Result<Value, CliError> {
        let place = self.current.load(Ordering::Relaxed);
        let api = self.all.get(place % self.all.len().max(1));
        let api = api.ok_or_else(|| CliError::usage("--server names no server"))?;
        let path = format!("/merge-queues/runner/{path}");
        let answer = api.send(&path, "application/json", body).await;
        if answer.as_ref().is_err_and(|error| error.passing) {
            self.current.store(place.wrapping_add(1), Ordering::Relaxed);
        }
        answer
    }
}

fn json<T: Serialize>(body: &T) -> Result<Vec<u8>, CliError> {
    serde_json::to_vec(body).map_err(|error| CliError::machine(error.to_string()))
}

pub struct Remote {
    servers: Arc<Servers>,
    call: MergeCall,
    /// The number of the last step of the queue that this runner has heard of.
    number: Mutex<u64>,
    stop: CancellationToken,
    alive: JoinHandle<()>,
}

/// The message by which a runner asks for a queue: who it is, and what it works on.
pub fn take(queue: &LaneName, repository: &str, target: &Branch, check: &str) -> MergeTake {
    use std::hash::{BuildHasher, Hasher};
    let random = std::hash::RandomState::new().build_hasher().finish();
    let host = nix::unistd::gethostname().ok().and_then(|it| it.into_string().ok());
    let (host, process) = (host.unwrap_or_else(|| "kiln".to_owned()), std::process::id());
    MergeTake {
        queue: queue.as_str().to_owned(),
        nonce: format!("{host}-{process}-{random:016x}"),
        name: format!("{host} ({process})"),
        repository: without_secrets(repository),
        target: target.to_string(),
        check: check.to_owned(),
    }
}

/// A repository's URL without user, password and query.
fn without_secrets(remote: &str) -> String {
    let Some((scheme, rest)) = remote.split_once("://") else { return remote.to_owned() };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}/{path}")
}

impl Remote {
    /// Waits until nobody else has the queue, and takes it; `None`: this runner was told to end
    /// before.
    pub async fn take(
        servers: Arc<Servers>,
        asked: MergeTake,
        stop: &CancellationToken,
    ) -> Result<Option<Self>, CliError> {
        let body = json(&asked)?;
        let (mut failures, mut said) = (0, String::new());
        loop {
            let answer = ask_once(&servers, &asked.queue, body.clone(), stop).await;
            let Some(answer) = answer else { return Ok(None) };
            let pause = match answer {
                Ok(answer) => {
                    let taken: MergeTaken = read(answer)?;
                    let call = MergeCall { queue: asked.queue, fence: taken.fence };
                    return Ok(Some(Self::new(servers, call, stop.clone())));
                }
                Err(error) if error.conflict => {
                    if said != error.message {
                        tracing::info!(reason = error.message, "this runner stands by");
                        said = error.message;
                    }
                    STAND_BY
                }
                Err(error) if error.passing => {
                    failures += 1;
                    tracing::warn!(reason = error.message, "the server cannot be reached for now");
                    AGAIN.pause(failures)
                }
                Err(error) => return Err(error),
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return Ok(None),
            }
        }
    }

    fn new(servers: Arc<Servers>, call: MergeCall, stop: CancellationToken) -> Self {
        let alive = tokio::spawn(keep_alive(servers.clone(), call.clone()));
        Self { servers, call, number: Mutex::new(0), stop, alive }
    }

    /// Gives the queue back, so that another runner may have it at once.
    pub async fn leave(&self) {
        self.alive.abort();
        give_back(&self.servers, &self.call).await;
    }

    /// Asks the servers until one answers, with pauses. Errors: the queue is another runner's now,
    /// the server refused, or this runner was told to stop.
    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        question: &Q,
    ) -> Result<A, QueueError> {
        let body = json(question).map_err(|error| QueueError::Server(error.message))?;
        let mut failures = 0;
        loop {
            let asking = self.servers.post(path, body.clone());
            let answer: Result<Value, CliError> = tokio::select! {
                answer = asking => answer,
                () = self.stop.cancelled() => return Err(QueueError::Stopped),
            };
            let error = match answer.and_then(read) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if error.conflict {
                return Err(QueueError::Lost(self.call.queue.clone()));
            }
            if !error.passing {
                return Err(QueueError::Server(error.message));
            }
            failures += 1;
            tracing::warn!(reason = error.message, "the server cannot be reached for now");
            tokio::select! {
                () = tokio::time::sleep(AGAIN.pause(failures)) => {}
                () = self.stop.cancelled() => return Err(QueueError::Stopped),
            }
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.alive.abort();
    }
}

/// Asks for a queue once. `None`: this runner was told to end. What it is given all the same it gives back, since nobody else
/// would have the queue until the lease ends.
async fn ask_once(
    servers: &Servers,
    queue: &str,
    body: Vec<u8>,
    stop: &CancellationToken,
) -> Option<Result<Value, CliError>> {
    let asking = servers.post("take", body);
    tokio::pin!(asking);
    tokio::select! {
        answer = &mut asking => return Some(answer),
        () = stop.cancelled() => {}
    }
    let Ok(Ok(answer)) = tokio::time::timeout(LEAVES, asking).await else { return None };
    let Ok(MergeTaken { fence, .. }) = read(answer) else { return None };
    give_back(servers, &MergeCall { queue: queue.to_owned(), fence }).await;
    None
}

async fn give_back(servers: &Servers, call: &MergeCall) {
    let Ok(body) = json(call) else { return };
    // Else it is heard of when the lease ends.
    let _ = tokio::time::timeout(LEAVES, servers.post("leave", body)).await;
}

/// Renews the lease while a clone or a fetch takes long. A runner that has lost it hears that with
/// what it says next.
async fn keep_alive(servers: Arc<Servers>, call: MergeCall) {
    let Ok(body) = json(&call) else { return };
    loop {
        tokio::time::sleep(ALIVE).await;
        let place = servers.current.load(Ordering::Relaxed);
        match tokio::time::timeout(HEARS, servers.post("requests", body.clone())).await {
            Ok(Err(error)) if error.conflict => return,
            Ok(_) => {}
            Err(_) => servers.current.store(place.wrapping_add(1), Ordering::Relaxed),
        }
    }
}

#[async_trait]
impl Ledger for Remote {
    async fn lane(&self) -> Result<Option<Lane>, QueueError> {
        let answer: MergeLane = self.ask("lane", &self.call).await?;
        Ok(answer.lane)
    }

    async fn pending(&self) -> Result<Vec<Pending>, QueueError> {
        let answer: MergeAsked = self.ask("requests", &self.call).await?;
        Ok(answer.requests)
    }

    async fn write(&self, step: Step) -> Result<(), QueueError> {
        let mut number = self.number.lock().await;
        let step = MergeStep::new(&self.call.queue, self.call.fence, *number + 1, step);
        let _heard: Value = self.ask("step", &step).await?;
        *number += 1;
        Ok(())
    }

    fn look(&self) -> Duration {
        LOOK
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::post;
    use axum::{Json, Router};
    use kiln_net::grpc::Credentials;
    use tokio::net::TcpListener;
    use tokio::sync::Notify;

    use super::*;

    /// Serves one queue, which it says that it was `asked` for, and gives once it `may`. Returns the server's address, and the
    /// fences of those who have given the queue back.
    async fn server(asked: &Arc<Notify>, may: &Arc<Notify>) -> (String, Fences) {
        let (asked, may, left) = (asked.clone(), may.clone(), Fences::default());
        let take = move || {
            let (asked, may) = (asked.clone(), may.clone());
            async move {
                asked.notify_one();
                may.notified().await;
                Json(MergeTaken { fence: 7, lease_s: 10 })
            }
        };
        let given_back = left.clone();
        let leave = move |Json(call): Json<MergeCall>| {
            given_back.lock().unwrap().push(call.fence);
            async { Json(serde_json::json!({})) }
        };
        let routes = Router::new()
            .route("/api/v1/merge-queues/runner/take", post(take))
            .route("/api/v1/merge-queues/runner/leave", post(leave));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (url, left)
    }

    type Fences = Arc<std::sync::Mutex<Vec<u64>>>;

    #[tokio::test]
    async fn a_queue_that_comes_to_a_runner_that_ends_is_given_back() {
        let (asked, may) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (url, left) = server(&asked, &may).await;
        let target = Target {
            url,
            others: Vec::new(),
            instance: String::new(),
            names_instance: false,
            credentials: Credentials::default(),
            secrets: Vec::new(),
        };
        let message = MergeTake {
            queue: "app".to_owned(),
            nonce: "one".to_owned(),
            name: "one".to_owned(),
            repository: "/srv/app.git".to_owned(),
            target: "main".to_owned(),
            check: "true".to_owned(),
        };
        let stop = CancellationToken::new();
        let end = async {
            asked.notified().await;
            stop.cancel();
            may.notify_one();
        };
        let servers = Arc::new(Servers::new(&target).unwrap());
        let (taken, ()) = tokio::join!(Remote::take(servers, message, &stop), end);
        assert!(taken.unwrap().is_none());
        assert_eq!(*left.lock().unwrap(), [7]);
    }

    #[test]
    fn passwords_of_a_repository_are_told_to_nobody() {
        for (remote, told) in [
            ("https://bot:secret@git.example/app.git?token=x", "https://git.example/app.git"),
            ("ssh://git@git.example:22/app.git", "ssh://git.example:22/app.git"),
            ("git@git.example:app.git", "git@git.example:app.git"),
            ("/srv/app.git", "/srv/app.git"),
            ("https://a@b@git.example", "https://git.example/"),
        ] {
            assert_eq!(without_secrets(remote), told);
        }
    }
}
