//! What a server under measurement holds already, so that nothing is uploaded twice.

use std::sync::Arc;

use kiln_protos::reapi;

/// The blobs and results that a target holds already.
#[derive(Default)]
pub struct Prepared {
    pub small: bool,
    pub large: bool,
    pub filled: u64,
    pub hits: Option<Arc<Hits>>,
    pub execution: Executions,
}

/// Actions with a result in the cache, and the result that each of them must have.
pub struct Hits {
    pub actions: Vec<reapi::Digest>,
    pub expected: reapi::ActionResult,
}

/// What earlier bursts have shown about a target's executions.
#[derive(Default)]
pub struct Executions {
    /// The most executions a second so far; `None`: none was measured yet.
    pub rate: Option<f64>,
}
