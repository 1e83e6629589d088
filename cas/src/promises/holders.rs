//! For whom a task works: promises that it makes are attributed to them.

use std::future::Future;

use super::invocations::Presence;

tokio::task_local! {
    /// Bits of the seats of those for whom a task works.
    static HOLDERS: u32;
}

/// Bits of the seats to which promises are attributed that this task makes now; 0: nobody's.
pub fn holders() -> u32 {
    HOLDERS.try_with(|holders| *holders).unwrap_or(0)
}

/// Attributes the promises that `work` makes before it returns to whoever is present.
pub fn on_behalf_now<T>(present: &Presence, work: impl FnOnce() -> T) -> T {
    HOLDERS.sync_scope(present.holders(), work)
}

/// Attributes the promises that `work` makes on its own task to whoever is present.
pub async fn on_behalf<F: Future>(present: Option<&Presence>, work: F) -> F::Output {
    HOLDERS.scope(present.map_or(0, Presence::holders), work).await
}
