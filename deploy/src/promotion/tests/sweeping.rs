//! What happens by itself in several environments at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::super::{Check, Keeper, Known, Outcome, RunCheck};
use super::{World, ask, person};
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
    let checks = Arc::new(Checks { begun: AtomicUsize::new(0), may_end: Semaphore::new(0) });
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
    // What comes after that does not wait for the first sweep either.
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
