//! Branches whose heads do not come, though the repository answers.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use kiln_ci::queue::serving::{Desk, LaneName, Request, Runner, Settings};
use kiln_ci::queue::{Held, Mode, Standing};
use kiln_ci::services::Clock;
use kiln_ci::storage::Records;
use kiln_ci::storage::memory::Memory;
use tokio_util::sync::CancellationToken;

use crate::real::{Rig, System, ask, check, git};

const HOUR: Duration = Duration::from_secs(3_600);
const WITHIN: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_branch_that_cannot_be_fetched_holds_up_nobody() {
    let rig = Rig::new();
    let records: Arc<dyn Records> = Arc::new(Memory::default());
    let desk = Desk::new(records.clone(), LaneName::new("main").expect("a name"));
    let run = async || {
        let settings = rig.settings(&check(&rig), Mode::Throughput, 1);
        let runner = Runner::begin(settings, rig.parts(records.clone())).await.expect("it begins");
        runner.run(CancellationToken::new(), true).await.expect("it ends");
    };
    rig.write("pushed-again", &[("pushed-again", "1\n")]);
    let pause = Request::Pause { why: "by hand".to_owned() };
    desk.ask(&pause, System.now()).await.expect("it is left");
    ask(&desk, "pushed-again").await;
    run().await;
    rig.write("pushed-again", &[("pushed-again", "2\n")]);
    rig.lose("pushed-again", "pushed-again");
    rig.write("never", &[("never", "3\n")]);
    rig.lose("never", "never");
    desk.ask(&Request::Resume, System.now()).await.expect("it is left");
    ask(&desk, "never").await;
    for good in ["good-1", "good-2"] {
        rig.write(good, &[(good, "")]);
        ask(&desk, good).await;
    }
    run().await;
    assert_eq!(rig.landed(), ["good-1", "good-2"]);
    let lane = desk.lane().await.expect("it is read").expect("it has run");
    let left: Vec<_> = lane.changes.values().map(|it| (it.branch.as_str(), &it.standing)).collect();
    let [("pushed-again", Standing::Held(Held::Unfetched(_)))] = left.as_slice() else {
        panic!("{left:?}")
    };
    rig.write("pushed-again", &[("pushed-again", "4\n")]);
    run().await;
    assert_eq!(rig.landed(), ["good-1", "good-2", "pushed-again"]);
}

/// Its head is in the queue, and is pushed again; a file of what was pushed is a pipe into which nobody writes.
#[tokio::test]
async fn a_head_whose_fetch_hangs_holds_up_nobody_and_is_given_up_in_time() {
    let rig = Rig::new();
    let records: Arc<dyn Records> = Arc::new(Memory::default());
    let desk = Desk::new(records.clone(), LaneName::new("main").expect("a name"));
    let begin = async |fetch_limit: Duration| {
        let settings = Settings { fetch_limit, ..rig.settings("true", Mode::Throughput, 1) };
        Runner::begin(settings, rig.parts(records.clone())).await.expect("it begins")
    };
    for (name, text) in [("hangs", "1\n"), ("next", "2\n"), ("good-1", ""), ("good-2", "")] {
        let file = if name == "next" { "hangs" } else { name };
        rig.write(name, &[(file, text)]);
    }
    let pause = Request::Pause { why: "by hand".to_owned() };
    desk.ask(&pause, System.now()).await.expect("it is left");
    ask(&desk, "hangs").await;
    begin(HOUR).await.run(CancellationToken::new(), true).await.expect("it ends");
    let runner = begin(HOUR).await;
    let object = rig.object("next", "hangs");
    std::fs::remove_file(&object).expect("it is there");
    assert!(Command::new("mkfifo").arg(&object).status().expect("it runs").success());
    let remote = rig.directory.path().join("remote.git");
    git(&remote, &["update-ref", "refs/heads/hangs", "refs/heads/next"]);
    desk.ask(&Request::Resume, System.now()).await.expect("it is left");
    for good in ["good-1", "good-2"] {
        ask(&desk, good).await;
    }
    let landed = async {
        while rig.landed() != ["good-1", "good-2"] {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        ended = runner.run(CancellationToken::new(), false) => panic!("it ends: {ended:?}"),
        waited = tokio::time::timeout(WITHIN, landed) => waited.expect("they land meanwhile"),
    }
    // The queue holds the branch whose fetch was given up, and has nothing else to do.
    let second = Duration::from_secs(1);
    begin(second).await.run(CancellationToken::new(), true).await.expect("it ends");
    assert_eq!(rig.landed(), ["good-1", "good-2"]);
    let lane = desk.lane().await.expect("it is read").expect("it has run");
    let left: Vec<_> = lane.changes.values().map(|it| (it.branch.as_str(), &it.standing)).collect();
    let [("hangs", Standing::Held(Held::Unfetched(why)))] = left.as_slice() else {
        panic!("{left:?}")
    };
    assert!(why.contains("took longer than 1s"), "{why}");
}
