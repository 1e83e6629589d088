//! What an operator chooses.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The queue makes as few runs for a change as can be.
    Throughput,
    /// The queue lands each change as soon as can be.
    Latency,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    pub mode: Mode,
    /// Runs at the same time.
    pub workers: usize,
    /// Checks rule flakes out: their failures are proven, but for those that they leave undecided. Earlier versions weigh by it.
    pub exact: bool,
    /// How long a batch that is not full may wait for more, in milliseconds.
    pub patience_ms: u64,
    /// What passes lands by itself, and counts on a target that has moved where that is proven. In throughput mode.
    #[serde(default)]
    pub independent: bool,
}

impl Default for Options {
    fn default() -> Self {
        let (mode, workers) = (Mode::Throughput, 1);
        Self { mode, workers, exact: false, patience_ms: 0, independent: false }
    }
}
