//! What happens by itself in several environments at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{advance, timeout};

use super::super::{Check, Keeper, Known, Outcome, PromotionError, RunCheck};
use super::{Ask, DAY, World, ask, person, say};
use crate::releases::ReleaseName;

/// The time after which something is taken not to happen at all.
const PATIENCE: Duration = Duration::from_secs(20);

const POLICY: &str = r#"
[environments.dev]

[environments.long]
after = ["dev"]
automatic = true
checks = [{ name = "soak", command = ["./soak"] }]

[environments.short]
after = ["dev"]
automatic = true
checks = [{ name = "smoke", command = ["./smoke"] }]
"#;

/// Checks, of which those of `long` last until they may end.
struct Checks {
    begun: AtomicUsize,
    may_end: Semaphore,
}

impl Checks {
    fn new() -> Arc<Self> {
        Arc::new(Self { begun: AtomicUsize::new(0), may_end: Semaphore::new(0) })
    }

    async fn have_begun(&self, times: usize) {
        while self.begun.load(Ordering::SeqCst) < times {
            yield_now().await;
        }
    }
}

#[async_trait]
impl RunCheck for Checks {
    async fn run(&self, _: &Check, _: &Known, environment: &str) -> Result<(), String> {
        if environment == "long" {
            self.begun.fetch_add(1, Ordering::SeqCst);
            self.may_end.acquire().await.unwrap().forget();
        }
        Ok(())
    }
}

async fn promoted(keeper: &Keeper, release: &ReleaseName) {
    let outcome = keeper.promote(&ask("dev", release, person("eve"))).await.unwrap();
    assert!(matches!(outcome, Outcome::Promoted { .. }), "{outcome:?}");
}

async fn current(keeper: &Keeper, environment: &str) -> Option<ReleaseName> {
    keeper.world().await.unwrap().current(environment).map(|it| it.release.clone())
}

#[tokio::test]
async fn a_check_that_takes_long_holds_up_no_other_environment_and_runs_once() {
    let world = World::new();
    let checks = Checks::new();
    let keeper = world.keeper_with(world.memory.clone(), POLICY, checks.clone());
    let keeper = Arc::new(keeper);
    let (first, second) = (world.release("team/app:1"), world.release("team/app:2"));
    promoted(&keeper, &first).await;
    let slow = tokio::spawn({
        let keeper = keeper.clone();
        async move { keeper.sweep().await }
    });
    let short_has_it = async {
        while current(&keeper, "short").await.as_ref() != Some(&first) {
            yield_now().await;
        }
    };
    timeout(PATIENCE, short_has_it).await.unwrap();
    // The next promotion does not wait for the first sweep, either.
    promoted(&keeper, &second).await;
    let short_goes_on = async {
        while current(&keeper, "short").await.as_ref() != Some(&second) {
            keeper.sweep().await.unwrap();
            yield_now().await;
        }
    };
    timeout(PATIENCE, short_goes_on).await.unwrap();
    assert_eq!(checks.begun.load(Ordering::SeqCst), 1, "another sweep leaves it alone");
    assert_eq!(current(&keeper, "long").await, None);
    checks.may_end.add_permits(1);
    slow.await.unwrap().unwrap();
    assert_eq!(current(&keeper, "long").await, Some(first));
}

/// Two frontends whose clocks are two days apart, and a release whose checks the first one has begun to run.
struct Apart {
    first: Arc<Keeper>,
    second: Keeper,
    checks: Arc<Checks>,
    release: ReleaseName,
    sweep: JoinHandle<Result<(), PromotionError>>,
}

impl Apart {
    /// Starts a sweep that runs a long check. If `waits`, the release waited until somebody let it go;
    /// otherwise the environment takes it by itself.
    async fn begin(waits: bool) -> Self {
        let (world, checks) = (World::new(), Checks::new());
        let takes = if waits { "" } else { "after = [\"dev\"]\nautomatic = true\n" };
        let check = "checks = [{ name = \"soak\", command = [\"./soak\"] }]";
        let policy = format!("[environments.dev]\n[environments.long]\n{takes}{check}");
        let keeper = |ahead| world.keeper_at(world.memory.clone(), &policy, checks.clone(), ahead);
        let (first, second) = (Arc::new(keeper(0)), keeper(2 * DAY));
        let release = world.release("team/app:1");
        if waits {
            first.hold(&say("long", "ana", "wait"), None).await.unwrap();
            let wait = Ask { wait: Some(7 * DAY), ..ask("long", &release, person("eve")) };
            let outcome = first.promote(&wait).await.unwrap();
            assert!(matches!(outcome, Outcome::Waits { .. }), "{outcome:?}");
            first.lift(&say("long", "ana", "go on")).await.unwrap();
        } else {
            promoted(&first, &release).await;
        }
        let sweep = tokio::spawn({
            let first = first.clone();
            async move { first.sweep().await }
        });
        checks.have_begun(1).await;
        Self { first, second, checks, release, sweep }
    }
}

#[tokio::test]
async fn of_frontends_whose_clocks_are_apart_one_runs_the_checks() {
    for waits in [true, false] {
        let it = Apart::begin(waits).await;
        timeout(PATIENCE, it.second.sweep()).await.expect("it runs checks").unwrap();
        assert_eq!(it.checks.begun.load(Ordering::SeqCst), 1, "waits: {waits}");
        it.checks.may_end.add_permits(1);
        it.sweep.await.unwrap().unwrap();
        assert_eq!(current(&it.first, "long").await, Some(it.release), "waits: {waits}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_a_frontend_is_lost_another_runs_the_checks_after_half_a_minute() {
    for waits in [true, false] {
        let it = Apart::begin(waits).await;
        it.sweep.abort();
        it.sweep.await.unwrap_err();
        it.checks.may_end.add_permits(1);
        it.second.sweep().await.unwrap();
        assert_eq!(current(&it.second, "long").await, None, "waits: {waits}");
        advance(Duration::from_secs(35)).await;
        it.second.sweep().await.unwrap();
        assert_eq!(it.checks.begun.load(Ordering::SeqCst), 2, "waits: {waits}");
        assert_eq!(current(&it.second, "long").await, Some(it.release), "waits: {waits}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_frontend_whose_checks_never_end_does_not_keep_others_from_the_environment() {
    for waits in [true, false] {
        let it = Apart::begin(waits).await;
        // Nobody ends the check, and the lease is renewed meanwhile.
        let swept = timeout(Duration::from_secs(7_200), it.sweep).await.expect("it goes on");
        swept.unwrap().unwrap();
        it.checks.may_end.add_permits(1);
        it.second.sweep().await.unwrap();
        assert_eq!(it.checks.begun.load(Ordering::SeqCst), 2, "waits: {waits}");
        assert_eq!(current(&it.second, "long").await, Some(it.release), "waits: {waits}");
    }
}
