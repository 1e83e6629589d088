//! Finds out what this machine lets the sandbox enforce.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Capabilities, CommandSpec, Limits, RootFs, SandboxError, Slot, SlotConfig};

/// Mounting and cloning take milliseconds; a machine that needs so long cannot run actions.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts a slot, sees what it can do, runs an action in it, and stops it. Fails where no action
/// could run.
pub async fn probe(config: SlotConfig) -> Result<Capabilities, SandboxError> {
    let mut slot = Slot::start(config).await?;
    let capabilities = slot.capabilities().clone();
    let tried = try_action(&mut slot).await;
    slot.stop().await;
    tried.map(|()| capabilities)
}

/// Runs an action to see whether the sandbox can prepare it; its program need not be there. Some of
/// what it needs is refused only then: a container may hide parts of /proc, and then no other one
/// can be mounted.
async fn try_action(slot: &mut Slot) -> Result<(), SandboxError> {
    let spec = CommandSpec {
        arguments: vec![b"/probe".to_vec()],
        environment: Vec::new(),
        working_directory: String::new(),
        lower: Vec::new(),
        directories: Vec::new(),
        writable: Vec::new(),
        root: RootFs::Empty,
        network: false,
        timeout: PATIENCE,
        limits: Limits::default(),
        conditions: Default::default(),
    };
    // Nothing is printed: a closed channel is no hindrance.
    let (output, _) = mpsc::channel(1);
    slot.run(&spec, output, CancellationToken::new()).await.map(drop)
}
