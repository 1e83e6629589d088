//! What runs a command, as traits. `sandbox_runners` puts the sandbox behind them.

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::sandbox::{Capabilities, CommandSpec, Finished, OutputStream, SlotConfig};

/// Runs one command at a time.
#[async_trait]
pub trait Runner: Send + 'static {
    /// Waits until a command could begin at once, so that nothing of an earlier one counts as its time. Who cancels does
    /// not wait for that.
    async fn ready(&mut self, _cancel: &CancellationToken) -> Result<(), Failure> {
        Ok(())
    }

    /// Runs `spec` to its end. A command that fails is `Ok`. Output goes to `output` as it comes;
    /// all of it has been sent on return. After an error the runner is able to run the next
    /// command.
    async fn run(
        &mut self,
        spec: &CommandSpec,
        output: mpsc::Sender<(OutputStream, Bytes)>,
        cancel: CancellationToken,
    ) -> Result<Finished, Failure>;

    /// What this runner enforces to keep a command apart; `None`: nothing.
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

    /// The sandbox of the tool with this number, counted from 0; `None`: no tool may stay between
    /// actions here.
    fn tool_slot(&self, _number: u32) -> Option<SlotConfig> {
        None
    }

    /// One sentence for each thing that the runners cannot enforce on this machine; empty: they
    /// enforce everything.
    fn not_enforced(&self) -> Vec<String>;
}
