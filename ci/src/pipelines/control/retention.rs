//! Runs that ended long ago are removed with all that was kept of them.

use super::Control;
use super::error::ControlError;
use super::kept::Run;
use super::keys;
use super::store::{decode, delete};
use crate::model::Time;
use crate::storage::{Expect, Write};

/// Runs that are looked at, and removed, at once.
const PAGE: usize = 100;
const MOST: usize = 1_000;

impl Control {
    /// Looks at the oldest runs.
    pub(super) async fn sweep(&self) -> Result<(), ControlError> {
        let now = self.now();
        let mut after: Option<String> = None;
        let mut looked = 0;
        while looked < MOST {
            let found = self.store.records.list(keys::RUNS, after.as_deref(), false, PAGE).await?;
            for stored in &found {
                let Some(id) = stored.key.strip_prefix(keys::RUNS) else { continue };
                // What cannot be read stays, with all that is kept of it, and holds up none of the others.
                let run = self.store.readable(decode::<Run>(stored))?;
                let head = self.store.readable(self.store.head(id).await)?;
                let (Some(_), Some(head)) = (run, head) else { continue };
                looked += 1;
                let over = |it: Time| now.since(it) > self.options.keep;
                match head {
                    // Somebody began to remove it.
                    None => self.remove(id).await?,
                    Some((head, version))
                        if head.stands.is_end() && head.ended.is_some_and(over) =>
                    {
                        // Who resumes it first, keeps it.
                        let key = keys::head(id);
                        let write = Write { key, expect: Expect::Version(version), value: None };
                        if self.store.commit(Vec::new(), vec![write]).await? {
                            self.remove(id).await?;
                        }
                    }
                    Some(_) => {}
                }
            }
            match found.last() {
                Some(last) if found.len() == PAGE => after = Some(last.key.clone()),
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// The run itself last: until then it is found again.
    async fn remove(&self, id: &str) -> Result<(), ControlError> {
        for prefix in [keys::texts(id), keys::log(id), keys::stages(id)] {
            self.store.remove_all(&prefix).await?;
        }
        self.store.commit(Vec::new(), vec![delete(keys::run(id))]).await.map(drop)
    }
}
