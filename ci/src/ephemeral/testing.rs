//! What tests of environments stand on: environments that are folders, which programs make, list and remove.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;

use super::figures::PreviewFigures;
use super::kinds::{Commands, How};
use super::machine::Preview as Kept;
use super::previews::{Ask, Kind, PreviewParts, Previews, TellStuck};
use crate::pipelines::{Outcome, Preview, PreviewAct, TaskKey, Work};
use crate::stages::testing::{Heard, TestClock, task};
use crate::stages::{Ledger, SecretList, SecretSource};
use crate::storage::memory::Memory;

pub const HOUR: Duration = Duration::from_secs(3_600);
/// Longer than a server that is silent keeps others from an environment.
const SILENT: Duration = Duration::from_secs(32);

/// Lets the time of a silent server pass by tokio's clock only, because the programs that the test runs take
/// real time.
pub async fn silence() {
    tokio::time::pause();
    tokio::time::advance(SILENT).await;
    tokio::time::resume();
}

/// Hears of the environments that cannot be taken down, and keeps their numbers of failures.
#[derive(Clone, Default)]
pub struct Told(pub Arc<Mutex<Vec<u32>>>);

#[async_trait]
impl TellStuck for Told {
    async fn stuck(&self, preview: &Kept) -> Result<(), String> {
        self.0.lock().unwrap().push(preview.failures);
        Ok(())
    }
}

/// The directory, the records and the clock, which survive the processes.
pub struct World {
    pub dir: TempDir,
    pub memory: Memory,
    pub clock: TestClock,
    pub told: Told,
    pub figures: Arc<PreviewFigures>,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("there")).unwrap();
        Self {
            dir,
            memory: Memory::default(),
            clock: TestClock::default(),
            told: Told::default(),
            figures: Arc::default(),
        }
    }

    pub fn there(&self) -> Vec<String> {
        let read = std::fs::read_dir(self.dir.path().join("there")).unwrap();
        let mut names: Vec<_> =
            read.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn kind(&self, up: &str) -> Kind {
        let dir = self.dir.path().display();
        let shell = |script: String| vec!["sh".to_owned(), "-euc".to_owned(), script];
        let describe = "if [ \"$KILN_PREVIEW\" = prod ]; then v=2; else v=1; fi; \
                        echo \"{\\\"versions\\\": {\\\"web\\\": \\\"$v\\\"}}\"";
        Kind {
            how: How::Commands(Commands {
                up: shell(format!("mkdir '{dir}/there/'\"$KILN_PREVIEW\"; {up}")),
                down: shell(format!(
                    "if [ -e '{dir}/hangs' ]; then echo \"no: $TOKEN\" >&2; exit 1; fi; \
                     rm -rf '{dir}/there/'\"$KILN_PREVIEW\""
                )),
                check: shell(format!("test -d '{dir}/there/'\"$KILN_PREVIEW\"")),
                list: shell(format!("ls '{dir}/there'")),
            }),
            up_limit: Duration::from_secs(60),
            down_limit: Duration::from_secs(60),
            longest: HOUR,
            most: 2,
            env: Vec::new(),
            secrets: BTreeMap::from([("TOKEN".to_owned(), "token".to_owned())]),
            pipelines: Vec::new(),
            describe: shell(describe.to_owned()),
            stands_for: "prod".to_owned(),
        }
    }

    /// Waits until there is an environment.
    pub async fn begun(&self) {
        while self.there().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn server(&self, who: &str, kind: Kind) -> Arc<Previews> {
        self.server_by(&self.clock, who, kind)
    }

    pub fn server_by(&self, clock: &TestClock, who: &str, kind: Kind) -> Arc<Previews> {
        let secret = SecretSource::Command(["echo", "s3cret-word"].map(str::to_owned).to_vec());
        Previews::new(PreviewParts {
            records: Arc::new(self.memory.clone()),
            clock: Arc::new(clock.clone()),
            kinds: BTreeMap::from([("web".to_owned(), kind)]),
            secrets: SecretList(BTreeMap::from([("token".to_owned(), secret)])),
            who: who.to_owned(),
            teller: Some(Arc::new(self.told.clone())),
            figures: self.figures.clone(),
        })
    }

    pub fn ledger(&self) -> Ledger {
        Ledger::new(Arc::new(self.memory.clone()), Arc::new(self.clock.clone()))
    }
}

pub fn key(run: &str, attempt: u32) -> TaskKey {
    TaskKey { run: run.to_owned(), stage: 1, attempt }
}

pub fn ask(key: &TaskKey) -> Ask<'_> {
    Ask { key, kind: "web", instance: "main", pipeline: "p", by: "ana", keep: HOUR }
}

pub async fn stage(server: &Previews, ledger: &Ledger, act: PreviewAct) -> (Outcome, String) {
    let preview = Preview { environment: "web".to_owned(), act, keep: HOUR };
    let mut task = task(1, Work::Preview(preview.clone()));
    task.key.stage = act as u32;
    let heard = Heard::default();
    let ended = server.run_stage(ledger, &task, &preview, &heard).await.unwrap();
    (ended.outcome, heard.said())
}
