//! Gives up a run whose records cannot be read: it does not go on, and would hold its place among all runs and in its group
//! until they are there again.

use super::Control;
use super::commands::MAX_REASON;
use super::error::ControlError;
use super::kept::{Head, Run, Stands};
use super::keys;
use super::notes;
use super::store::{Store, decode, delete, put};
use crate::model::Time;
use crate::pipelines::machine::Group;
use crate::storage::{Expect, Write};

/// How often it is tried while others write.
const ATTEMPTS: usize = 20;

/// A run that nobody can drive, as far as it can be read.
struct Stuck {
    head: Option<Head>,
    /// What is expected of the record of the head.
    expect: Expect,
    run: Option<Run>,
}

impl Control {
    /// Ends a run whose records cannot be read, where it stands: no stage of it is begun any more, and its place is free. `by`:
    /// who says so, and why. Errors: `NotNow` where they can be read, since then it can be cancelled, or where it is over.
    pub async fn abandon(&self, id: &str, by: (&str, &str)) -> Result<(), ControlError> {
        let (_, reason) = by;
        if reason.trim().is_empty() || reason.chars().count() > MAX_REASON {
            return Err(ControlError::Reason);
        }
        for _ in 0..ATTEMPTS {
            let Stuck { head, expect, run } = self.stuck(id).await?;
            let now = self.now();
            let note = notes::abandoned(id, run.as_ref(), by, now);
            let head = given_up(head, by, now);
            let mut writes = vec![put(keys::head(id), expect, &head)?, delete(keys::active(id))];
            writes.extend(self.freed(id, run.as_ref()).await?);
            if self.store.commit(vec![note], writes).await? {
                self.wake.notify_waiters();
                return Ok(());
            }
        }
        Err(ControlError::Restless)
    }

    async fn stuck(&self, id: &str) -> Result<Stuck, ControlError> {
        let none = || ControlError::NoRun(id.chars().take(40).collect());
        if !keys::is_id(id) {
            return Err(none());
        }
        let stored = self.store.records.get(&keys::head(id)).await?;
        if stored.is_none() && self.store.records.get(&keys::active(id)).await?.is_none() {
            return Err(none());
        }
        let head = stored.as_ref().and_then(|it| decode::<Head>(it).ok());
        if let Some(head) = &head {
            if head.stands.is_end() {
                return Err(ControlError::NotNow("it is over already".to_owned()));
            }
            if self.is_whole(id, head.length).await? {
                let message = "its records can be read: cancel it (`kiln pipeline cancel`)";
                return Err(ControlError::NotNow(message.to_owned()));
            }
        }
        let expect = stored.map_or(Expect::Absent, |it| Expect::Version(it.version));
        let run = self.store.get::<Run>(&keys::run(id)).await;
        let run = self.store.readable(run)?.flatten();
        Ok(Stuck { head, expect, run: run.map(|(run, _)| run) })
    }

    /// Whether everything that whoever drives a run needs can be read.
    async fn is_whole(&self, id: &str, length: u64) -> Result<bool, ControlError> {
        // From the beginning: what this process has read before is not known to others.
        let read = async {
            let open = self.read_on(id, self.unopened(id).await?, length).await?;
            match &open.run.group {
                Some(name) => self.store.group(name).await.map(drop),
                None => Ok(()),
            }
        };
        match read.await {
            Ok(()) => Ok(true),
            Err(
                ControlError::Damaged { .. }
                | ControlError::Missing { .. }
                | ControlError::Lacking { .. }
                | ControlError::NoRun(_),
            ) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The write that frees the run's place in its group, if it has one.
    async fn freed(&self, id: &str, run: Option<&Run>) -> Result<Option<Write>, ControlError> {
        let Some((mut group, expect)) = self.group_of(id, run).await? else { return Ok(None) };
        if !group.has(id) {
            return Ok(None);
        }
        group.leave(id);
        Store::keep_group(&group, expect).map(Some)
    }

    async fn group_of(
        &self,
        id: &str,
        run: Option<&Run>,
    ) -> Result<Option<(Group, Expect)>, ControlError> {
        match run.map(|it| it.group.as_deref()) {
            Some(Some(name)) => {
                let group = self.store.group(name).await;
                self.store.readable(group)
            }
            Some(None) => Ok(None),
            // Nobody knows what its group is called.
            None => self.store.group_with(id).await,
        }
    }
}

fn given_up(head: Option<Head>, (by, reason): (&str, &str), now: Time) -> Head {
    let unknown = Head {
        length: 0,
        stands: Stands::Failed,
        began: None,
        ended: None,
        passed: 0,
        failed: 0,
        skipped: 0,
        running: 0,
        resumed: 0,
        abandoned: None,
    };
    Head {
        stands: Stands::Failed,
        ended: Some(now),
        running: 0,
        abandoned: Some(format!("{by}: {reason}")),
        ..head.unwrap_or(unknown)
    }
}
