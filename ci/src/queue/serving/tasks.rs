//! What a lane has done beside it: it ends with the lane. Each of these is heard of, also where it ends without a word: a
//! run would wait for it for ever.

use std::collections::HashMap;

use kiln_net::panics::caught;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::{AbortHandle, JoinSet};

use crate::queue::{Event, Outcome, Refusal, RunId};

pub struct Tasks {
    running: JoinSet<()>,
    checks: HashMap<RunId, AbortHandle>,
    tell: UnboundedSender<Event>,
}

impl Tasks {
    pub fn new(tell: UnboundedSender<Event>) -> Self {
        Self { running: JoinSet::new(), checks: HashMap::new(), tell }
    }

    /// A check, which says how it ended. Where it panics it could not be run: as such it is tried again, a few times.
    pub fn check(&mut self, run: RunId, work: impl Future<Output = ()> + Send + 'static) {
        let lost = move |why| Event::Finished { run, outcome: Outcome::Unable(why) };
        let check = self.spawn(work, lost);
        self.checks.insert(run, check);
    }

    /// A comparison of what passed, which says what it found. Where it panics that is `lost`.
    pub fn compare(
        &mut self,
        run: RunId,
        work: impl Future<Output = ()> + Send + 'static,
        lost: Event,
    ) {
        let compared = self.spawn(work, move |_| lost);
        self.checks.insert(run, compared);
    }

    /// A push, which says what became of it. Where it panics a person has to look; that it was done is seen all the same.
    pub fn land(&mut self, run: RunId, work: impl Future<Output = ()> + Send + 'static) {
        self.spawn(work, move |why| Event::NotLanded { run, why: Refusal::Refused(why) });
    }

    fn spawn(
        &mut self,
        work: impl Future<Output = ()> + Send + 'static,
        lost: impl FnOnce(String) -> Event + Send + 'static,
    ) -> AbortHandle {
        while self.running.try_join_next().is_some() {}
        let tell = self.tell.clone();
        self.running.spawn(async move {
            if let Err(panicked) = caught(work).await {
                // Nobody listens where the lane has ended.
                tell.send(lost(panicked.to_string())).ok();
            }
        })
    }

    /// The check of a run has ended.
    pub fn ended(&mut self, run: RunId) {
        self.checks.remove(&run);
    }

    /// Ends the check of a run for which nobody waits any more.
    pub fn cancel(&mut self, run: RunId) {
        if let Some(check) = self.checks.remove(&run) {
            check.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::model::Time;
    use crate::queue::{Add, Branch, Commit, Lane, Options};

    async fn next(told: &mut UnboundedReceiver<Event>) -> Event {
        let next = tokio::time::timeout(Duration::from_secs(10), told.recv());
        next.await.expect("somebody says how it ended").expect("it is said")
    }

    #[tokio::test]
    async fn a_check_that_panics_is_run_again_and_then_the_queue_pauses() {
        let commit = |digit: &str| Commit::new(&digit.repeat(40)).unwrap();
        let mut lane = Lane::new(Branch::new("main").unwrap(), Options::default());
        let (branch, head) = (Branch::new("one").unwrap(), commit("b"));
        let add = Event::Add(Add { branch, head, priority: 5, impact: None });
        lane.apply(add, Time(0)).unwrap();
        lane.apply(Event::Target(commit("a")), Time(0)).unwrap();
        let (tell, mut told) = unbounded_channel();
        let mut tasks = Tasks::new(tell);
        let mut runs = 0;
        while lane.paused.is_none() {
            let run = *lane.runs.keys().next().expect("it is tested");
            tasks.check(run, async { panic!("an index") });
            let ended = next(&mut told).await;
            lane.apply(ended, Time(0)).unwrap();
            assert!(!lane.runs.contains_key(&run), "it does not go on for ever");
            runs += 1;
            assert!(runs < 10, "there is an end to that");
        }
        let why = lane.paused.unwrap();
        assert!(runs > 1 && why.contains("checks cannot be run") && why.contains("an index"));
    }

    #[tokio::test]
    async fn a_push_that_panics_is_told_and_a_check_that_was_cancelled_is_not() {
        let (tell, mut told) = unbounded_channel();
        let mut tasks = Tasks::new(tell);
        tasks.check(RunId(1), std::future::pending());
        tasks.cancel(RunId(1));
        tasks.land(RunId(2), async { panic!("odd") });
        let told = next(&mut told).await;
        let why = Refusal::Refused("a fault of Kiln ended it: odd".to_owned());
        assert_eq!(told, Event::NotLanded { run: RunId(2), why });
    }
}
