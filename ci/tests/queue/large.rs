//! A repository of a gigabyte.

use std::sync::Arc;
use std::time::Duration;

use kiln_ci::queue::Mode;
use kiln_ci::queue::serving::{Desk, LaneName, Runner};
use kiln_ci::storage::Records;
use kiln_ci::storage::memory::Memory;
use tokio_util::sync::CancellationToken;

use crate::real::{Rig, ask, check, git};

const FILES: usize = 16;
const SIZE: usize = 64 << 20;
/// Options with which git neither compresses nor compares what cannot be made smaller.
const RAW: [&str; 4] = ["-c", "core.compression=0", "-c", "core.bigFileThreshold=1m"];

/// The queue clones it once, checks it out once, and tests and lands changes in it like any other ones.
#[tokio::test]
#[ignore = "writes three gigabytes"]
async fn changes_land_in_a_repository_of_a_gigabyte() {
    let rig = Rig::new();
    let (work, mut rng) = (rig.work(), fastrand::Rng::with_seed(1));
    let mut bytes = vec![0; SIZE];
    for number in 0..FILES {
        rng.fill(&mut bytes);
        std::fs::write(work.join(format!("large-{number}")), &bytes).expect("it is written");
    }
    let push = ["push", "--quiet", "origin", "HEAD:refs/heads/main"];
    for command in [&["add", "--all"][..], &["commit", "--quiet", "-m", "large"], &push] {
        git(&work, &[&RAW[..], command].concat());
    }
    let records: Arc<dyn Records> = Arc::new(Memory::default());
    let desk = Desk::new(records.clone(), LaneName::new("main").expect("a name"));
    for name in ["good-1", "bad-1", "good-2"] {
        rig.write(name, &[(name, "")]);
        ask(&desk, name).await;
    }
    let mut settings = rig.settings(&check(&rig), Mode::Throughput, 1);
    (settings.options.exact, settings.check.proven) = (true, true);
    settings.fetch_limit = Duration::from_secs(600);
    let runner = Runner::begin(settings, rig.parts(records)).await.expect("it begins");
    runner.run(CancellationToken::new(), true).await.expect("it ends");
    let mut landed = rig.landed();
    landed.retain(|it| !it.starts_with("large-"));
    assert_eq!(landed, ["good-1", "good-2"]);
    let tree = rig.directory.path().join("queue/trees/slot-0");
    let last = tree.join(format!("large-{}", FILES - 1));
    assert!(std::fs::read(last).expect("it is checked out") == bytes);
}
