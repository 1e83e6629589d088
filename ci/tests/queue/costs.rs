//! A large change does not hold up small ones where somebody says what checks cost.

use std::sync::Arc;
use std::time::Duration;

use kiln_ci::queue::git::Check;
use kiln_ci::queue::serving::{Desk, LaneName, Runner};
use kiln_ci::queue::{Lane, Mode, Options};
use kiln_ci::storage::Records;
use kiln_ci::storage::memory::Memory;
use tokio_util::sync::CancellationToken;

use crate::oracle::quantile;
use crate::real::{Rig, ask};
use crate::world::{MINUTE, Truth, World};

const CHANGES: usize = 2_000;
/// Changes by which rates are learned, and which do not count.
const LEARNING: usize = 400;
/// Milliseconds between two changes in the mean.
const EVERY: f64 = 2.0 * MINUTE as f64;
/// The check that waits meanwhile is given as much.
const WITHIN: Duration = Duration::from_secs(60);

/// Minutes that small and large changes waited, each in order.
fn waited(tells_costs: bool) -> (Vec<f64>, Vec<f64>) {
    let truth = Truth { large: 0.05, ..Truth::new(0.0, 0.0, 5) };
    let mut world = World::new(truth, Options { exact: true, ..Options::default() });
    world.tells_costs = tells_costs;
    let mut at = 0.0;
    for _ in 0..CHANGES {
        at -= EVERY * (1.0 - world.rng.f64()).ln();
        while world.step(at as u64) {}
        world.arrive();
    }
    while world.step(u64::MAX) {}
    assert!(world.lane.changes.is_empty(), "{} changes never landed", world.lane.changes.len());
    let (small, large) = (world.waits_of(LEARNING, false), world.waits_of(LEARNING, true));
    println!(
        "costs are known: {tells_costs}; {} runs; small ones wait p50 {:.0} p95 {:.0} minutes, large ones {:.0} and {:.0}",
        world.runs,
        quantile(&small, 0.5),
        quantile(&small, 0.95),
        quantile(&large, 0.5),
        quantile(&large, 0.95)
    );
    (small, large)
}

/// One of twenty changes makes a check six times as long; all are good, and one worker tests them. Where costs are known,
/// small ones wait clearly less, and the large ones land all the same.
#[test]
fn small_changes_wait_less_for_large_ones_where_costs_are_known() {
    let ((before, _), (small, large)) = (waited(false), waited(true));
    assert!(quantile(&small, 0.5) < 0.5 * quantile(&before, 0.5));
    assert!(quantile(&small, 0.95) < 0.8 * quantile(&before, 0.95));
    assert!(large.len() > 40, "{} large ones landed", large.len());
    assert_eq!(small.len() + large.len(), CHANGES - LEARNING);
}

async fn until(desk: &Desk, holds: impl Fn(&Lane) -> bool) {
    let comes = async {
        while !desk.lane().await.expect("it is read").is_some_and(|it| holds(&it)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(WITHIN, comes).await.expect("it comes to that");
}

/// While a check runs it is asked what the others cost that came meanwhile. The one that costs most came first, and is
/// tested last.
#[tokio::test]
async fn what_a_check_costs_is_asked_while_another_one_runs() {
    let rig = Rig::new();
    let records: Arc<dyn Records> = Arc::new(Memory::default());
    let desk = Desk::new(records.clone(), LaneName::new("main").expect("a name"));
    for name in ["first", "large", "silent", "small"] {
        rig.write(name, &[(name, "")]);
    }
    ask(&desk, "first").await;
    let [ran, go] = ["ran", "go"].map(|it| rig.directory.path().join(it));
    let (ran_at, go_at) = (ran.display(), go.display());
    let check = format!(
        "echo \"$KILN_QUEUE_BRANCHES\" >> '{ran_at}'; until [ -e '{go_at}' ]; do sleep 0.02; done"
    );
    let cost = "if [ -e silent ]; then exit 1; fi; cost=10; if [ -e large ]; then cost=100; fi; \
                echo $cost > \"$KILN_QUEUE_COST\"";
    let mut settings = rig.settings(&check, Mode::Throughput, 1);
    settings.cost = Some(Check { command: cost.to_owned(), ..settings.check.clone() });
    let runner = Runner::begin(settings, rig.parts(records)).await.expect("it begins");
    let others = async {
        until(&desk, |lane| !lane.runs.is_empty()).await;
        for (waiting, name) in (2..).zip(["large", "silent", "small"]) {
            ask(&desk, name).await;
            // One that comes slowly would be overtaken by the next one.
            until(&desk, |lane| lane.changes.len() == waiting).await;
        }
        until(&desk, |lane| {
            let mut costs: Vec<u64> = lane.changes.values().filter_map(|it| it.cost).collect();
            costs.sort_unstable();
            costs == [10, 100] && lane.changes.len() == 4
        })
        .await;
        std::fs::write(&go, "").expect("it is written");
    };
    let runs = Box::pin(runner.run(CancellationToken::new(), true));
    let (ended, ()) = tokio::join!(runs, others);
    ended.expect("it ends");
    let ran = std::fs::read_to_string(&ran).expect("checks ran");
    assert_eq!(ran.lines().collect::<Vec<_>>(), ["first", "silent small", "large"]);
}
