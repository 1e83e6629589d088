//! Pushes of which a forge tells begin runs: each once, for each pipeline that waits for it. Whoever takes the word of a forge in
//! leaves it as a record; whoever drives takes it up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kiln_net::causes::chain;
use kiln_net::id_at;
use kiln_net::panics::caught;
use serde::{Deserialize, Serialize};

use super::error::ControlError;
use super::keys;
use super::start::Start;
use super::store::{decode, put};
use super::{Control, Registered};
use crate::model::Time;
use crate::pipelines::file::{Trigger, fits};
use crate::storage::{Expect, Record, Records, StorageError, Write};

/// Most pushes that wait to be looked at, and those that are looked at together.
const MAX_WAITING: usize = 1_000;
const AT_ONCE: usize = 100;
/// The time for which a push waits to begin runs: nothing is begun for the past.
const PAST: Duration = Duration::from_secs(24 * 60 * 60);

/// A push to a branch, as the forge tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// The name of the forge among those of the server.
    pub forge: String,
    pub repository: String,
    pub branch: String,
    pub commit: String,
    pub by: String,
}

/// A push with the pipelines that it has begun runs of, or never will.
#[derive(Serialize, Deserialize)]
struct Waiting {
    push: Pushed,
    /// When it was left.
    at: Time,
    done: BTreeSet<String>,
}

/// Leaves a push for whoever drives, in one write with `once`; it is durable when this returns. `false`: a record is there
/// that `once` expects to be absent, so it was left before.
pub async fn leave_push(
    records: &dyn Records,
    push: &Pushed,
    at: Time,
    once: Vec<Write>,
) -> Result<bool, ControlError> {
    let waiting = records.list(keys::PUSHED, None, false, MAX_WAITING).await?;
    if waiting.len() >= MAX_WAITING {
        return Err(ControlError::NotNow(format!("{MAX_WAITING} pushes wait already")));
    }
    // Two that come at the same moment are two, whatever their ids are.
    let key = format!("{}{}-{}", keys::PUSHED, id_at(at.0), push.commit);
    let value = Waiting { push: push.clone(), at, done: BTreeSet::new() };
    let mut writes = once;
    writes.push(put(key, Expect::Absent, &value)?);
    match records.write(writes).await {
        Ok(()) => Ok(true),
        Err(StorageError::Conflict(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether any of these pipelines waits for a push.
pub fn is_awaited(push: &Pushed, pipelines: &BTreeMap<String, Registered>) -> bool {
    pipelines.values().any(|it| awaits(it, push))
}

fn awaits(pipeline: &Registered, push: &Pushed) -> bool {
    pipeline.declared.triggers.iter().any(|it| waits(it, push))
}

/// Whether a trigger waits for a push.
fn waits(trigger: &Trigger, push: &Pushed) -> bool {
    let Trigger::Push { branches, origin: Some(origin) } = trigger else { return false };
    let of_it = origin.repository.eq_ignore_ascii_case(&push.repository);
    origin.forge == push.forge && of_it && fits(branches, &push.branch)
}

impl Control {
    /// Begins runs of what was pushed.
    pub(super) async fn follow_pushes(&self) {
        let waiting = match self.store.records.list(keys::PUSHED, None, false, AT_ONCE).await {
            Ok(waiting) => {
                self.troubles.end(keys::PUSHED);
                waiting
            }
            Err(error) => return self.wait_for(keys::PUSHED, &error.into()),
        };
        for stored in &waiting {
            // One that cannot begin holds up no other one.
            let followed = caught(self.follow_push(stored)).await;
            match followed.unwrap_or_else(|panicked| Err(panicked.into())) {
                Ok(()) => self.troubles.end(&stored.key),
                Err(error) => self.wait_for(&stored.key, &error),
            }
        }
    }

    fn wait_for(&self, key: &str, error: &ControlError) {
        if self.troubles.is_news(key, error) {
            tracing::warn!(key, error = %chain(error), "pushes wait for a run");
        }
    }

    /// Begins a run of one of the pipelines that wait for a push; the next one follows at the next look.
    async fn follow_push(&self, stored: &Record) -> Result<(), ControlError> {
        let Some(waiting) = self.store.readable(decode::<Waiting>(stored))? else { return Ok(()) };
        let Waiting { push, at, mut done } = waiting;
        let expect = Expect::Version(stored.version);
        let registered = self.registered();
        let begins = |it: &&Registered| !done.contains(&it.declared.name) && awaits(it, &push);
        let next = registered.values().find(begins);
        let is_past = self.now().since(at) > PAST;
        if let Some(late) = next.filter(|_| is_past) {
            let (pipeline, commit) = (&late.declared.name, &push.commit);
            tracing::warn!(pipeline, commit, "a push begins no run: it has waited for too long");
        }
        let Some(to) = next.filter(|_| !is_past) else {
            let gone = Write { key: stored.key.clone(), expect, value: None };
            return self.store.commit(Vec::new(), vec![gone]).await.map(drop);
        };
        done.insert(to.declared.name.clone());
        let ask = Start {
            instance: to.instance.clone(),
            trigger: "push".to_owned(),
            branch: push.branch.clone(),
            commit: push.commit.clone(),
            by: format!("{}: {}", push.forge, push.by),
            ..Start::default()
        };
        let known = put(stored.key.clone(), expect, &Waiting { push, at, done })?;
        match self.try_start(&to.declared, &ask, vec![known.clone()]).await {
            Ok(Some(run)) => {
                tracing::info!(pipeline = run.pipeline, run = run.id, "a push began a run");
                Ok(())
            }
            // Whoever was faster has begun it, or the next look does.
            Ok(None) => Ok(()),
            // No later look would begin it.
            Err(why @ (ControlError::Lay(_) | ControlError::Group(_))) => {
                let (pipeline, commit) = (&to.declared.name, &ask.commit);
                tracing::warn!(pipeline, commit, error = %chain(&why), "a push begins no run");
                self.store.commit(Vec::new(), vec![known]).await.map(drop)
            }
            Err(error) => Err(error),
        }
    }
}
