//! For which invocations a task works: the promises that the task makes are attributed to them.

use std::future::Future;

use super::invocations::Presence;

tokio::task_local! {
    /// Bits of the seats of those for whom a task works.
    static HOLDERS: u32;
}

/// The seats (a bit for each) of the invocations for which this task works now; 0: it works for none.
pub fn holders() -> u32 {
    HOLDERS.try_with(|holders| *holders).unwrap_or(0)
}

/// Runs `work`, and attributes the promises that it makes before it returns to the invocation of `present`.
pub fn on_behalf_now<T>(present: &Presence, work: impl FnOnce() -> T) -> T {
    HOLDERS.sync_scope(present.holders(), work)
}

/// Attributes the promises that `work` makes on the task that polls it to the invocation of `present`; `None`:
/// they are attributed to no invocation.
pub async fn on_behalf<F: Future>(present: Option<&Presence>, work: F) -> F::Output {
    HOLDERS.scope(present.map_or(0, Presence::holders), work).await
}
