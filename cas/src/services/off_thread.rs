//! Work on many bytes, away from the threads that serve connections.

use tonic::Status;

/// Work on fewer bytes is done where it is asked for: a trip to another thread costs more.
const WORTH_A_TRIP: u64 = 128 << 10;

/// Does `work`, which is about `bytes` bytes: elsewhere where it would hold up the other
/// connections of this thread.
pub async fn off_thread<T: Send + 'static>(
    bytes: u64,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    if bytes <= WORTH_A_TRIP {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Status::internal(format!("the work was not finished: {error}")))
}
