//! Killed at every point: whoever asks again finds that nothing was done, or all of it, and each thing once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use kiln_cas::records::{Record, Records, RecordsError, Version, Write};
use kiln_cas::stores::MemoryRecords;
use kiln_cas::stores::audit::AuditLog;
use tokio::time::advance;

use super::super::{Keeper, Outcome};
use super::{DAY, World, ask, name, person, say};

/// The records of a process that is killed at one of its calls: just before it, or just after, when the
/// process does not hear the answer. From then on the records answer nothing more.
pub struct Killed {
    pub inner: Arc<MemoryRecords>,
    pub calls: AtomicUsize,
    pub at: usize,
    pub heard: bool,
}

impl Killed {
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, RecordsError>> + Send,
    ) -> Result<T, RecordsError> {
        let dead = || RecordsError::Unavailable("killed".into());
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        if number > self.at || (number == self.at && !self.heard) {
            return Err(dead());
        }
        let answer = call.await;
        if number == self.at { Err(dead()) } else { answer }
    }
}

#[async_trait]
impl Records for Killed {
    async fn get(&self, key: &str) -> Result<Option<Record>, RecordsError> {
        self.call(self.inner.get(key)).await
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Version>, RecordsError> {
        self.call(self.inner.write(writes)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Record>, RecordsError> {
        self.call(self.inner.list(prefix, after, reverse, limit)).await
    }
}

/// Things that are done to a system that has two releases in dev and one of them, approved, in staging for a day.
#[derive(Debug, Clone, Copy)]
enum Step {
    Promote,
    RollBack,
    Reject,
    Approve,
    Hold,
    Wait,
    Sweep,
}

const STEPS: [Step; 7] = [
    Step::Promote,
    Step::RollBack,
    Step::Reject,
    Step::Approve,
    Step::Hold,
    Step::Wait,
    Step::Sweep,
];

async fn prepared(step: Step) -> Arc<World> {
    let world = World::new();
    let keeper = world.keeper();
    for text in ["team/app:1", "team/app:2"] {
        keeper.promote(&ask("dev", &world.release(text), person("eve"))).await.unwrap();
    }
    world.go_on(3_600);
    let second = name("team/app:2");
    keeper.promote(&ask("staging", &second, person("eve"))).await.unwrap();
    for who in ["ana", "bo"] {
        keeper.approve(&say("prod", who, "fine"), &second).await.unwrap();
    }
    if matches!(step, Step::Sweep) {
        wait(&keeper).await.unwrap();
    }
    world.go_on(DAY);
    world
}

async fn wait(keeper: &Keeper) -> Result<(), String> {
    let wait =
        super::Ask { wait: Some(7 * DAY), ..ask("prod", &name("team/app:2"), person("eve")) };
    keeper.promote(&wait).await.map(drop).map_err(|it| format!("{it:?}"))
}

async fn done(keeper: &Keeper, step: Step) -> Result<(), String> {
    let (first, second) = (name("team/app:1"), name("team/app:2"));
    let words = |it: super::super::PromotionError| format!("{it:?}");
    match step {
        Step::Promote => {
            let outcome = keeper.promote(&ask("prod", &second, person("eve"))).await;
            match outcome.map_err(words)? {
                Outcome::Promoted { .. } | Outcome::Already { .. } => Ok(()),
                other => Err(format!("{other:?}")),
            }
        }
        Step::RollBack => {
            let rolled = keeper.roll_back(&say("dev", "ana", "bad"), Some(&first)).await;
            rolled.map(drop).map_err(words)
        }
        Step::Reject => keeper.reject(&first, &person("ana"), "bad").await.map(drop).map_err(words),
        Step::Approve => {
            keeper.approve(&say("prod", "cy", "fine"), &second).await.map(drop).map_err(words)
        }
        Step::Hold => keeper.hold(&say("prod", "ana", "wait"), None).await.map(drop).map_err(words),
        Step::Wait => keeper
            .promote(&super::Ask { wait: Some(DAY), ..ask("staging", &first, person("eve")) })
            .await
            .map(drop)
            .map_err(words),
        Step::Sweep => keeper.sweep().await.map_err(words),
    }
}

/// What can be seen from outside, but for numbers and times.
async fn seen(world: &Arc<World>) -> String {
    let keeper = world.keeper();
    let now = keeper.world().await.unwrap();
    let mut seen = String::new();
    for environment in ["dev", "staging", "prod"] {
        let place = now.place(environment);
        let done = keeper.past(environment, None, 100).await.unwrap();
        assert_eq!(done.len() as u64, place.generation, "each generation is kept once");
        let summaries = keeper.summary(environment, place.generation).await.unwrap();
        let current = place.current.map(|it| (it.release.to_string(), it.generation, it.how));
        seen += &format!("{environment}: {current:?} {}\n", summaries.is_some());
    }
    let approvals: Vec<_> = now.approvals.iter().map(|it| it.who.clone()).collect();
    let waiting: Vec<_> = now.waiting.iter().map(|it| it.release.to_string()).collect();
    let holds: Vec<_> = now.holds.iter().map(|it| it.reason.clone()).collect();
    let first = crate::oci::ContentDigest::of(b"team/app:1");
    let rejected = keeper.rejection(&first).await.unwrap().is_some();
    let log = AuditLog::new(world.memory.clone());
    assert_eq!(log.verify(1, u64::MAX).await.unwrap(), None);
    assert_eq!(log.head().await.unwrap().unwrap().0, now.changes, "each change is noted once");
    assert_eq!(keeper.notices(500).await.unwrap().len() as u64, now.changes, "and told once");
    seen + &format!("{approvals:?} {waiting:?} {holds:?} {rejected}")
}

#[tokio::test(start_paused = true)]
async fn whatever_is_cut_short_is_done_by_whoever_asks_again() {
    let mut points = 0;
    for step in STEPS {
        let whole = prepared(step).await;
        done(&whole.keeper(), step).await.unwrap();
        let expected = seen(&whole).await;
        for heard in [false, true] {
            for at in 0.. {
                let world = prepared(step).await;
                let inner = world.memory.clone();
                let records = Arc::new(Killed { inner, calls: AtomicUsize::new(0), at, heard });
                let killed = done(&world.keeper_over(records.clone(), super::POLICY), step).await;
                if records.calls.load(Ordering::SeqCst) <= at {
                    killed.unwrap();
                    break;
                }
                assert!(killed.is_err(), "{step:?} {at}: it was killed");
                points += 1;
                let keeper = world.keeper();
                let mut again = done(&keeper, step).await;
                if matches!(step, Step::Sweep) {
                    // The killed server may have had the turn, for which the others wait.
                    advance(Duration::from_secs(60)).await;
                    again = done(&keeper, step).await;
                }
                // A step that was carried out before the crash may be refused as done.
                let said = again.as_ref().err().map(String::as_str).unwrap_or_default();
                let repeated = ["Refused(Approved", "Refused(Current"];
                let fine = said.is_empty() || repeated.iter().any(|it| said.starts_with(it));
                assert!(fine, "{step:?} {at}: {said}");
                let found = seen(&world).await;
                // A second hold or rejection by the same person is noted again, and changes nothing.
                assert_eq!(found, expected, "{step:?} {at} {heard}");
            }
        }
    }
    assert!(points > 60, "only {points} points were tried");
}
