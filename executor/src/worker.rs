//! A worker: its slots and its cache, which outlive the sessions with schedulers.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kiln_cas::SharedBlobStore;
use kiln_protos::worker::{SchedulerMessage, WorkerMessage};
use nix::fcntl::{Flock, FlockArg};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{SandboxMode, WorkerConfig};
use crate::execute::Executor;
use crate::failure::Failure;
use crate::images::Images;
use crate::input_root::InputRoots;
use crate::lease_blobs::LeaseBlobs;
use crate::paths::MAX_WORK_DIR;
use crate::persistent::Tools;
use crate::platform;
use crate::runner::Runners;
use crate::sandbox::SandboxError;
use crate::sandbox_runners::SandboxRunners;
use crate::session::{Session, SessionEnd};
use crate::status::WorkerStatus;
use crate::work::{SlotPlace, Work};

#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("the worker cannot use its directory {path}: {error}")]
    WorkDir { path: PathBuf, error: std::io::Error },
    #[error(
        "the path of the worker's directory has {bytes} bytes, and with more than {MAX_WORK_DIR} long paths of \
         inputs would find no room below it: {path}; name a data directory with a shorter path"
    )]
    LongWorkDir { path: PathBuf, bytes: usize },
    #[error("the work directory {0} is in use by another worker; give each its own")]
    InUse(PathBuf),
    #[error("the sandbox does not work here: {0}")]
    Sandbox(#[from] SandboxError),
    #[error(
        "this machine cannot enforce: {}; start with --sandbox=best-effort to run without",
        .0.join("; ")
    )]
    NotEnforced(Vec<String>),
    #[error("the worker's own property {0}")]
    Property(String),
    #[error("a slot does not start: {0}")]
    Slot(Failure),
    #[error("the scheduler ended the session")]
    SessionLost,
}

/// Runs actions for one scheduler until `shutdown` (then it finishes what it runs), or until the
/// scheduler asks for that or goes away. In one process with a scheduler or far from it.
pub async fn run(
    config: WorkerConfig,
    store: SharedBlobStore,
    incoming: mpsc::Receiver<SchedulerMessage>,
    outgoing: mpsc::Sender<WorkerMessage>,
    shutdown: CancellationToken,
) -> Result<(), WorkerError> {
    let mut worker = Worker::start(config, store).await?;
    let end = worker.session(incoming, outgoing, &shutdown).await;
    worker.stop().await;
    match end {
        SessionEnd::Drained => Ok(()),
        SessionEnd::Lost => Err(WorkerError::SessionLost),
    }
}

pub struct Worker {
    work: Work,
    /// The lock on the work directory, held as long as this worker uses it.
    _lock: Flock<File>,
}

impl Worker {
    /// Starts all slots in the sandbox.
    pub async fn start(config: WorkerConfig, store: SharedBlobStore) -> Result<Self, WorkerError> {
        check_length(&config.work_dir)?;
        let (inputs, images) = (inputs_dir(&config.work_dir), images_dir(&config.work_dir));
        for path in [&inputs, &images] {
            std::fs::create_dir_all(path)
                .map_err(|error| WorkerError::WorkDir { path: path.clone(), error })?;
        }
        let runners = SandboxRunners::probe(&config, inputs, images).await?;
        let not_enforced = runners.not_enforced();
        if config.sandbox == SandboxMode::Required && !not_enforced.is_empty() {
            return Err(WorkerError::NotEnforced(not_enforced));
        }
        for lacking in &not_enforced {
            tracing::warn!("the sandbox of this worker does not enforce: {lacking}");
        }
        Self::with_runners(config, store, Arc::new(runners)).await
    }

    /// Starts a worker with other runners than the sandbox.
    pub async fn with_runners(
        mut config: WorkerConfig,
        store: SharedBlobStore,
        runners: Arc<dyn Runners>,
    ) -> Result<Self, WorkerError> {
        let lease_blobs = Arc::new(LeaseBlobs::before(store));
        let store: SharedBlobStore = lease_blobs.clone();
        let own = platform::check_own(&config.properties, config.allow_network);
        if let Some(root) = own.map_err(WorkerError::Property)? {
            config.root_fs = root;
        }
        let path = config.work_dir.clone();
        let failed = |error| WorkerError::WorkDir { path: path.clone(), error };
        let lock = lock(&config.work_dir)?;
        let spool_dir = config.work_dir.join("spool");
        std::fs::create_dir_all(&spool_dir).map_err(failed)?;
        let inputs = inputs_dir(&config.work_dir);
        let (input, mut cache) = (config.input.clone(), config.cache.clone());
        if let Some(premises) = &config.premises {
            cache.own_bytes = premises.share();
        }
        let roots = InputRoots::open(&inputs, store.clone(), input, cache).map_err(failed)?;
        if let Some(premises) = config.premises.clone() {
            roots.move_into(premises);
        }
        let images = images_dir(&config.work_dir);
        let images =
            Images::open(&images, config.images.clone(), Arc::default()).map_err(failed)?;
        let mut slots = Vec::new();
        for number in 0..config.slots {
            let runner = runners.start(number).await.map_err(WorkerError::Slot)?;
            slots.push(SlotPlace { number, runner: Some(runner) });
        }
        let (images, tools) = (Arc::new(images), Tools::new(config.persistent, runners.clone()));
        let executor =
            Arc::new(Executor { config, store, lease_blobs, roots, images, tools, spool_dir });
        Ok(Self { work: Work::new(executor, runners, slots), _lock: lock })
    }

    /// Works in one session. What runs when it is lost goes on for `WorkerConfig::absence`, and the next
    /// session reports it; call [`Self::away`] in between.
    pub async fn session(
        &mut self,
        incoming: mpsc::Receiver<SchedulerMessage>,
        outgoing: mpsc::Sender<WorkerMessage>,
        shutdown: &CancellationToken,
    ) -> SessionEnd {
        Session::new(&mut self.work, outgoing).run(incoming, shutdown).await
    }

    /// Waits for `wait` before the next session. Returns sooner at the shutdown of a worker that
    /// has nothing left to do.
    pub async fn away(&mut self, wait: Duration, shutdown: &CancellationToken) {
        self.work.away(wait, shutdown).await;
    }

    /// Whether an action runs, or has ended without a scheduler that was told.
    pub fn is_pending(&self) -> bool {
        self.work.is_pending()
    }

    /// One sentence for each thing that the sandbox cannot enforce on this machine; empty: it
    /// enforces everything.
    pub fn not_enforced(&self) -> Vec<String> {
        self.work.not_enforced()
    }

    /// A view of the worker while it runs.
    pub fn status(&self) -> WorkerStatus {
        let executor = self.work.executor();
        WorkerStatus {
            worker_id: executor.config.worker_id.clone(),
            slots: executor.config.slots,
            not_enforced: self.not_enforced().into(),
            inputs: executor.roots.stats(),
            images: executor.images.stats(),
            tools: executor.tools.stats(),
            condition: self.work.condition(),
        }
    }

    /// Notes why a session was lost, or came to nothing.
    pub fn session_failed(&self, reason: String) {
        self.work.condition().failed(reason);
    }

    /// Stops what runs, and ends the slots' processes.
    pub async fn stop(self) {
        self.work.stop().await;
    }
}

/// Fails where the path of the work directory is so long that an action whose inputs have long
/// paths could not run below it. To be called before anything is made there.
fn check_length(work_dir: &Path) -> Result<(), WorkerError> {
    match work_dir.as_os_str().len() {
        bytes if bytes > MAX_WORK_DIR => {
            Err(WorkerError::LongWorkDir { path: work_dir.to_owned(), bytes })
        }
        _ => Ok(()),
    }
}

fn inputs_dir(work_dir: &Path) -> PathBuf {
    work_dir.join("inputs")
}

fn images_dir(work_dir: &Path) -> PathBuf {
    work_dir.join("images")
}

/// Locks the work directory, and closes it to all other users of the machine.
fn lock(work_dir: &Path) -> Result<Flock<File>, WorkerError> {
    let failed = |error| WorkerError::WorkDir { path: work_dir.to_owned(), error };
    std::fs::create_dir_all(work_dir).map_err(failed)?;
    std::fs::set_permissions(work_dir, Permissions::from_mode(0o700)).map_err(failed)?;
    let file = File::create(work_dir.join("lock")).map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::errno::Errno::EWOULDBLOCK => WorkerError::InUse(work_dir.to_owned()),
        other => failed(other.into()),
    })
}

#[cfg(test)]
mod tests {
    use kiln_cas::stores::MemoryBlobStore;

    use super::*;

    #[tokio::test]
    async fn a_directory_that_leaves_long_paths_of_inputs_no_room_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let name = "x".repeat(MAX_WORK_DIR - base.path().as_os_str().len());
        let config = WorkerConfig::new("worker".to_owned(), base.path().join(name), 1);
        let store: SharedBlobStore = Arc::new(MemoryBlobStore::default());
        let refused = Worker::start(config, store).await.err().unwrap().to_string();
        assert!(refused.contains("has 261 bytes") && refused.contains("shorter path"), "{refused}");
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
    }
}
