//! Workers and queue as they are now.

use axum::Json;
use axum::extract::State;
use kiln_scheduler::Snapshot;
use kiln_scheduler::snapshot::{OperationView, PropertySetView, WorkerView};
use serde::Serialize;

use crate::error::ApiError;
use crate::json::queue::{Operation, PropertySet, Worker};
use crate::state::WebState;

#[derive(Serialize, schemars::JsonSchema)]
pub struct Workers {
    #[schemars(with = "Vec<Worker>")]
    workers: Vec<WorkerView>,
    slots: u64,
    running: usize,
}

pub async fn workers(State(state): State<WebState>) -> Result<Json<Workers>, ApiError> {
    let Snapshot { workers, slots, running_count, .. } = state.queue.snapshot().await?;
    Ok(Json(Workers { workers, slots, running: running_count }))
}

#[derive(Serialize, schemars::JsonSchema)]
pub struct Queue {
    queue_depth: usize,
    running_count: usize,
    slots: u64,
    oldest_queued_ms: Option<u64>,
    draining: bool,
    /// The operations that have waited longest.
    #[schemars(with = "Vec<Operation>")]
    queued: Vec<OperationView>,
    #[schemars(with = "Vec<Operation>")]
    running: Vec<OperationView>,
    #[schemars(with = "Vec<PropertySet>")]
    property_sets: Vec<PropertySetView>,
}

pub async fn queue(State(state): State<WebState>) -> Result<Json<Queue>, ApiError> {
    let snapshot = state.queue.snapshot().await?;
    Ok(Json(Queue {
        queue_depth: snapshot.queue_depth,
        running_count: snapshot.running_count,
        slots: snapshot.slots,
        oldest_queued_ms: snapshot.oldest_queued_ms,
        draining: snapshot.draining,
        queued: snapshot.queued,
        running: snapshot.running,
        property_sets: snapshot.property_sets,
    }))
}
