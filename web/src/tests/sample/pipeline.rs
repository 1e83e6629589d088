//! A pipeline in which one stage passed, one is asked about and one waits.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use kiln_ci::ephemeral::{PreviewParts, Previews};
use kiln_ci::model::Time;
use kiln_ci::pipelines::control::{
    Control, ControlOptions, ControlParts, Happenings, Registered, Registry, Released, Start,
};
use kiln_ci::pipelines::{Ended, Progress, RunnerError, StageRunner, Task};
use kiln_ci::services::Clock;
use kiln_ci::stages::SecretList;
use kiln_ci::storage::memory::Memory;
use kiln_ci::storage::{Expect, Records as _, StorageError, Write};
use kiln_ci::verdicts::{Ledger, Note};

const FILE: &str = r#"
name = "app"
description = "builds <b> and ships"
[inputs.version]
default = "1.4"
[[stage]]
name = "build"
script = "make"
[[stage]]
name = "sign-off"
kind = "approve"
message = "ship <it>?"
[[stage]]
name = "ship"
needs = ["build", "sign-off"]
command = ["ship"]
[[stage]]
name = "nightly"
when = { trigger = ["schedule"] }
command = ["true"]
"#;

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Time {
        Time(1_795_419_668_000)
    }
}

struct Book(Memory);

#[async_trait]
impl Ledger for Book {
    async fn write(&self, _: Vec<Note>, writes: Vec<Write>) -> Result<(), StorageError> {
        self.0.write(writes).await
    }
}

struct Nothing;

impl Registry for Nothing {
    fn pipelines(&self) -> Arc<BTreeMap<String, Registered>> {
        Arc::default()
    }
}

#[async_trait]
impl Happenings for Nothing {
    async fn released(&self, after: u64) -> Result<(Vec<Released>, u64), StorageError> {
        Ok((Vec::new(), after))
    }

    async fn latest(&self) -> Result<u64, StorageError> {
        Ok(0)
    }
}

/// A runner of stages with which each stage passes.
struct Passes;

#[async_trait]
impl StageRunner for Passes {
    async fn run(&self, task: &Task, progress: &dyn Progress) -> Result<Ended, RunnerError> {
        progress.log(0, format!("\u{1b}[32m{} is <done>\u{1b}[0m\n", task.stage).into());
        Ok(Ended::passed(BTreeMap::new()))
    }

    async fn cancel(&self, _: &Task) -> Result<(), RunnerError> {
        Ok(())
    }
}

/// A control whose one run waits for somebody to approve.
pub async fn control() -> Arc<Control> {
    let memory = Memory::default();
    let parts = ControlParts {
        records: Arc::new(memory.clone()),
        ledger: Arc::new(Book(memory)),
        runner: Arc::new(Passes),
        registry: Arc::new(Nothing),
        happenings: Arc::new(Nothing),
        clock: Arc::new(Fixed),
        name: "test".to_owned(),
    };
    let keep = std::time::Duration::from_secs(86_400);
    let control = Control::new(parts, ControlOptions { keep, most: 10 });
    let declared = Control::read(FILE.to_owned()).await.expect("it is read");
    let ask = Start {
        trigger: "manual".to_owned(),
        branch: "main".to_owned(),
        by: "ana".to_owned(),
        ..Start::default()
    };
    control.start(&declared, &ask).await.expect("it begins");
    control
}

/// Drives what there is until people are asked.
pub async fn driven(control: &Arc<Control>) -> String {
    let driving = tokio::spawn(control.clone().run());
    loop {
        let listed = control.list(None, 1).await.expect("a list").remove(0);
        if listed.head.passed == 1 {
            driving.abort();
            return listed.run.id;
        }
        tokio::task::yield_now().await;
    }
}

/// An environment of nobody, which is to be taken down.
pub async fn previews() -> Arc<Previews> {
    let left = serde_json::json!({
        "name": "kiln-0-web-1", "kind": "web", "instance": "", "pipeline": "app", "run": "r1", "by": "ana",
        "made": 1_795_419_668_000_u64, "expires": 1_795_419_669_000_u64, "phase": "going",
        "address": "http://web.test", "why": "<b>its time is over</b>", "changed": 1_795_419_669_000_u64,
    });
    let memory = Memory::default();
    let value = Some(serde_json::to_vec(&left).expect("JSON").into());
    let key = "preview/name/kiln-0-web-1".to_owned();
    memory.write(vec![Write { key, expect: Expect::Absent, value }]).await.expect("it has room");
    Previews::new(PreviewParts {
        records: Arc::new(memory),
        clock: Arc::new(Fixed),
        kinds: BTreeMap::new(),
        secrets: SecretList::default(),
        who: "sample".to_owned(),
        teller: None,
        figures: Arc::default(),
    })
}
