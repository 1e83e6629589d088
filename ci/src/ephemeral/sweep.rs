//! Takes down what is to go, for ever: what has expired, what nobody brings up any more, and what is left over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use kiln_net::causes::chain;
use tokio::time::Instant;

use super::figures::PreviewCounts;
use super::machine::{Due, Phase, Preview};
use super::previews::{PreviewError, Previews};
use crate::model::Time;
use crate::storage::StorageError;

/// How often it is looked whether something is to go, unless it is known when.
const LOOK: Duration = Duration::from_secs(15);
/// The shortest pause between two looks.
const SOONEST: Duration = Duration::from_millis(200);
/// How often it is looked what is there that should not be.
const LOOK_FOR_LEFTOVERS: Duration = Duration::from_secs(600);
/// Environments that are taken down at the same time.
const AT_ONCE: usize = 4;

impl Previews {
    /// Takes down what is due, again and again. Never returns; drop it to end it. Any number of servers may do so.
    pub async fn keep_swept(self: Arc<Self>) {
        // Nobody brings anything up: nothing is kept either.
        if self.kinds.is_empty() {
            return;
        }
        let mut looked: Option<Instant> = None;
        loop {
            let next = self.sweep().await.unwrap_or_else(|error| {
                tracing::warn!(error = %chain(&error), "environments cannot be looked after for now");
                None
            });
            if looked.is_none_or(|it| it.elapsed() >= LOOK_FOR_LEFTOVERS) {
                self.find_leftovers().await;
                looked = Some(Instant::now());
            }
            let until = next.map_or(LOOK, |it| it.since(self.clock.now()));
            let pause = until.clamp(SOONEST, LOOK);
            let _ = tokio::time::timeout(pause, self.wake.notified()).await;
        }
    }

    /// Takes down and forgets what is due. Answers when something else will be.
    pub async fn sweep(&self) -> Result<Option<Time>, StorageError> {
        let now = self.clock.now();
        let (mut due, mut next) = (Vec::new(), None::<Time>);
        let all = self.kept.all().await?;
        self.figures.set(PreviewCounts::of(&all));
        self.forget_turns(&all);
        for preview in all {
            match preview.due(now) {
                Due::Later(at) => next = Some(next.map_or(at, |it| it.min(at))),
                Due::Forget => {
                    let may = |it: &Preview| it.due(now) == Due::Forget;
                    self.kept.forget(&preview.name, may).await?;
                }
                Due::TakeDown => due.push(preview.name),
            }
        }
        let taken: Vec<_> = due.iter().map(|name| self.take_down(name)).collect();
        let mut taken = stream::iter(taken).buffer_unordered(AT_ONCE);
        while let Some(taken) = taken.next().await {
            if let Err(error) = taken {
                tracing::warn!(error = %chain(&error), "an environment is not taken down for now");
            }
        }
        Ok(next)
    }

    /// Nobody works on what is gone.
    fn forget_turns(&self, all: &[Preview]) {
        let there = all.iter().filter(|it| it.phase != Phase::Gone);
        let there: BTreeSet<_> = there.map(|it| it.name.as_str()).collect();
        self.turns.keep(|name| there.contains(name));
    }

    /// Looks for what is there of each kind that should not be. What cannot be asked now is asked later.
    pub async fn find_leftovers(&self) {
        for kind in self.kinds.keys() {
            if let Err(error) = self.leftovers(kind).await {
                tracing::warn!(error = %chain(&error), kind, "what is left over is not known for now");
            }
        }
    }

    async fn leftovers(&self, kind: &str) -> Result<(), PreviewError> {
        let Some(seen) = self.seen(kind).await? else { return Ok(()) };
        // Behind the list: whatever is there by then was noted before.
        let all = self.kept.all().await?;
        let known: BTreeMap<_, _> = all.iter().map(|it| (it.name.as_str(), it.phase)).collect();
        let now = self.clock.now();
        for name in seen {
            match known.get(name.as_str()) {
                None => {
                    // One whose record cannot be read is noted all the same: it stays.
                    if self.kept.add(&found(kind, name.clone(), now)).await? {
                        tracing::warn!(preview = name, "an environment of nobody is taken down");
                    }
                }
                Some(Phase::Gone) => {
                    tracing::warn!(preview = name, "an environment came up late and is taken down");
                    self.kept.change(&name, |it| it.came_back(now)).await?;
                }
                Some(_) => {}
            }
        }
        self.wake.notify_one();
        Ok(())
    }
}

/// What is there and was never noted, or is forgotten by now.
fn found(kind: &str, name: String, now: Time) -> Preview {
    Preview {
        name,
        kind: kind.to_owned(),
        instance: String::new(),
        pipeline: String::new(),
        run: String::new(),
        by: String::new(),
        made: now,
        expires: now,
        phase: Phase::Going,
        address: None,
        claim: None,
        failures: 0,
        not_before: Time(0),
        why: "it was found, and nothing is known of it".to_owned(),
        changed: now,
    }
}
