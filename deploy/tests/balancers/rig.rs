//! Servers that say who they are, users who ask without a pause, and a balancer between them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kiln_deploy::rollouts::machine::Generation;
use kiln_deploy::rollouts::parts::{Member, Place, Pool, Side, Split, Traffic};
use kiln_deploy::toml::document;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub const WITHIN: Duration = Duration::from_secs(30);

pub fn place() -> Place {
    Place { service: "api".to_owned(), environment: "prod".to_owned() }
}

/// A server that answers every request with its name.
pub async fn server(name: &'static str) -> Member {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                // Balancers also open connections only to see whether somebody listens, and send no request.
                if stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                    let length = name.len();
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{name}"
                    );
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    Member { name: name.to_owned(), address }
}

/// Servers a and b of the old version, c of the new one.
pub async fn servers() -> [Member; 3] {
    [server("a").await, server("b").await, server("c").await]
}

pub fn split([a, b, c]: &[Member; 3], change: u64, share: f64) -> Split {
    let old = vec![a.clone(), b.clone()];
    Split {
        generation: Generation { fence: 1, change },
        pools: vec![
            Pool { side: Side::Baseline, share: 100.0 - share, members: old },
            Pool { side: Side::Canary, share, members: vec![c.clone()] },
        ],
    }
}

/// How many requests each server answered, by the server's name. A failed request counts under the text of
/// its error.
pub type Counts = BTreeMap<String, usize>;

/// Makes one request over a connection of its own, and answers with the body.
pub async fn get(address: &str) -> Result<String, String> {
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(WITHIN, talk).await.map_err(|_| "no answer".to_owned())?;
    let answer = answer.map_err(|error| error.to_string())?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(answer.lines().next().unwrap_or("an empty answer").to_owned()),
    }
}

pub async fn counted(address: &str, requests: usize) -> Counts {
    let mut counts = Counts::new();
    for _ in 0..requests {
        let who = get(address).await.unwrap_or_else(|error| format!("error: {error}"));
        *counts.entry(who).or_default() += 1;
    }
    counts
}

pub fn of(counts: &Counts, who: &str) -> usize {
    counts.get(who).copied().unwrap_or_default()
}

/// Whether `found` of `all` is what chance makes of a share: four deviations at most.
pub fn is_share(found: usize, all: usize, percent: f64) -> bool {
    let (all, share) = (all as f64, percent / 100.0);
    let deviation = (all * share * (1.0 - share)).sqrt();
    (found as f64 - all * share).abs() <= 4.0 * deviation
}

/// Asserts who gets how many percent of 500 requests, and that nobody gets an error.
pub async fn assert_shares(address: &str, shares: &[(&str, f64)]) {
    const REQUESTS: usize = 500;
    let counts = counted(address, REQUESTS).await;
    for (who, percent) in shares {
        assert!(is_share(of(&counts, who), REQUESTS, *percent), "{who}: {percent} %? {counts:?}");
    }
    let known: usize = shares.iter().map(|(who, _)| of(&counts, who)).sum();
    assert_eq!(known, REQUESTS, "{counts:?}");
}

/// Waits until thirty requests in a row are answered so.
pub async fn until(address: &str, holds: impl Fn(&Counts) -> bool) {
    let start = Instant::now();
    loop {
        let counts = counted(address, 30).await;
        if holds(&counts) {
            return;
        }
        assert!(start.elapsed() < WITHIN, "{counts:?}");
    }
}

/// Users who ask all the time.
pub struct Users {
    stop: Arc<AtomicBool>,
    asking: Vec<JoinHandle<Counts>>,
}

impl Users {
    pub fn start(address: &str) -> Self {
        const USERS: usize = 6;
        let stop = Arc::new(AtomicBool::new(false));
        let user = |_| {
            let (stop, address) = (stop.clone(), address.to_owned());
            tokio::spawn(async move {
                let mut counts = Counts::new();
                while !stop.load(Ordering::Relaxed) {
                    for (who, count) in counted(&address, 1).await {
                        *counts.entry(who).or_default() += count;
                    }
                }
                counts
            })
        };
        let asking = (0..USERS).map(user).collect();
        Self { stop, asking }
    }

    pub async fn stop(self) -> Counts {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Counts::new();
        for user in self.asking {
            for (who, count) in user.await.unwrap() {
                *all.entry(who).or_default() += count;
            }
        }
        all
    }
}

/// A balancer as an operator declares it.
pub fn declared(text: &str) -> Arc<dyn Traffic> {
    document(text, kiln_deploy::traffic::read).unwrap()
}

pub fn said(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    kiln_net::causes::chain(error).to_string()
}

/// Waits until something listens at an address.
pub async fn listening(address: &str) {
    let start = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        assert!(start.elapsed() < WITHIN, "nobody listens at {address}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the log contains these words.
pub async fn logged(log: &Path, words: &str) {
    let start = Instant::now();
    while !std::fs::read_to_string(log).is_ok_and(|text| text.contains(words)) {
        assert!(start.elapsed() < WITHIN, "no {words:?} in {}", log.display());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}
