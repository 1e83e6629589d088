//! What an import is answered with, as the description of the API has it; `kiln_ci::imports::Receipt` is written.

use schemars::JsonSchema;

#[derive(JsonSchema)]
#[allow(dead_code, reason = "it describes what another type writes")]
pub struct Receipt {
    pub suite: String,
    /// The id of the invocation that was recorded: the same for the same report of the same commit, which so counts
    /// once.
    pub invocation: String,
    /// `passed`, `failed`, `timed_out`, `skipped` or `infrastructure`.
    pub outcome: String,
    pub cases: u64,
    pub attempts: u64,
    pub failed: u64,
    pub left_out: u64,
}
