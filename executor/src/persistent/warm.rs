//! A tool that runs: what it is asked, and how it goes back to those that wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kiln_cas::Digest;
use kiln_protos::persistent::WorkResponse;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::PersistentConfig;
use super::pool::Pool;
use super::protocol::{Malformed, Responses};
use super::stats::{End, ToolStats};
use super::tail::Tail;
use crate::images::Image;
use crate::input_root::InputRoot;
use crate::runner::Runners;
use crate::sandbox::{Finished, SandboxError, Tool, ToolEvent, Withdrawal};

/// What all tools of a worker share.
pub(super) struct Shared {
    pub(super) config: PersistentConfig,
    pub(super) runners: Arc<dyn Runners>,
    pub(super) pool: Mutex<Pool<Warm>>,
    pub(super) stats: Arc<ToolStats>,
    /// Notified when a tool begins to wait for its next request.
    pub(super) waits: Notify,
    pub(super) stopping: CancellationToken,
}

impl Shared {
    pub(super) fn pool(&self) -> MutexGuard<'_, Pool<Warm>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The image and the input root that have to stay on disk as long as the tool runs.
#[derive(Clone)]
pub struct Kept {
    pub image: Option<Arc<Image>>,
    pub input_root: Option<Arc<InputRoot>>,
}

/// A tool that runs.
pub(super) struct Warm {
    pub(super) tool: Option<Tool>,
    pub(super) key: Digest,
    pub(super) responses: Responses,
    /// Most bytes that the tool may print on its stderr while it does one request.
    pub(super) noise: usize,
    pub(super) stderr: Tail,
    pub(super) answered: u32,
    /// Why the tool is not to have another request; `None`: it may have one.
    pub(super) unfit: Option<End>,
    /// The reason under which the tool's end is counted when this is dropped.
    pub(super) end: End,
    /// The image and the input root of the tool's first request: the tool may read its own files again.
    pub(super) _kept: Kept,
    pub(super) number: Arc<Number>,
}

/// The number of a tool. It is free again when the tool is gone, and nobody waits for that any more.
pub(super) struct Number {
    pub(super) number: u32,
    pub(super) shared: Arc<Shared>,
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
    pub(super) async fn stop(mut self, end: End) {
        // It is being killed all the same.
        if let Err(error) = self.finish(end).await {
            tracing::debug!(%error, "a tool was not ended in order");
        }
    }

    /// Ends the tool, and returns when it is gone. Its number stays taken while this exists.
    pub(super) async fn finish(&mut self, end: End) -> Result<(), SandboxError> {
        self.end = end;
        match self.tool.take() {
            Some(tool) => tool.stop().await,
            None => Ok(()),
        }
    }
}

/// A tool's answer to an action.
pub struct ToolAnswer {
    pub finished: Finished,
    /// The tool, lent until this is dropped; `None`: the action ran by itself. What the tool wrote
    /// may be read until then; afterwards another request may have the tool, or another tool its
    /// place.
    pub tool: Option<Lent>,
}

/// A tool that has answered, on its way back, or its place where it has been ended.
pub struct Lent(pub(super) Option<Warm>);

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

/// Whether the tool runs and has said nothing since its last response.
pub(super) fn is_fit(warm: &mut Warm) -> bool {
    let Some(tool) = &mut warm.tool else { return false };
    let printed = tool.printed();
    let silent = printed.is_empty() || matches!(warm.responses.push(&printed), Ok(None));
    tool.is_alive() && silent && warm.responses.is_between()
}

/// Why a tool gave no response.
pub(super) enum Silence {
    Ended(String),
    Malformed(Malformed),
}

/// Sends the request, and waits for the response. Then the tool sees nothing of its input root any more.
pub(super) async fn converse(
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

pub(super) fn malformed(error: &Malformed, stderr: &Tail) -> String {
    format!(
        "the persistent worker's answer is no response: {error}{}. A persistent worker may print \
         responses only on its stdout; what it has to say belongs on its stderr or into the response",
        stderr.sentence()
    )
}
