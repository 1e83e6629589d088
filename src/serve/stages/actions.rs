//! Actions of stages on the store and the workers of this server.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use kiln_cas::logs::{LogStreams, MAX_LOG_BYTES};
use kiln_cas::overlay::{Overlay, OverlayError};
use kiln_cas::{Digest, DigestFunction, SharedBlobStore, StoreError};
use kiln_ci::attempts::BlobName;
use kiln_ci::stages::{
    ActionEnd, Actions, ActionsError, Done, MNEMONIC, StageLog, TAIL, Wanted, end_of,
};
use kiln_net::causes::chain;
use kiln_protos::reapi;
use kiln_scheduler::again::NotRun;
use kiln_scheduler::journal::{Journal, Page, Query};
use kiln_scheduler::{Going, OwnAction, OwnActions, OwnEnd, OwnRun};
use prost::Message;

/// The name of the tool in the builds that stages make.
const TOOL: &str = "kiln pipeline";
/// How often it is looked whether an action prints already.
const LOOK: Duration = Duration::from_millis(200);
/// How long the end of what an action printed is waited for when it has ended.
const PATIENCE: Duration = Duration::from_secs(2);
/// Executions of one action that are looked at: an attempt has one.
const EARLIER: usize = 5;
/// Bytes of a message that is read of a result.
const MAX_RESULT: usize = 16 << 20;

/// The stores and the scheduler of this server.
pub struct OnWorkers {
    pub blobs: SharedBlobStore,
    pub actions: OwnActions,
    pub journal: Journal,
    pub logs: LogStreams,
    /// The digest functions of instances; of others SHA-256.
    pub functions: BTreeMap<String, DigestFunction>,
    pub longest: Duration,
}

fn unavailable(error: &(dyn std::error::Error + 'static)) -> ActionsError {
    ActionsError::Unavailable(chain(error))
}

fn store(error: StoreError) -> ActionsError {
    match error {
        StoreError::NotFound(_) | StoreError::TooLarge { .. } => ActionsError::Unfit(chain(&error)),
        error => unavailable(&error),
    }
}

fn laid(error: OverlayError) -> ActionsError {
    match error {
        OverlayError::Store(error) => store(error),
        error => ActionsError::Unfit(chain(&error)),
    }
}

impl OnWorkers {
    fn function(&self, instance: &str) -> DigestFunction {
        self.functions.get(instance).copied().unwrap_or(DigestFunction::Sha256)
    }

    /// Reads a digest that is written as `HASH/SIZE`.
    fn digest(&self, instance: &str, name: &str) -> Result<Digest, ActionsError> {
        let wrong = || ActionsError::Unfit(format!("{name:?} is no digest: write HASH/SIZE"));
        let (hash, size) = name.split_once('/').ok_or_else(wrong)?;
        let size = size.parse().map_err(|_| wrong())?;
        Digest::from_hex(hash.as_bytes(), size, self.function(instance)).map_err(|_| wrong())
    }

    /// The end of an earlier attempt at the action that nobody waited for, from the journal, where
    /// failures are as well; `None`: there was none.
    async fn earlier(&self, wanted: &Wanted<'_>, action: Digest) -> Option<OwnEnd> {
        let found = self.journal.executions(&Query::Action(action), Page::first(EARLIER)).await;
        let found = found.unwrap_or_else(|error| {
            tracing::debug!(error = %chain(&error), "whether a stage has ended before is not known");
            Vec::new()
        });
        let ended = found.into_iter().map(|it| it.execution).find(|it| {
            let end = end_of(it.status_code, it.exit_code, it.cancelled, "");
            let final_end = matches!(end, ActionEnd::Exited(_) | ActionEnd::TimedOut);
            it.invocation_id == wanted.invocation && final_end
        })?;
        Some(OwnEnd {
            code: ended.status_code,
            message: ended.status_message.clone(),
            exit_code: ended.exit_code,
            cancelled: false,
            result: Bytes::copy_from_slice(&ended.action_result),
        })
    }

    /// Waits for an action's end while its output is passed on. `None`: the server ends.
    async fn follow(&self, going: &Going, log: &StageLog<'_>, seen: &Seen) -> Option<OwnEnd> {
        let streams = going.streams();
        let [stdout, stderr] = &*streams;
        let reading = async {
            tokio::join!(
                self.pass_on(stdout, (log, false), &seen.0[0]),
                self.pass_on(stderr, (log, true), &seen.0[1])
            )
        };
        tokio::pin!(reading);
        log.standing("waits for a worker");
        let end = going.end(|| log.standing("runs"));
        tokio::pin!(end);
        let ended = tokio::select! {
            ended = &mut end => ended,
            _ = &mut reading => return end.await,
        };
        // What was printed last may still be on its way.
        let _ = tokio::time::timeout(PATIENCE, reading).await;
        ended
    }

    /// Passes on what one stream of a running action says, until it ends or is cut.
    async fn pass_on(&self, name: &str, (log, stderr): (&StageLog<'_>, bool), seen: &AtomicU64) {
        let mut stream = loop {
            if let Ok(Some(stream)) = self.logs.read(name, 0).await {
                break stream;
            }
            tokio::time::sleep(LOOK).await;
        };
        while let Some(Ok(chunk)) = stream.next().await {
            // Behind that the log has a note of its own: the rest is read where it is whole.
            let room = (MAX_LOG_BYTES as u64).saturating_sub(seen.load(Ordering::Relaxed));
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(chunk.len());
            log.append(stderr, chunk.get(..room).unwrap_or_default());
            seen.fetch_add(room as u64, Ordering::Relaxed);
            if room < chunk.len() {
                return;
            }
        }
    }

    /// Appends to the log what the action printed beyond the `seen` bytes that were passed on; of
    /// very much only the end, after a note of what is left out.
    async fn rest(
        &self,
        function: DigestFunction,
        (digest, raw): (Option<&reapi::Digest>, &[u8]),
        (log, stderr): (&StageLog<'_>, bool),
        seen: u64,
    ) -> Result<(), ActionsError> {
        let Some(digest) = digest.and_then(|it| Digest::from_wire(it, function).ok()) else {
            let rest = usize::try_from(seen).ok().and_then(|it| raw.get(it..));
            log.append(stderr, rest.unwrap_or_default());
            return Ok(());
        };
        let mut from = seen.min(digest.size);
        let most = TAIL as u64;
        if digest.size - from > 4 * most {
            log.skip(digest.size - most - from);
            from = digest.size - most;
        }
        if from == digest.size {
            return Ok(());
        }
        let mut stream = match self.blobs.read(&digest, from, None).await {
            Ok(blob) => blob.into_stream(),
            // It ended so long ago that it was evicted.
            Err(StoreError::NotFound(_)) => {
                log.say("what was printed is not in the store any more");
                return Ok(());
            }
            Err(error) => return Err(unavailable(&error)),
        };
        while let Some(chunk) = stream.next().await {
            log.append(stderr, &chunk.map_err(|error| unavailable(&error))?);
        }
        Ok(())
    }

    async fn done(
        &self,
        wanted: &Wanted<'_>,
        (action, ended): (Digest, OwnEnd),
        log: &StageLog<'_>,
        seen: &Seen,
    ) -> Result<Done, ActionsError> {
        let function = action.function;
        let mut end = end_of(ended.code, ended.exit_code, ended.cancelled, &ended.message);
        let result = match ended.result.len() {
            0..=MAX_RESULT => reapi::ActionResult::decode(ended.result).unwrap_or_default(),
            _ => reapi::ActionResult::default(),
        };
        let streams = [
            (result.stdout_digest.as_ref(), result.stdout_raw.as_slice()),
            (result.stderr_digest.as_ref(), result.stderr_raw.as_slice()),
        ];
        for (stderr, stream) in [false, true].into_iter().zip(streams) {
            let seen = seen.0[usize::from(stderr)].load(Ordering::Relaxed);
            self.rest(function, stream, (log, stderr), seen).await?;
        }
        let mut tree = None;
        if end == ActionEnd::Exited(0) {
            let mut overlay = Overlay::new(&*self.blobs, function);
            match overlay.outputs(wanted.directory, &result).await {
                Ok(root) => tree = root.map(|it| format!("{}/{}", it.hex(), it.size)),
                Err(error) => match laid(error) {
                    ActionsError::Unfit(why) => end = ActionEnd::Refused(why),
                    error => return Err(error),
                },
            }
        }
        let file = |it: &reapi::OutputFile| {
            let digest = it.digest.as_ref()?;
            let size = u64::try_from(digest.size_bytes).ok()?;
            Some((it.path.clone(), BlobName { hash: digest.hash.clone(), size }))
        };
        let files = result.output_files.iter().filter_map(file).collect();
        Ok(Done { end, files, tree, link: self.actions.page(wanted.instance, &action) })
    }
}

/// Bytes of both streams that were passed on.
#[derive(Default)]
struct Seen([AtomicU64; 2]);

#[async_trait]
impl Actions for OnWorkers {
    fn longest(&self) -> Duration {
        self.longest
    }

    async fn put(&self, instance: &str, message: Bytes) -> Result<reapi::Digest, ActionsError> {
        let digest = self.function(instance).digest(&message);
        if !digest.is_empty_blob() {
            self.blobs.write(&digest, message).await.map_err(store)?;
        }
        Ok(digest.to_wire())
    }

    async fn root(
        &self,
        instance: &str,
        sources: Option<&str>,
        over: &[&str],
    ) -> Result<reapi::Digest, ActionsError> {
        let roots = sources.into_iter().chain(over.iter().copied());
        let roots: Vec<_> = roots.map(|it| self.digest(instance, it)).collect::<Result<_, _>>()?;
        let mut overlay = Overlay::new(&*self.blobs, self.function(instance));
        Ok(overlay.lay(&roots).await.map_err(laid)?.to_wire())
    }

    async fn execute(&self, wanted: &Wanted<'_>, log: &StageLog<'_>) -> Result<Done, ActionsError> {
        let action = self.digest(wanted.instance, wanted.action)?;
        let seen = Seen::default();
        if let Some(ended) = self.earlier(wanted, action).await {
            return self.done(wanted, (action, ended), log, &seen).await;
        }
        let own = OwnAction {
            instance: wanted.instance,
            action,
            invocation: wanted.invocation,
            correlated: wanted.run,
            target: wanted.target,
            mnemonic: MNEMONIC,
            tool: TOOL,
            owner: wanted.by,
        };
        let ended = match self.actions.submit(&own).await {
            Ok(OwnRun::Ended(ended)) => ended,
            Ok(OwnRun::Goes(going)) => {
                let ends = || ActionsError::Unavailable("the server is shutting down".to_owned());
                self.follow(&going, log, &seen).await.ok_or_else(ends)?
            }
            Err(NotRun::Gone(why)) => return Err(ActionsError::Unfit(why)),
            Err(NotRun::Failed(why)) => return Err(ActionsError::Unavailable(why)),
        };
        self.done(wanted, (action, ended), log, &seen).await
    }

    async fn cancel(&self, instance: &str, action: &str) -> Result<(), ActionsError> {
        let action = self.digest(instance, action)?;
        let cancelled = self.actions.cancel(instance, &action).await;
        cancelled.map(drop).map_err(|error| unavailable(&error))
    }
}
