//! Runners in the sandbox.

use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::WorkerConfig;
use crate::failure::Failure;
use crate::runner::{Runner, Runners};
use crate::sandbox::{
    Capabilities, CommandSpec, Finished, OutputStream, SandboxError, Slot, SlotConfig, UpperDir,
};

/// Group and user of the first slot's actions on this machine; those of the others follow, and
/// those of tools that stay.
const FIRST_OUTER_ID: u32 = 61_000;

/// Makes runners in the sandbox: the settings that all slots share, and the number of slots.
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

    /// The sandbox of the tool with this number. `None` where writes go to a disk: nothing bounds
    /// there what a tool keeps of one request after the other.
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
