//! Starts and ends the tools of a worker, and has them do what actions ask for.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use kiln_net::clock::until;
use kiln_net::counts::duration;
use kiln_protos::persistent::WorkResponse;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::PersistentConfig;
use super::plan::{self, Job, Unfit};
use super::pool::{Pool, Room};
use super::protocol::{MAX_RESPONSE_BYTES, Responses};
use super::stats::{End, ToolStats};
use super::tail::Tail;
use super::warm::{
    Kept, Lent, Number, Shared, Silence, ToolAnswer, Warm, converse, is_fit, malformed,
};
use crate::failure::Failure;
use crate::runner::Runners;
use crate::sandbox::{
    CommandSpec, Ending, Finished, LONGEST_TIMEOUT, OutputStream, SandboxError, Tool, Usage,
    Withdrawal,
};

/// How many times a tool that waits is tried before another is started: each may have died.
const MAX_TRIES: usize = 4;

pub struct Tools {
    shared: Arc<Shared>,
    /// The task that ends idle tools. `None`: no tool is kept at all.
    reaper: Mutex<Option<JoinHandle<()>>>,
}

/// Why an attempt to have a tool do an action gave no answer.
enum Fault {
    /// The action is to run by itself, for this reason; the text has details.
    Unfit(Unfit, String),
    Malformed(String),
}

impl Tools {
    /// Keeps tools as `config` says, and none where `runners` have no place for them. Must be
    /// called within a Tokio runtime.
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

    /// Counts an action that asked for a tool and runs by itself.
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
    ) -> Result<Option<ToolAnswer>, Failure> {
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
                Ok(Some(ToolAnswer { finished: finished?, tool: Some(Lent(Some(warm))) }))
            }
            Ok(Ok((response, left))) => {
                let (Some(mut warm), Some(root)) = (warm, root) else {
                    return Err(Failure::Infrastructure("a tool that is not there".into()));
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
                Ok(Some(ToolAnswer { finished: finished(ending, root), tool: Some(lent) }))
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
                    return Err(Failure::Infrastructure(message.into()));
                };
                warm.finish(End::Malformed).await.map_err(not_gone)?;
                let finished = finished(Ending::Unusable(message), root);
                Ok(Some(ToolAnswer { finished, tool: Some(Lent(Some(warm))) }))
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

    /// Takes a tool that waits, and shows it its next input root.
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

    /// Ends the tools that wait, and keeps none from now on.
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

async fn end_idle(shared: Arc<Shared>) {
    let idle = shared.config.idle;
    loop {
        let next = shared.pool().next_expiry(idle);
        tokio::select! {
            () = until(next) => {}
            () = shared.waits.notified() => {}
            () = shared.stopping.cancelled() => return,
        }
        let expired = shared.pool().expire(idle, Instant::now());
        for warm in expired {
            warm.stop(End::Idle).await;
        }
    }
}

fn not_started(error: SandboxError) -> Fault {
    Fault::Unfit(Unfit::NotStarted, error.to_string())
}

/// The failure of an action that was stopped while its tool was being started.
fn stopped_at_its_start(ending: Ending, spec: &CommandSpec) -> Failure {
    if ending == Ending::Cancelled {
        return Failure::Cancelled;
    }
    Failure::TimedOut(format!(
        "the action ran into its timeout of {} while its tool was being started",
        duration(spec.timeout)
    ))
}

/// The failure of an action whose tool could not be ended: it may still write the outputs.
fn not_gone(error: SandboxError) -> Failure {
    Failure::io("end a persistent worker", error)
}

fn finished(ending: Ending, root: OwnedFd) -> Finished {
    Finished { ending, usage: Usage::default(), not_changed: Vec::new(), root }
}
