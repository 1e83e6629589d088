//! The tools of a worker: starts, asks and ends them.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kiln_cas::Digest;
use kiln_protos::persistent::WorkResponse;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::PersistentConfig;
use super::plan::{self, Job, Unfit};
use super::pool::{Pool, Room};
use super::protocol::{MAX_RESPONSE_BYTES, Malformed, Responses, Tail};
use super::stats::{End, ToolStats};
use crate::failure::Failure;
use crate::images::Image;
use crate::input_root::InputRoot;
use crate::runner::Runners;
use crate::sandbox::{
    CommandSpec, Ending, Finished, LONGEST_TIMEOUT, OutputStream, SandboxError, Tool, ToolEvent,
    Usage, Withdrawal,
};

/// How many times a tool that waits is tried before another is started: each may have died.
const MAX_TRIES: usize = 4;

pub struct Tools {
    shared: Arc<Shared>,
    /// Ends those that nobody asks. `None`: no tool is kept at all.
    reaper: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    config: PersistentConfig,
    runners: Arc<dyn Runners>,
    pool: Mutex<Pool<Warm>>,
    stats: Arc<ToolStats>,
    /// A tool begins to wait.
    waits: Notify,
    stopping: CancellationToken,
}

/// What has to be there as long as the tool.
#[derive(Clone)]
pub struct Kept {
    pub image: Option<Arc<Image>>,
    pub input_root: Option<Arc<InputRoot>>,
}

/// A tool that runs.
struct Warm {
    tool: Option<Tool>,
    key: Digest,
    responses: Responses,
    /// Most bytes it may print on its stderr while it does one request.
    noise: usize,
    stderr: Tail,
    answered: u32,
    /// Why it is not to have another request.
    unfit: Option<End>,
    /// Why it is no more, when it is not known better.
    end: End,
    /// Of its first request: what it has read of its own files at its start it may read again.
    _kept: Kept,
    number: Arc<Number>,
}

/// Given back when its tool is gone, and nobody else waits for that.
struct Number {
    number: u32,
    shared: Arc<Shared>,
}

impl Drop for Number {
    fn drop(&mut self) {
        self.shared.pool().free(self.number);
    }
}

impl Drop for Warm {
    fn drop(&mut self) {
        // Its zygote is killed, and with it the tool, before another may have its number.
        drop(self.tool.take());
        self.number.shared.stats.ended(self.end);
    }
}

impl Warm {
    async fn stop(mut self, end: End) {
        // It is being killed all the same.
        if let Err(error) = self.finish(end).await {
            tracing::debug!(%error, "a tool was not ended in order");
        }
    }

    /// Ends the tool, and returns when it is gone. Its number stays taken while this exists.
    async fn finish(&mut self, end: End) -> Result<(), SandboxError> {
        self.end = end;
        match self.tool.take() {
            Some(tool) => tool.stop().await,
            None => Ok(()),
        }
    }
}

/// A tool's answer to an action.
pub struct Answer {
    pub finished: Finished,
    /// What it wrote may be read while this exists; then another request may have the tool, or
    /// another tool its place.
    pub tool: Option<Lent>,
}

/// A tool that has answered, on its way back, or its place where it has been ended.
pub struct Lent(Option<Warm>);

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(mut warm) = self.0.take() else { return };
        if warm.tool.is_none() {
            return;
        }
        let shared = warm.number.shared.clone();
        let worn_out = (warm.answered >= shared.config.requests).then_some(End::WornOut);
        if let Some(end) = warm.unfit.or(worn_out) {
            warm.end = end;
            return;
        }
        let released = warm.tool.as_mut().map(Tool::release);
        if !matches!(released, Some(Ok(()))) {
            warm.end = End::Died;
            return;
        }
        warm.end = End::Shutdown;
        let refused = shared.pool().keep(warm.key, warm, Instant::now());
        drop(refused);
        shared.waits.notify_one();
    }
}

/// How an attempt to be answered ended, other than by an answer.
enum Fault {
    /// The action is to run by itself.
    Unfit(Unfit, String),
    Malformed(String),
}

impl Tools {
    /// Within a runtime.
    pub fn new(config: PersistentConfig, runners: Arc<dyn Runners>) -> Self {
        let tools = if runners.tool_slot(0).is_some() { config.tools } else { 0 };
        let config = PersistentConfig { tools, ..config };
        let shared = Arc::new(Shared {
            config,
            runners,
            pool: Mutex::new(Pool::new(tools)),
            stats: Arc::default(),
            waits: Notify::new(),
            stopping: CancellationToken::new(),
        });
        let reaper = (tools > 0).then(|| tokio::spawn(end_idle(shared.clone())));
        Self { shared, reaper: Mutex::new(reaper) }
    }

    /// Whether actions that ask for a tool may get one.
    pub fn are_kept(&self) -> bool {
        self.shared.config.tools > 0
    }

    pub fn stats(&self) -> Arc<ToolStats> {
        self.shared.stats.clone()
    }

    /// The action runs by itself.
    pub fn unfit(&self, why: Unfit, detail: &str) {
        tracing::debug!(
            reason = why.name(),
            detail,
            "an action runs without its persistent worker"
        );
        self.shared.stats.unfit(why);
    }

    /// Has a tool do what `spec` would. `None`: it has to run by itself. What the tool answers goes to
    /// `output` as the action's stderr, as with Bazel.
    pub async fn run(
        &self,
        job: &Job,
        spec: &CommandSpec,
        kept: Kept,
        output: &mpsc::Sender<(OutputStream, Bytes)>,
        cancel: &CancellationToken,
    ) -> Result<Option<Answer>, Failure> {
        let mut at_work = None;
        let deadline = Instant::now() + spec.timeout.min(LONGEST_TIMEOUT);
        let stopped = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Ending::Cancelled),
            () = sleep_until(deadline) => Err(Ending::TimedOut),
            answered = self.attempt(job, spec, kept, &mut at_work) => Ok(answered),
        };
        let (warm, root) = at_work.unzip();
        match stopped {
            Err(ending) => {
                // One that is only being started is gone by now.
                let Some((mut warm, root)) = warm.zip(root) else {
                    return Err(stopped_at_its_start(ending, spec));
                };
                let finished = match ending {
                    Ending::Cancelled => Err(Failure::Cancelled),
                    ending => Ok(finished(ending, root)),
                };
                warm.finish(End::Killed).await.map_err(not_gone)?;
                Ok(Some(Answer { finished: finished?, tool: Some(Lent(Some(warm))) }))
            }
            Ok(Ok((response, left))) => {
                let (Some(mut warm), Some(root)) = (warm, root) else {
                    return Err(Failure::Infrastructure("a tool that is not there".to_owned()));
                };
                if left.still_writing {
                    tracing::warn!("a persistent worker writes after its response and is ended");
                    warm.finish(End::StillWriting).await.map_err(not_gone)?;
                }
                let lent = Lent(Some(warm));
                let exit_code = response.exit_code;
                let over_limit = left.over_limit.filter(|_| exit_code != 0);
                if !response.output.is_empty() {
                    // Nobody listens: then nobody misses it.
                    let _ = output.send((OutputStream::Stderr, response.output.into())).await;
                }
                let ending = match over_limit {
                    Some(limit) => Ending::OverLimit { limit, exit_code },
                    None => Ending::Exited(exit_code),
                };
                Ok(Some(Answer { finished: finished(ending, root), tool: Some(lent) }))
            }
            Ok(Err(Fault::Unfit(why, detail))) => {
                if let Some(warm) = warm {
                    let end = warm.unfit.filter(|_| why == Unfit::WornOut).unwrap_or(End::Died);
                    warm.stop(end).await;
                }
                self.unfit(why, &detail);
                Ok(None)
            }
            Ok(Err(Fault::Malformed(message))) => {
                let (Some(mut warm), Some(root)) = (warm, root) else {
                    return Err(Failure::Infrastructure(message));
                };
                warm.finish(End::Malformed).await.map_err(not_gone)?;
                let finished = finished(Ending::Unusable(message), root);
                Ok(Some(Answer { finished, tool: Some(Lent(Some(warm))) }))
            }
        }
    }

    async fn attempt(
        &self,
        job: &Job,
        spec: &CommandSpec,
        kept: Kept,
        at_work: &mut Option<(Warm, OwnedFd)>,
    ) -> Result<(WorkResponse, Withdrawal), Fault> {
        let (arguments, environment) = (job.startup.clone(), plan::environment(spec));
        let started = CommandSpec { arguments, environment, ..spec.clone() };
        let ready = match self.waiting(job, &started).await {
            Some(found) => found,
            None => self.start(job, &started, kept).await?,
        };
        let (warm, _) = at_work.insert(ready);
        match converse(warm, job.request.clone()).await {
            Ok((response, left)) => {
                if left.worn || left.hampered.is_some() {
                    warm.unfit = warm.unfit.or(Some(End::WornOut));
                }
                if let Some(why) = left.hampered.clone().filter(|_| response.exit_code != 0) {
                    return Err(Fault::Unfit(Unfit::WornOut, why));
                }
                self.shared.stats.answered(warm.answered > 0);
                warm.answered += 1;
                Ok((response, left))
            }
            Err(Silence::Malformed(error)) => {
                let message = malformed(&error, &warm.stderr);
                tracing::warn!(%message, "a persistent worker is ended");
                Err(Fault::Malformed(message))
            }
            Err(Silence::Ended(how)) => {
                let said = warm.stderr.sentence();
                tracing::warn!("a persistent worker ended before it answered ({how}){said}");
                if warm.answered == 0 {
                    self.shared.pool().failed(warm.key, Instant::now());
                }
                Err(Fault::Unfit(Unfit::Died, how))
            }
        }
    }

    /// One that waits, with its next input root.
    async fn waiting(&self, job: &Job, spec: &CommandSpec) -> Option<(Warm, OwnedFd)> {
        for _ in 0..MAX_TRIES {
            let mut warm = self.shared.pool().take(&job.key)?;
            warm.end = End::Killed;
            if !is_fit(&mut warm) {
                warm.stop(End::Died).await;
                continue;
            }
            let Some(tool) = warm.tool.as_mut() else { continue };
            match tool.present(spec).await {
                Ok(root) => return Some((warm, root)),
                Err(error) => {
                    tracing::warn!(%error, "a persistent worker cannot be used again");
                    warm.stop(End::Died).await;
                }
            }
        }
        None
    }

    async fn start(
        &self,
        job: &Job,
        spec: &CommandSpec,
        kept: Kept,
    ) -> Result<(Warm, OwnedFd), Fault> {
        if self.shared.pool().is_unreliable(&job.key, Instant::now()) {
            return Err(Fault::Unfit(Unfit::Unreliable, String::new()));
        }
        let no_room = || Fault::Unfit(Unfit::NoRoom, String::new());
        let number = self.number().await.ok_or_else(no_room)?;
        let config = self.shared.runners.tool_slot(number.number).ok_or_else(no_room)?;
        let (tool, root) = Tool::start(config, spec).await.map_err(not_started)?;
        self.shared.stats.started();
        let most = spec.limits.output_bytes.and_then(|bytes| usize::try_from(bytes).ok());
        let limit = most.unwrap_or(MAX_RESPONSE_BYTES).min(MAX_RESPONSE_BYTES);
        let warm = Warm {
            tool: Some(tool),
            key: job.key,
            responses: Responses::new(job.protocol, limit),
            noise: most.unwrap_or(usize::MAX),
            stderr: Tail::default(),
            answered: 0,
            unfit: None,
            end: End::Killed,
            _kept: kept,
            number,
        };
        Ok((warm, root))
    }

    async fn number(&self) -> Option<Arc<Number>> {
        let room = self.shared.pool().room();
        match room {
            Room::Number(number) => Some(Arc::new(Number { number, shared: self.shared.clone() })),
            Room::Evict(warm) => {
                // Nobody else is to have it in between.
                let number = warm.number.clone();
                warm.stop(End::Evicted).await;
                Some(number)
            }
            Room::None => None,
        }
    }

    /// Ends those that wait, and keeps none from now on.
    pub async fn stop(&self) {
        self.shared.stopping.cancel();
        let reaper = self.reaper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reaper) = reaper
            && let Err(error) = reaper.await
        {
            tracing::warn!(%error, "what ends idle persistent workers has failed");
        }
        let waiting = self.shared.pool().close();
        for warm in waiting {
            warm.stop(End::Shutdown).await;
        }
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        self.shared.stopping.cancel();
        let waiting = self.shared.pool().close();
        drop(waiting);
    }
}

impl Shared {
    fn pool(&self) -> MutexGuard<'_, Pool<Warm>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn end_idle(shared: Arc<Shared>) {
    let idle = shared.config.idle;
    loop {
        let next = shared.pool().next_expiry(idle);
        tokio::select! {
            () = crate::work::until(next) => {}
            () = shared.waits.notified() => {}
            () = shared.stopping.cancelled() => return,
        }
        let expired = shared.pool().expire(idle, Instant::now());
        for warm in expired {
            warm.stop(End::Idle).await;
        }
    }
}

/// Whether it runs and has said nothing since its last response.
fn is_fit(warm: &mut Warm) -> bool {
    let Some(tool) = &mut warm.tool else { return false };
    let printed = tool.printed();
    let silent = printed.is_empty() || matches!(warm.responses.push(&printed), Ok(None));
    tool.is_alive() && silent && warm.responses.is_between()
}

/// Why there is no response.
enum Silence {
    Ended(String),
    Malformed(Malformed),
}

/// The response, and how the tool has left its input root: it sees nothing any more then.
async fn converse(
    warm: &mut Warm,
    mut request: Bytes,
) -> Result<(WorkResponse, Withdrawal), Silence> {
    let Some(tool) = warm.tool.as_mut() else { return Err(Silence::Ended("it is gone".into())) };
    let mut noise = 0;
    // What it said to another's request is not for this one's eyes.
    warm.stderr.clear();
    loop {
        match tool.step(&mut request).await {
            Ok(ToolEvent::Stdout(bytes)) => {
                let response = warm.responses.push(&bytes).map_err(Silence::Malformed)?;
                if let Some(response) = response {
                    let unwritten = request.len();
                    if unwritten > 0 {
                        return Err(Silence::Malformed(warm.responses.too_early(unwritten)));
                    }
                    if !warm.responses.is_read(tool.unread()) {
                        warm.unfit = Some(End::HalfRead);
                    }
                    let withdrawn = tool.withdraw().await;
                    return withdrawn
                        .map(|left| (response, left))
                        .map_err(|error| Silence::Ended(error.to_string()));
                }
            }
            Ok(ToolEvent::Stderr(bytes)) => {
                warm.stderr.push(&bytes);
                noise += bytes.len();
                if noise > warm.noise {
                    let most = warm.noise;
                    let how = format!("it printed more than {most} bytes on its stderr");
                    return Err(Silence::Ended(how));
                }
            }
            Ok(ToolEvent::Ended(ending)) => return Err(Silence::Ended(format!("{ending:?}"))),
            Err(error) => return Err(Silence::Ended(error.to_string())),
        }
    }
}

fn malformed(error: &Malformed, stderr: &Tail) -> String {
    format!(
        "the persistent worker's answer is no response: {error}{}. A persistent worker may print \
         responses only on its stdout; what it has to say belongs on its stderr or into the response",
        stderr.sentence()
    )
}

fn not_started(error: SandboxError) -> Fault {
    Fault::Unfit(Unfit::NotStarted, error.to_string())
}

/// What did not end in time had not even begun.
fn stopped_at_its_start(ending: Ending, spec: &CommandSpec) -> Failure {
    if ending == Ending::Cancelled {
        return Failure::Cancelled;
    }
    Failure::TimedOut(format!(
        "the action ran into its timeout of {:?} while its tool was being started",
        spec.timeout
    ))
}

/// What a tool that may still run has written cannot be read.
fn not_gone(error: SandboxError) -> Failure {
    Failure::Infrastructure(format!("a persistent worker was to be ended: {error}"))
}

fn finished(ending: Ending, root: OwnedFd) -> Finished {
    Finished { ending, usage: Usage::default(), not_changed: Vec::new(), root }
}
