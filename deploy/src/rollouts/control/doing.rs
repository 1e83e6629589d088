//! Effects that are being carried out. A slow one holds up neither the others nor whoever drives.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kiln_net::counts::duration;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};

use crate::rollouts::machine::{EffectId, Outcome};

/// Effects that are carried out at once; others that were begun wait for room.
const AT_ONCE: usize = 32;

/// What one came to; errors in words: nothing is known to be done.
pub type Done = (EffectId, Result<Outcome, String>);

struct Job {
    handle: AbortHandle,
    splits: bool,
}

/// Effects of one rollout that are being carried out. They end with this.
pub struct Doing {
    tasks: JoinSet<Done>,
    jobs: HashMap<EffectId, Job>,
    room: Arc<Semaphore>,
}

impl Default for Doing {
    fn default() -> Self {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        Self { tasks: JoinSet::new(), jobs: HashMap::new(), room }
    }
}

impl Doing {
    pub fn is_on(&self, id: &EffectId) -> bool {
        self.jobs.contains_key(id)
    }

    /// Whether requests are being split: one split follows the other.
    pub fn splits(&self) -> bool {
        self.jobs.values().any(|job| job.splits)
    }

    /// Whether anybody is being told anything.
    pub fn tells(&self) -> bool {
        self.jobs.values().any(|job| !job.splits)
    }

    pub fn count(&self) -> usize {
        self.jobs.len()
    }

    /// Ends what nobody waits for any more. A balancer is never cut in the middle: it would not put its former file back.
    pub fn keep(&mut self, is_wanted: impl Fn(&EffectId) -> bool) {
        self.jobs.retain(|id, job| {
            let stays = job.splits || is_wanted(id);
            if !stays {
                job.handle.abort();
            }
            stays
        });
    }

    pub fn begin(
        &mut self,
        id: EffectId,
        (limit, splits): (Duration, bool),
        job: impl Future<Output = Result<Outcome, String>> + Send + 'static,
    ) {
        let room = self.room.clone();
        let handle = self.tasks.spawn(async move {
            // Nobody closes it.
            let _room = room.acquire_owned().await;
            let done = timeout(limit, job).await;
            let late = |_| Err(format!("no answer within {}", duration(limit)));
            (id, done.unwrap_or_else(late))
        });
        self.jobs.insert(id, Job { handle, splits });
    }

    /// What is done, as soon as everything is, and after this time at the latest.
    pub async fn done(&mut self, within: Duration) -> Vec<Done> {
        let (until, mut all) = (Instant::now() + within, Vec::new());
        loop {
            match timeout_at(until, self.tasks.join_next()).await {
                Ok(Some(Ok(done))) => {
                    self.jobs.remove(&done.0);
                    all.push(done);
                }
                // It was ended, or is broken: it is begun again if anybody still waits for it.
                Ok(Some(Err(_))) => self.jobs.retain(|_, job| !job.handle.is_finished()),
                Ok(None) | Err(_) => return all,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: (Duration, bool) = (Duration::from_secs(60), false);

    #[tokio::test(start_paused = true)]
    async fn a_slow_one_holds_up_no_other() {
        let mut doing = Doing::default();
        let (slow, quick, split) = (EffectId(1, 0), EffectId(1, 1), EffectId(2, 0));
        doing.begin(slow, LIMITS, std::future::pending());
        doing.begin(quick, LIMITS, async { Ok(Outcome::Done) });
        doing.begin(split, (Duration::from_secs(300), true), std::future::pending());
        let done = doing.done(Duration::from_millis(100)).await;
        assert_eq!(done, [(quick, Ok(Outcome::Done))]);
        assert!(doing.is_on(&slow) && doing.splits() && !doing.is_on(&quick));
        // It is not wanted any more; a split is never cut.
        doing.keep(|_| false);
        assert!(!doing.is_on(&slow) && doing.is_on(&split));
        let late = doing.done(Duration::from_secs(301)).await;
        assert_eq!(late, [(split, Err("no answer within 5m".to_owned()))]);
        assert_eq!(doing.count(), 0);
    }
}
