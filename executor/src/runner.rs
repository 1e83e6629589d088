//! What runs a command: a trait, and the sandbox behind it.

use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::WorkerConfig;
use crate::failure::Failure;
use crate::sandbox::{
    Capabilities, CommandSpec, Finished, OutputStream, SandboxError, Slot, SlotConfig, UpperDir,
};

/// Runs one command at a time.
#[async_trait]
pub trait Runner: Send + 'static {
    /// Waits until a command could begin at once, so that nothing of an earlier one counts as its time. Who cancels does
    /// not wait for that.
    async fn ready(&mut self, _cancel: &CancellationToken) -> Result<(), Failure> {
        Ok(())
    }

    /// A command that fails is `Ok`. Output goes to `output` as it comes; all of it has been sent
    /// on return. After an error the runner is able to run the next command.
    async fn run(
        &mut self,
        spec: &CommandSpec,
        output: mpsc::Sender<(OutputStream, Bytes)>,
        cancel: CancellationToken,
    ) -> Result<Finished, Failure>;

    /// What keeps a command apart here; `None`: nothing does.
    fn capabilities(&self) -> Option<&Capabilities> {
        None
    }

    /// Ends the processes of this runner.
    async fn stop(self: Box<Self>);
}

/// Makes a runner for each slot, and another one when a slot lost its own.
#[async_trait]
pub trait Runners: Send + Sync + 'static {
    async fn start(&self, slot: u32) -> Result<Box<dyn Runner>, Failure>;

    /// Where a tool of this number runs, if tools may stay between actions here.
    fn tool_slot(&self, _number: u32) -> Option<SlotConfig> {
        None
    }

    /// What the runners cannot enforce, in words.
    fn not_enforced(&self) -> Vec<String>;
}

/// Group and user of the first slot's actions on this machine; those of the others follow, and
/// those of tools that stay.
const FIRST_OUTER_ID: u32 = 61_000;

/// Runners in the sandbox.
pub struct SandboxRunners {
    template: SlotConfig,
    slots: u32,
    not_enforced: Vec<String>,
}

impl SandboxRunners {
    /// Starts the sandbox once, to see what it enforces here.
    pub async fn probe(
        config: &WorkerConfig,
        input_dir: PathBuf,
        image_dir: PathBuf,
    ) -> Result<Self, SandboxError> {
        let mut template = SlotConfig {
            name: format!("{}-probe", slot_prefix()),
            scratch_dir: config.work_dir.join("scratch"),
            input_dirs: vec![input_dir],
            image_dirs: vec![image_dir],
            hidden: config.hidden.iter().chain([&config.work_dir]).cloned().collect(),
            upper: config.upper,
            ..SlotConfig::default()
        };
        if !config.zygote_command.is_empty() {
            template.zygote_command = config.zygote_command.clone();
        }
        let capabilities = crate::sandbox::probe(SlotConfig {
            scratch_dir: template.scratch_dir.join("probe"),
            ..template.clone()
        })
        .await?;
        let slots = config.slots;
        Ok(Self { template, slots, not_enforced: capabilities.not_enforced().to_vec() })
    }
}

/// A prefix of names that no other worker on this machine has.
fn slot_prefix() -> String {
    format!("kiln-{}", std::process::id())
}

#[async_trait]
impl Runners for SandboxRunners {
    async fn start(&self, slot: u32) -> Result<Box<dyn Runner>, Failure> {
        let config = SlotConfig {
            name: format!("{}-{slot}", slot_prefix()),
            scratch_dir: self.template.scratch_dir.join(slot.to_string()),
            outer_id: FIRST_OUTER_ID + slot,
            ..self.template.clone()
        };
        match Slot::start(config).await {
            Ok(slot) => Ok(Box::new(slot)),
            Err(error) => Err(Failure::Infrastructure(error.into())),
        }
    }

    /// `None` where writes go to a disk: nothing bounds there what a tool keeps of one request after the other.
    fn tool_slot(&self, number: u32) -> Option<SlotConfig> {
        if self.template.upper == UpperDir::Disk {
            return None;
        }
        let name = format!("tool-{number}");
        Some(SlotConfig {
            name: format!("{}-{name}", slot_prefix()),
            scratch_dir: self.template.scratch_dir.join(name),
            outer_id: FIRST_OUTER_ID + self.slots + number,
            ..self.template.clone()
        })
    }

    fn not_enforced(&self) -> Vec<String> {
        self.not_enforced.clone()
    }
}

#[async_trait]
impl Runner for Slot {
    async fn ready(&mut self, cancel: &CancellationToken) -> Result<(), Failure> {
        Slot::ready(self, cancel).await.map_err(failure)
    }

    async fn run(
        &mut self,
        spec: &CommandSpec,
        output: mpsc::Sender<(OutputStream, Bytes)>,
        cancel: CancellationToken,
    ) -> Result<Finished, Failure> {
        Slot::run(self, spec, output, cancel).await.map_err(failure)
    }

    fn capabilities(&self) -> Option<&Capabilities> {
        Some(Slot::capabilities(self))
    }

    async fn stop(self: Box<Self>) {
        Slot::stop(*self).await;
    }
}

fn failure(error: SandboxError) -> Failure {
    match error {
        SandboxError::CommandTooLarge { .. } => Failure::InvalidAction(error.to_string()),
        SandboxError::Cancelled => Failure::Cancelled,
        other => Failure::Infrastructure(other.into()),
    }
}
