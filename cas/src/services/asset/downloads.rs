//! Downloads under way. Callers that want the same asset share one download. It goes on when the call that
//! began it has ended, until the latest deadline of its callers. Their number and their bytes are bounded.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_net::counts::duration;
use kiln_net::http::{Client, Options, client};
use kiln_net::tls::client_config_with;
use kiln_net::{Allowed, Url};
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::{Code, Status};

use super::config::FetchConfig;
use super::download::{Download, DownloadError, begin};
use super::headers::CallerHeaders;
use super::places::{Admission, Places};
use super::qualifiers::Wanted;
use super::spool::{Room, Spool, SpoolError};
use super::sri::Integrity;
use super::stored::StoredAsset;
use super::time::now;
use crate::blob::SharedBlobStore;
use crate::digest::{Digest, DigestFunction};
use crate::records::{Expect, SharedRecords, Write};
use crate::services::status::{records_status, store_status};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections kept to one host.
const IDLE_CONNECTIONS: usize = 4;

/// What is to be downloaded, and for which record.
pub struct Job {
    pub key: String,
    pub url: Url,
    pub wanted: Wanted,
    pub function: DigestFunction,
    /// The account of whoever began the download.
    pub caller: Arc<str>,
    /// The store as that caller may write to it.
    pub blobs: SharedBlobStore,
}

#[derive(Debug, Clone)]
pub enum Failure {
    /// The caller or the web server is at fault, not this server.
    Outside(Status),
    Ours(Status),
}

type Outcome = Result<Digest, Failure>;

pub struct Downloads(Arc<AssetDownloader>);

/// Shared by [`Downloads`] and the tasks that download.
struct AssetDownloader {
    records: SharedRecords,
    allowed: Arc<Allowed>,
    headers: CallerHeaders,
    directory: PathBuf,
    /// Most bytes of one download.
    max_size: u64,
    /// How long a web server may send nothing.
    idle: Duration,
    room: Arc<Room>,
    places: Places,
    /// Downloads by the keys of their records.
    under_way: Mutex<HashMap<String, UnderWay>>,
    /// Made at the first use: reading the authorities takes time and memory.
    client: OnceCell<Client>,
    /// Calls come in on threads that serve connections: the bytes come in elsewhere.
    runtime: Handle,
}

struct UnderWay {
    /// When it began, in nanoseconds since the Unix epoch.
    since: i64,
    /// The latest that any caller allows.
    deadline: watch::Sender<Instant>,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl Downloads {
    /// `max_blob_size`: largest blob taken, in bytes; 0: no limit. Needs a tokio runtime.
    pub fn new(config: FetchConfig, max_blob_size: u64, records: SharedRecords) -> Self {
        let FetchConfig { allowed, headers, directory, max_size, idle } = config;
        let max_blob = if max_blob_size == 0 { u64::MAX } else { max_blob_size };
        Self(Arc::new(AssetDownloader {
            records,
            allowed: Arc::new(allowed),
            headers,
            directory,
            max_size: max_size.min(max_blob),
            idle,
            room: Arc::new(Room::new(max_size)),
            places: Places::default(),
            under_way: Mutex::default(),
            client: OnceCell::new(),
            runtime: Handle::current(),
        }))
    }

    pub fn allowed(&self) -> &Allowed {
        &self.0.allowed
    }

    /// What callers may have sent with a download.
    pub fn headers(&self) -> &CallerHeaders {
        &self.0.headers
    }

    /// Downloads, or waits for a download that is under way; it goes on when this call is dropped.
    /// `oldest`: when it may have begun at the earliest. `timeout`: how long the caller allows.
    pub async fn fetch(&self, job: Job, oldest: Option<i64>, timeout: Duration) -> Outcome {
        let deadline = Instant::now() + timeout;
        let mut outcome = self.join(job, oldest, deadline)?;
        let result = match timeout_at(deadline, outcome.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone(),
            Ok(Err(_)) => {
                let text = "uris: the download was given up, because the server ends";
                Some(Err(Failure::Ours(Status::unavailable(text))))
            }
            Err(_) => None,
        };
        result.unwrap_or_else(|| Err(late(timeout)))
    }

    fn join(
        &self,
        job: Job,
        oldest: Option<i64>,
        deadline: Instant,
    ) -> Result<watch::Receiver<Option<Outcome>>, Failure> {
        let mut all = self.0.under_way();
        let known = all.get(&job.key);
        if let Some(known) = known.filter(|it| oldest.is_none_or(|oldest| oldest <= it.since)) {
            known.deadline.send_if_modified(|latest| {
                let later = deadline > *latest;
                *latest = deadline.max(*latest);
                later
            });
            return Ok(known.outcome.clone());
        }
        // Not by the number of entries: a later download takes the place of an earlier one.
        let admission = self
            .0
            .places
            .admit(&job.caller)
            .map_err(|full| Failure::Outside(Status::resource_exhausted(full.to_string())))?;
        let (key, since) = (job.key.clone(), now());
        let (deadline, until) = watch::channel(deadline);
        let (tell, outcome) = watch::channel(None);
        all.insert(key, UnderWay { since, deadline, outcome: outcome.clone() });
        let shared = self.0.clone();
        self.0.runtime.spawn(async move {
            let outcome = shared.until(until, shared.run(&job, since, &admission)).await;
            let mut all = shared.under_way();
            // A later one may have taken its place.
            if all.get(&job.key).is_some_and(|it| it.since == since) {
                all.remove(&job.key);
            }
            tell.send_replace(Some(outcome));
        });
        Ok(outcome)
    }
}

impl AssetDownloader {
    fn under_way(&self) -> MutexGuard<'_, HashMap<String, UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends `work` when no caller allows it any more time.
    async fn until(
        &self,
        mut deadline: watch::Receiver<Instant>,
        work: impl Future<Output = Outcome>,
    ) -> Outcome {
        let (mut work, began) = (std::pin::pin!(work), Instant::now());
        loop {
            let at = *deadline.borrow_and_update();
            tokio::select! {
                outcome = &mut work => return outcome,
                () = sleep_until(at) => return Err(late(at - began)),
                Ok(()) = deadline.changed() => {}
            }
        }
    }

    async fn run(&self, job: &Job, since: i64, admission: &Admission) -> Outcome {
        let _place = admission.receive().await;
        let client = self.client.get_or_try_init(|| async { self.make_client() }).await?;
        let Wanted { headers, integrity } = &job.wanted;
        let download = begin(client, &job.url, headers, &self.allowed, self.idle).await?;
        self.check_size(download.announced().unwrap_or(0))?;
        let spool = Spool::new(&self.directory, self.room.clone(), job.function);
        let mut spool = spool.map_err(SpoolError::from)?;
        self.receive(download, integrity.as_ref(), &mut spool).await?;
        let digest = spool.store(&job.blobs).await.map_err(SpoolError::from)?;
        self.record(job, &digest, since).await?;
        Ok(digest)
    }

    fn make_client(&self) -> Result<Client, Failure> {
        let allowed = self.allowed.clone();
        let tls = client_config_with(None).map_err(|error| internal(&error))?;
        let client = client(Options {
            idle_connections: IDLE_CONNECTIONS,
            reach: Some(Arc::new(move |name: &str| allowed.reach_of(name))),
            ..Options::new(tls, CONNECT_TIMEOUT)
        });
        client.map_err(|error| internal(&error))
    }

    fn check_size(&self, size: u64) -> Result<(), Failure> {
        if size <= self.max_size {
            return Ok(());
        }
        let limit = self.max_size;
        Err(Failure::Outside(Status::resource_exhausted(format!(
            "the content is larger than the limit of {limit} bytes (fetch.max_size, \
             storage.max_blob_size)"
        ))))
    }

    async fn receive(
        &self,
        mut download: Download,
        integrity: Option<&Integrity>,
        spool: &mut Spool,
    ) -> Result<(), Failure> {
        let mut checker = integrity.map(Integrity::checker);
        let mut take = async |data: &[u8]| {
            self.check_size(spool.size() + data.len() as u64)?;
            if let Some(checker) = &mut checker {
                checker.update(data);
            }
            Ok::<(), Failure>(spool.write(data).await?)
        };
        while let Some(data) = download.next().await? {
            let step = download.coding().step();
            for part in data.chunks(step) {
                take(&download.coding().decode(part).map_err(|error| undecodable(&error))?).await?;
            }
        }
        take(&download.coding().finish().map_err(|error| undecodable(&error))?).await?;
        if let (Some(integrity), Some(checker)) = (integrity, checker)
            && !integrity.accepts(checker)
        {
            let text = "the content does not match the qualifier checksum.sri";
            return Err(Failure::Outside(Status::aborted(text)));
        }
        Ok(())
    }

    /// Writes the record of the URI that was downloaded alone: nothing says that the others of the request
    /// stand for the same content.
    async fn record(&self, job: &Job, digest: &Digest, since: i64) -> Result<(), Failure> {
        let value = Some(StoredAsset::new(digest, since, None).encode());
        let write = Write { key: job.key.clone(), expect: Expect::Anything, value };
        let written = self.records.write(vec![write]).await;
        written.map(drop).map_err(|error| Failure::Ours(records_status("asset", &error)))
    }
}

fn late(after: Duration) -> Failure {
    let text = format!("the download took longer than {}", duration(after));
    Failure::Outside(Status::deadline_exceeded(text))
}

fn internal(error: &dyn std::fmt::Display) -> Failure {
    Failure::Ours(Status::internal(format!("uris: nothing can be downloaded: {error}")))
}

fn undecodable(error: &std::io::Error) -> Failure {
    let text = format!("the content coding of the answer cannot be undone: {error}");
    Failure::Outside(Status::unavailable(text))
}

impl From<DownloadError> for Failure {
    fn from(error: DownloadError) -> Self {
        let code = match error {
            DownloadError::NotFound(_) => Code::NotFound,
            DownloadError::Denied(_) => Code::PermissionDenied,
            DownloadError::Failed(_) => Code::Unavailable,
        };
        Self::Outside(Status::new(code, error.to_string()))
    }
}

impl From<SpoolError> for Failure {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::NoRoom(error) => {
                Self::Outside(Status::resource_exhausted(format!("{error}: try again later")))
            }
            SpoolError::Store(error) => Self::Ours(store_status("uris", &error)),
        }
    }
}
