//! A worker that keeps tools, and actions that ask for one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_cas::{Digest, SharedBlobStore};
use kiln_executor::persistent::{ToolFigures, ToolStats};
use kiln_executor::{Worker, WorkerConfig};
use kiln_protos::reapi::{self, ExecuteResponse};
use tempfile::TempDir;

use crate::common::{Node, directory, file, memory_store, put_action_with, put_tree};
use crate::scheduler::{Scheduler, config};

pub const TOOL: &str = include_str!("tool.py");

pub struct Fixture {
    pub scheduler: Scheduler,
    pub store: SharedBlobStore,
    pub stats: Arc<ToolStats>,
    _dir: TempDir,
}

/// An action; what differs between actions is set by the test.
#[derive(Clone)]
pub struct Asked {
    pub arguments: Vec<String>,
    pub flags: String,
    pub inputs: Vec<(String, Node)>,
    pub tool: Node,
    pub outputs: Vec<String>,
    pub variable: String,
    pub key: Option<String>,
    pub protocol: Option<String>,
    pub tool_inputs: Option<String>,
    pub working_directory: String,
    pub timeout: Option<Duration>,
    pub scratch: Option<String>,
}

pub fn ask(flags: &[&str]) -> Asked {
    Asked {
        arguments: ["bin/tool", "@args/flags"].map(str::to_owned).to_vec(),
        flags: flags.iter().map(|flag| format!("{flag}\n")).collect(),
        inputs: Vec::new(),
        tool: Node::Tool(TOOL.into()),
        outputs: vec!["out/o".into()],
        variable: "x".into(),
        key: Some("key".into()),
        protocol: Some("json".into()),
        tool_inputs: None,
        working_directory: String::new(),
        timeout: None,
        scratch: None,
    }
}

impl Asked {
    pub fn proto(mut self) -> Self {
        self.protocol = None;
        self.arguments.push("--proto".into());
        self
    }

    pub fn input(mut self, name: &str, content: &str) -> Self {
        self.inputs.push((name.to_owned(), file(content)));
        self
    }

    pub async fn put(&self, store: &SharedBlobStore) -> Digest {
        let mut inputs: std::collections::BTreeMap<String, Node> =
            self.inputs.iter().cloned().collect();
        inputs.insert("README".to_owned(), file("of the tests"));
        let root = directory([
            ("args", directory([("flags", file(&self.flags))])),
            ("bin", directory([("tool", self.tool.clone())])),
            ("in", Node::Directory(inputs)),
        ]);
        let root = put_tree(store, &root).await;
        let property = |name: &str, value: &Option<String>| {
            let value = value.clone()?;
            Some(reapi::platform::Property { name: name.into(), value })
        };
        let properties = [
            property("persistentWorkerKey", &self.key),
            property("persistentWorkerProtocol", &self.protocol),
            property("kiln-tool-inputs", &self.tool_inputs),
        ];
        let properties = properties.into_iter().flatten().collect();
        let variable = reapi::command::EnvironmentVariable {
            name: "VARIABLE".into(),
            value: self.variable.clone(),
        };
        let scratch = self.scratch.clone().map(|value| reapi::command::EnvironmentVariable {
            name: "BUCK_SCRATCH_PATH".into(),
            value,
        });
        let command = reapi::Command {
            arguments: self.arguments.clone(),
            output_paths: self.outputs.clone(),
            environment_variables: scratch.into_iter().chain([variable]).collect(),
            working_directory: self.working_directory.clone(),
            ..Default::default()
        };
        let timeout = self.timeout.map(|time| kiln_protos::protobuf::Duration {
            seconds: time.as_secs() as i64,
            nanos: time.subsec_nanos() as i32,
        });
        let platform = Some(reapi::Platform { properties });
        let rest = reapi::Action { platform, timeout, ..Default::default() };
        put_action_with(store, &command, root, rest).await
    }
}

impl Fixture {
    pub async fn new() -> Self {
        Self::with(1, |_| {}).await
    }

    pub async fn with(slots: u32, change: impl FnOnce(&mut WorkerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = memory_store();
        let mut config = config(dir.path(), slots);
        config.zygote_command = vec![env!("CARGO_BIN_EXE_kiln-zygote").into()];
        change(&mut config);
        let worker = Worker::start(config, store.clone()).await.unwrap();
        let stats = worker.status().tools;
        let scheduler = Scheduler::resume(worker).await;
        Self { scheduler, store, stats, _dir: dir }
    }

    pub async fn run(&mut self, asked: &Asked) -> ExecuteResponse {
        let action = asked.put(&self.store).await;
        self.scheduler.execute(action).await.unwrap()
    }

    /// Runs the action, which has to succeed, and answers its result.
    pub async fn done(&mut self, asked: &Asked) -> Done {
        let response = self.run(asked).await;
        let status = response.status.unwrap();
        assert_eq!(status.code, 0, "{}", status.message);
        let done = Done(response.result.unwrap());
        assert_eq!(done.0.exit_code, 0, "{done:?}");
        done
    }

    pub fn figures(&self) -> ToolFigures {
        self.stats.figures()
    }

    pub fn unfit(&self, reason: &str) -> u64 {
        count(&self.figures().unfit, reason)
    }

    pub fn ended(&self, reason: &str) -> u64 {
        count(&self.figures().ended, reason)
    }

    pub async fn await_ended(&self, reason: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.ended(reason) == 0 {
            assert!(Instant::now() < deadline, "no tool ended: {reason}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn stop(self) -> Arc<ToolStats> {
        self.scheduler.shutdown.cancel();
        let (worker, _) = self.scheduler.session.await.unwrap();
        worker.stop().await;
        self.stats
    }
}

fn count(counts: &[(&'static str, u64)], reason: &str) -> u64 {
    counts.iter().find(|(name, _)| *name == reason).expect("a known reason").1
}

/// A result of an action that succeeded.
#[derive(Debug)]
pub struct Done(pub reapi::ActionResult);

impl Done {
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr_raw).into_owned()
    }

    /// The token of the process that did the action, and which of its requests that was, counted
    /// from 1; 0: a process that does not stay.
    pub fn by(&self) -> (String, u32) {
        let said = [&self.0.stdout_raw[..], &self.0.stderr_raw].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let mut words = said.split_whitespace().skip_while(|word| *word != "token").skip(1);
        let token = words.next().expect("a token").to_owned();
        (token, words.nth(1).and_then(|count| count.parse().ok()).expect("a number"))
    }
}

/// How many processes have this text among their arguments.
pub fn processes(text: &str) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(text)).count()
}
