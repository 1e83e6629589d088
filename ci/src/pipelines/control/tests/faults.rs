//! What panics each time it is done holds up nothing else, and does not go on for ever.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{sleep, timeout};

use super::rig::Rig;
use crate::pipelines::control::{Control, Said, Stands, keys};
use crate::pipelines::machine::{RunState, StopWhy};
use crate::storage::memory::Memory;
use crate::storage::{Record, Records, StorageError, Write};

const TWO: &str = "name = \"two\"\n[[stage]]\nname = \"a\"\ncommand = [\"true\"]\n[[stage]]\nname = \"b\"\nneeds = [\"a\"]\ncommand = [\"true\"]\n";

/// Records of which a part cannot be listed without a panic.
struct Trap {
    memory: Memory,
    prefix: String,
}

#[async_trait]
impl Records for Trap {
    async fn get(&self, key: &str) -> Result<Option<Record>, StorageError> {
        self.memory.get(key).await
    }

    async fn apply(&self, writes: Vec<Write>) -> Result<Vec<u64>, StorageError> {
        self.memory.apply(writes).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Record>, StorageError> {
        assert!(!prefix.starts_with(&self.prefix), "a trap");
        self.memory.list(prefix, after, reverse, limit).await
    }
}

/// How a run ended, within an hour.
async fn ended(control: &Control, id: &str) -> RunState {
    let ended = async {
        loop {
            let state = control.show(id).await.unwrap().state;
            if state.is_over() {
                return state;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(3_600), ended).await.expect("it ends")
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_driver_panics_each_time_has_failed_and_others_go_on() {
    let rig = Rig::new();
    let (bad, good) = (rig.start(TWO).await, rig.start(TWO).await);
    let trap = Trap { memory: rig.memory.clone(), prefix: keys::texts(&bad.id) };
    let control = rig.frontend_on(Arc::new(trap));
    let driving = tokio::spawn(control.clone().run());
    assert_eq!(Stands::of(&ended(&control, &good.id).await), Stands::Passed);
    let state = ended(&control, &bad.id).await;
    driving.abort();
    assert_eq!(Stands::of(&state), Stands::Failed);
    let why = state.stop.map(|it| it.why);
    let says = |reason: &str| reason.contains("5 times in a row") && reason.contains("a trap");
    assert!(matches!(&why, Some(StopWhy::Fault { reason }) if says(reason)), "{why:?}");
    assert_eq!(rig.world.cancelled.lock().unwrap().len(), 1, "nothing of it runs on");
    // Somebody resumes the run once the fault is mended.
    rig.frontend().say(&bad.id, &Said::Resume, ("bob", "mended")).await.unwrap();
    rig.drive(&bad.id).await.unwrap();
    assert_eq!(Stands::of(&ended(&control, &bad.id).await), Stands::Passed);
}

#[tokio::test(start_paused = true)]
async fn a_trigger_that_panics_holds_up_no_run() {
    let mut rig = Rig::new();
    rig.declare(
        "name = \"after\"\n[[trigger]]\non = \"release\"\nnames = [\"team/app:*\"]\n[[stage]]\nname = \"a\"\ncommand = [\"true\"]\n",
    );
    let control = rig.frontend();
    control.follow().await;
    // This text is no release, and the code that reads it panics.
    rig.releases.0.lock().unwrap().push("odd".to_owned());
    let run = rig.start(TWO).await;
    let driving = tokio::spawn(control.clone().run());
    assert_eq!(Stands::of(&ended(&control, &run.id).await), Stands::Passed);
    driving.abort();
}
