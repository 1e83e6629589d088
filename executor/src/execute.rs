//! Executes one action, from its digest to its result.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use kiln_cas::action::{Action, MAX_ACTION_BYTES, MAX_COMMAND_BYTES};
use kiln_cas::counted;
use kiln_cas::{Digest, DigestFunction, SharedBlobStore, StoreError};
use kiln_protos::reapi;
use kiln_protos::worker::{Lease, Stage};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::command::{self, Prepared};
use crate::config::WorkerConfig;
use crate::failure::Failure;
use crate::hermeticity::{self, Rerun};
use crate::images::{Image, Images, Problem};
use crate::input_root::{InputRoot, InputRoots};
use crate::isolation;
use crate::lease_blobs::LeaseBlobs;
use crate::outputs::{self, Collected, OutputError, OutputSpec, Patience};
use crate::persistent::{Job, Kept, Subject, ToolAnswer, Tools, Unfit};
use crate::report::Reporter;
use crate::response::{self, Timeline, Verdict};
use crate::runner::Runner;
use crate::sandbox::{Ending, Finished, OutputStream};
use crate::streams::{self, CHUNKS_WAITING, Streams};

/// What all slots of a worker share.
pub struct Executor {
    pub config: WorkerConfig,
    /// The store of blobs; it looks in `lease_blobs` before it asks the server's store.
    pub store: SharedBlobStore,
    pub lease_blobs: Arc<LeaseBlobs>,
    pub roots: InputRoots,
    pub images: Arc<Images>,
    pub tools: Tools,
    /// The directory for stdout and stderr that are too long for memory.
    pub spool_dir: PathBuf,
}

impl Executor {
    /// Runs the action of `lease` and answers its response; every blob that the response names is
    /// in the store then. Errors: the action was not run, or its outcome could not be stored.
    pub async fn execute(
        &self,
        lease: &Lease,
        runner: &mut dyn Runner,
        reporter: &Reporter,
        cancel: &CancellationToken,
    ) -> Result<reapi::ExecuteResponse, Failure> {
        match self.run(lease, runner, reporter, cancel).await {
            Err(Failure::Answer { code, message }) => Ok(response::refused(code, message)),
            Err(Failure::TimedOut(reason)) => Ok(response::timed_out_early(reason)),
            other => other,
        }
    }

    async fn run(
        &self,
        lease: &Lease,
        runner: &mut dyn Runner,
        reporter: &Reporter,
        cancel: &CancellationToken,
    ) -> Result<reapi::ExecuteResponse, Failure> {
        let (name, now) = (&self.config.worker_id, SystemTime::now());
        let mut timeline = Timeline::begin(name, lease.queued_at, now);
        reporter.progress(Stage::FetchingInputs).await;
        let action = action_digest(lease)?;
        self.lease_blobs.keep(action.function, &lease.blobs);
        let mut fetched =
            unless_cancelled(cancel, self.fetch(&action, lease.default_timeout_ms)).await?;
        let rerun = Rerun::of(lease)?;
        fetched.command.spec.conditions = rerun.as_ref().map(Rerun::conditions).unwrap_or_default();
        let job = unless_cancelled(cancel, self.job(&fetched, lease)).await?;

        timeline.fetch_end = SystemTime::now();
        reporter.progress(Stage::Running).await;
        let (sender, chunks) = mpsc::channel(CHUNKS_WAITING);
        let kept = self.config.limits.output_bytes;
        let (answered, streams) = tokio::join!(
            self.run_command(&fetched, job, runner, sender, cancel),
            streams::keep(chunks, &self.spool_dir, action.function, kept, reporter),
        );
        timeline.run_end = SystemTime::now();
        let (ToolAnswer { finished, tool }, run_start) = answered?;
        timeline.run_start = run_start;
        let isolation = isolation::report(&fetched.command, runner.capabilities(), tool.is_some());
        let applied = rerun.map(|_| hermeticity::applied(&finished.not_changed));
        let streams = streams.map_err(|error| Failure::io("keep stdout and stderr", error))?;

        reporter.progress(Stage::UploadingOutputs).await;
        timeline.upload_start = SystemTime::now();
        let Prepared { spec, outputs, .. } = fetched.command;
        let left = Left { finished, streams, timeout: spec.timeout };
        let (result, verdict, stored) =
            self.conclude(left, outputs, action.function, cancel).await?;
        timeline.upload_end = SystemTime::now();
        let mut response = response::assemble(result, verdict, &timeline, timeline.upload_end);
        let metadata = response.result.as_mut().and_then(|it| it.execution_metadata.as_mut());
        if let Some(metadata) = metadata {
            metadata.auxiliary_metadata.push(isolation);
            metadata.auxiliary_metadata.extend(applied);
            metadata.auxiliary_metadata.extend(response::stored(stored));
        }
        Ok(response)
    }

    /// The request to a tool that does the same. `None`: the action runs by itself.
    async fn job(&self, fetched: &Fetched, lease: &Lease) -> Result<Option<Job>, Failure> {
        let Prepared { spec, outputs, persistent, .. } = &fetched.command;
        let Some(wish) = persistent.as_ref().filter(|_| self.tools.are_kept()) else {
            return Ok(None);
        };
        let (instance, tools) = (lease.instance_name.as_str(), lease.tools.as_deref());
        let subject = Subject { wish, spec, outputs, instance, tools };
        let planned = async {
            let candidate = subject.candidate()?;
            let listing = self.roots.list(fetched.root).await.map_err(|error| {
                tracing::debug!(%error, "the inputs of a persistent worker");
                Unfit::Inputs
            })?;
            subject.job(candidate, &listing).await
        };
        match planned.await {
            Ok(job) => Ok(Some(job)),
            Err(why) => {
                self.tools.unfit(why, &wish.key);
                Ok(None)
            }
        }
    }

    /// Has the action done by a tool that stays, if there is one for it, or else by itself. Answers
    /// when it began as well; what an earlier action left was removed before that.
    async fn run_command(
        &self,
        fetched: &Fetched,
        job: Option<Job>,
        runner: &mut dyn Runner,
        output: mpsc::Sender<(OutputStream, Bytes)>,
        cancel: &CancellationToken,
    ) -> Result<(ToolAnswer, SystemTime), Failure> {
        let spec = &fetched.command.spec;
        if let Some(job) = job {
            let began = SystemTime::now();
            let kept =
                Kept { image: fetched.image.clone(), input_root: fetched.input_root.clone() };
            // Boxed: most actions ask for no tool, and are not to be larger for it.
            let answer = Box::pin(self.tools.run(&job, spec, kept, &output, cancel)).await?;
            if let Some(answer) = answer {
                return Ok((answer, began));
            }
        }
        runner.ready(cancel).await?;
        let began = SystemTime::now();
        let finished = runner.run(spec, output, cancel.clone()).await?;
        Ok((ToolAnswer { finished, tool: None }, began))
    }

    async fn fetch(&self, digest: &Digest, default_timeout_ms: u64) -> Result<Fetched, Failure> {
        let data = self.message(digest, "Action", MAX_ACTION_BYTES).await?;
        let action = Action::decode(data, digest)
            .map_err(|error| Failure::InvalidAction(error.to_string()))?;
        let timeout = Duration::from_millis(default_timeout_ms);
        let (command, root) =
            tokio::join!(self.command(&action, timeout), self.roots.prepare(action.input_root),);
        let ((mut command, image), root) = both(command, root.map_err(Failure::from))?;
        command.spec.lower.extend(root.iter().flat_map(InputRoot::layers));
        let (root, input_root) = (action.input_root, root.map(Arc::new));
        Ok(Fetched { command, image, root, input_root })
    }

    /// Reads the action's Command and gets its image, where it names one. In the answer
    /// `spec.lower` is still empty.
    async fn command(
        &self,
        action: &Action,
        timeout: Duration,
    ) -> Result<(Prepared, Option<Arc<Image>>), Failure> {
        let data = self.message(&action.command, "Command", MAX_COMMAND_BYTES).await?;
        let command = counted::decode(data).map_err(|error| {
            Failure::InvalidAction(format!("blob {} is not a Command: {error}", action.command))
        })?;
        let mut prepared = command::prepare(action, command, timeout, &self.config)?;
        let image = match &prepared.image {
            None => None,
            Some(image) => Some(self.images.get(image).await.map_err(image_failure)?),
        };
        if let Some(image) = &image {
            prepared.use_image(image);
        }
        Ok((prepared, image))
    }

    /// The bytes of a message: those that came with the lease, or else the store's. `what`: the
    /// kind of message, for errors; `limit`: most bytes.
    async fn message(&self, digest: &Digest, what: &str, limit: u64) -> Result<Bytes, Failure> {
        if digest.is_empty_blob() {
            return Ok(Bytes::new());
        }
        match self.store.read(digest, 0, None).await?.collect(limit).await {
            Err(StoreError::TooLarge { .. }) => {
                let text = format!("the {what} message {digest} has more than {limit} bytes");
                Err(Failure::InvalidAction(text))
            }
            data => Ok(data?),
        }
    }

    /// Names and stores what the action left. The last value of the answer is how many bytes the
    /// store lacked.
    async fn conclude(
        &self,
        left: Left,
        spec: OutputSpec,
        function: DigestFunction,
        cancel: &CancellationToken,
    ) -> Result<(reapi::ActionResult, Verdict, u64), Failure> {
        let Left { finished: Finished { ending, root, .. }, mut streams, timeout } = left;
        if ending == Ending::Cancelled {
            return Err(Failure::Cancelled);
        }
        let Collected { mut result, mut blobs, root, fault } =
            self.collect(root, spec, function, cancel).await?;
        let verdict = Verdict::of(&ending, timeout, fault.as_ref());
        let mut verdict = verdict.ok_or(Failure::Cancelled)?;
        let kept = |error| Failure::io("keep stdout and stderr", error);
        if verdict.reason.is_empty() {
            verdict.reason = streams.left_out().unwrap_or_default();
        } else {
            streams.note(&verdict.reason).await.map_err(kept)?;
        }
        let [stdout, stderr] = streams.finish().await.map_err(kept)?;
        response::set_streams(&mut result, &stdout, &stderr);
        for stream in [stdout, stderr] {
            if !stream.digest.is_empty_blob() {
                blobs.push((stream.digest, stream.content));
            }
        }
        let upload = outputs::upload(&self.store, &root, blobs, self.config.absence);
        let stored = unless_cancelled(cancel, async { Ok(upload.await) }).await?;
        match stored {
            Ok(stored) => Ok((result, verdict, stored)),
            // However often it ran, and wherever, the store would take it no more than now.
            Err(StoreError::TooLarge { size, limit }) => {
                let fault = OutputError::TooLarge { size, limit };
                let verdict = Verdict::of(&ending, timeout, Some(&fault));
                Ok((response::without_blobs(result), verdict.ok_or(Failure::Cancelled)?, 0))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns only when nothing reads the action's files any more, also when it is cancelled.
    async fn collect(
        &self,
        root: OwnedFd,
        spec: OutputSpec,
        function: DigestFunction,
        cancel: &CancellationToken,
    ) -> Result<Collected, Failure> {
        let root = Arc::new(root);
        if spec.expected.is_empty() {
            let (result, blobs) = Default::default();
            return Ok(Collected { result, blobs, root, fault: None });
        }
        let limits = self.config.outputs.clone();
        let patience = Patience { cancel: cancel.clone(), until: Instant::now() + limits.time };
        let collected = tokio::task::spawn_blocking(move || {
            outputs::collect(root, &spec, function, &limits, &patience)
        });
        match collected.await.map_err(|error| Failure::io("collect outputs", error))? {
            Ok(collected) => Ok(response::within_bounds(collected)),
            Err(OutputError::Cancelled) => Err(Failure::Cancelled),
            Err(error) => Err(Failure::Infrastructure(error.into())),
        }
    }
}

/// What an action left when its command had ended: its ending and what it printed, under the
/// timeout that it had.
struct Left {
    finished: Finished,
    streams: Streams,
    timeout: Duration,
}

/// A command that can run, and what has to stay while it does.
struct Fetched {
    command: Prepared,
    image: Option<Arc<Image>>,
    /// The digest of the action's input root.
    root: Digest,
    input_root: Option<Arc<InputRoot>>,
}

fn image_failure(problem: Problem) -> Failure {
    let code = match &problem {
        Problem::Final(_) => response::code::FAILED_PRECONDITION,
        Problem::Passing { .. } => response::code::UNAVAILABLE,
        Problem::Local(text) => return Failure::Infrastructure(text.as_str().into()),
    };
    Failure::Answer { code, message: problem.to_string() }
}

/// Both results, or the more telling one of two failures; blobs that either misses are reported
/// together.
fn both<A, B>(a: Result<A, Failure>, b: Result<B, Failure>) -> Result<(A, B), Failure> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(Failure::MissingInputs(mut all)), Err(Failure::MissingInputs(more))) => {
            all.extend(more);
            Err(Failure::MissingInputs(all))
        }
        (Err(failure), _) | (_, Err(failure)) => Err(failure),
    }
}

async fn unless_cancelled<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Failure::Cancelled),
        result = work => result,
    }
}

fn action_digest(lease: &Lease) -> Result<Digest, Failure> {
    let invalid = |error: kiln_cas::DigestError| {
        Failure::InvalidAction(format!("the digest of the action: {error}"))
    };
    let function = DigestFunction::from_wire(lease.digest_function).map_err(invalid)?;
    let digest = lease.action.as_ref().ok_or(kiln_cas::DigestError::Absent).map_err(invalid)?;
    let wire = reapi::Digest { hash: digest.hash.clone(), size_bytes: digest.size_bytes };
    Digest::from_wire(&wire, function).map_err(invalid)
}
