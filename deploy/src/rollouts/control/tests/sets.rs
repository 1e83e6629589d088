//! Two sets of targets, of which one serves.

use super::rig::{METRIC, Rig, digest, words};
use crate::judge::Verdict;
use crate::rollouts::control::{By, Command, ControlError, Start};
use crate::rollouts::machine::{End, Phase};
use crate::rollouts::parts::{Side, Traffic as _};

const BESIDE: &str = "name = \"api\"\ntargets = 2\ncolour = \"slot\"\nlive = \"blue\"\ntraffic = \"edge\"\nbake = \"10s\"\n\
                      soak = \"10s\"\nsettle = \"5s\"\nwatch = \"1s\"\n";

fn blue_green() -> String {
    format!("strategy = \"blue-green\"\n{BESIDE}")
}

/// `a` and `b` are blue, `c` and `d` green.
fn coloured() -> Rig {
    let rig = Rig::new();
    for (name, colour) in [("a", "blue"), ("b", "blue"), ("c", "green"), ("d", "green")] {
        rig.with(name, |fake| {
            fake.labels.insert("slot".to_owned(), colour.to_owned());
        });
    }
    rig
}

type Shares = Vec<(Side, f64, Vec<String>)>;

fn split(baseline: (f64, [&str; 2]), canary: (f64, [&str; 2])) -> Shares {
    let names = |names: [&str; 2]| names.map(str::to_owned).to_vec();
    vec![(Side::Baseline, baseline.0, names(baseline.1)), (Side::Canary, canary.0, names(canary.1))]
}

const BLUE: [&str; 2] = ["a", "b"];
const GREEN: [&str; 2] = ["c", "d"];

#[tokio::test]
async fn requests_are_switched_to_the_idle_set_and_the_other_stays_as_it_is() {
    let rig = coloured();
    let first = rig.start(&format!("{}{METRIC}", blue_green()), "app:1").await;
    let sets = first.sets.clone().unwrap();
    assert_eq!((sets.live.as_str(), sets.idle.as_str()), ("blue", "green"));
    assert_eq!((sets.live_targets, sets.heard, sets.needed), (2, 2, 2));
    assert_eq!(rig.drive_to_end(&first.id).await, Phase::Ended(End::Succeeded));
    let old = digest("old");
    assert_eq!(rig.runs(), [old.clone(), old, digest("app:1"), digest("app:1")]);
    assert_eq!(
        rig.shares(),
        [split((100.0, BLUE), (0.0, GREEN)), split((0.0, BLUE), (100.0, GREEN))]
    );
    let looks = rig.control.show(&first.id).await.unwrap().judgements;
    assert!(looks.iter().all(|it| it.verdict == Verdict::Promote), "{looks:?}");
    assert!(looks.last().unwrap().reasons[0].contains("no request goes there yet"), "{looks:?}");

    // The balancer says which set serves, whatever the declaration said before.
    let next = rig.start(&blue_green(), "app:2").await;
    assert_eq!(next.sets.clone().unwrap().idle, "blue");
    assert_eq!(rig.drive_to_end(&next.id).await, Phase::Ended(End::Succeeded));
    assert_eq!(rig.runs()[..2], [digest("app:2"), digest("app:2")]);
    assert_eq!(rig.changes(), [1, 1, 1, 1], "nobody who serves is touched");
}

#[tokio::test(start_paused = true)]
async fn a_breach_switches_back_before_anything_is_restarted() {
    let rig = coloured();
    let first = rig.start(&blue_green(), "app:1").await;
    rig.drive_to_end(&first.id).await;
    let bad = rig.start(&blue_green(), "app:2").await;
    rig.drive(&bad.id, 60, |phase| matches!(phase, Phase::Soaking)).await;
    assert_eq!(rig.shares().last(), Some(&split((0.0, GREEN), (100.0, BLUE))));
    // The balancer does not answer for a moment: whoever gets requests is not restarted meanwhile.
    let held = rig.splits.1.lock().await;
    rig.with("a", |fake| fake.crashes = 3);
    rig.drive(&bad.id, 3, |_| false).await;
    assert_eq!(rig.runs()[0], digest("app:2"));
    drop(held);
    assert_eq!(rig.drive_to_end(&bad.id).await, Phase::Ended(End::RolledBack));
    assert_eq!(rig.shares().last(), Some(&split((100.0, GREEN), (0.0, BLUE))));
    assert_eq!(rig.runs(), vec![digest("app:1"); 4]);
}

#[tokio::test]
async fn shares_of_the_requests_move_alone() {
    let rig = coloured();
    let declared = format!("by = \"traffic\"\nsteps = [10, 100]\n{BESIDE}{METRIC}");
    let first = rig.start(&declared, "app:1").await;
    assert_eq!(rig.drive_to_end(&first.id).await, Phase::Ended(End::Succeeded));
    let second = rig.start(&declared, "app:2").await;
    assert_eq!(rig.drive_to_end(&second.id).await, Phase::Ended(End::Succeeded));
    assert_eq!(
        rig.shares()[2..],
        [split((90.0, GREEN), (10.0, BLUE)), split((0.0, GREEN), (100.0, BLUE))]
    );
    let compared = rig.measures.baselines.lock().unwrap().clone();
    assert!(compared.contains(&GREEN.map(str::to_owned).to_vec()), "{compared:?}");
    assert_eq!(rig.changes(), [1, 1, 1, 1]);
}

#[tokio::test]
async fn without_room_for_both_or_when_nobody_knows_who_serves_nothing_begins() {
    let rig = coloured();
    let unknown = blue_green().replace("live = \"blue\"\n", "");
    let error = rig.control.start(&Rig::ask(&unknown, "app:1")).await.unwrap_err();
    assert!(words(&error).contains("nobody knows whether blue or green serves"), "{error}");
    rig.with("d", |fake| fake.silent = true);
    let error = rig.control.start(&Rig::ask(&blue_green(), "app:1")).await.unwrap_err();
    assert!(words(&error).contains("no room for both versions: blue, which serves"), "{error}");
    let preview = rig.control.preview(&blue_green(), "prod").await.unwrap();
    assert_eq!(preview.down, [("d".to_owned(), "it is not heard".to_owned())]);
    let sets = preview.sets.unwrap();
    assert!(sets.heard == 1 && sets.lacks().is_some(), "{sets:?}");
    let half = format!("capacity = 50\n{}", blue_green());
    let one = rig.start(&half, "app:1").await;
    let supersede = Start { supersede: true, ..Rig::ask(&half, "app:2") };
    let refused = rig.control.start(&supersede).await.unwrap_err();
    assert!(matches!(refused, ControlError::Refused(_)), "{refused}");
    let by = By { name: "ana".to_owned(), reason: "no".to_owned() };
    rig.control.say(&one.id, Command::Abort, &by).await.unwrap();
}

#[tokio::test]
async fn who_serves_is_asked_again_before_the_first_target_is_told() {
    let rig = coloured();
    let first = rig.start(&blue_green(), "app:1").await;
    rig.drive_to_end(&first.id).await;
    let next = rig.start(&blue_green(), "app:2").await;
    // Somebody switches by hand.
    let place = next.place.clone();
    let mut split = rig.splits.0.lock().unwrap().last().cloned().unwrap();
    split.generation.fence += 100;
    split.pools.iter_mut().for_each(|pool| pool.share = 100.0 - pool.share);
    rig.splits.set(&place, &split).await.unwrap();
    assert_eq!(rig.drive_to_end(&next.id).await, Phase::Ended(End::Rejected));
    assert_eq!(rig.changes(), [0, 0, 1, 1]);
}
