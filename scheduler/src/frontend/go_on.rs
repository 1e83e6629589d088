//! Work that is done at once where it need not wait.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use kiln_net::panics::caught;
use tokio::task::JoinHandle;

use crate::api::Unavailable;

/// The rest of a piece of work that had to wait.
pub type Rest<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Does `work` as far as that goes without waiting, which is all of it where the queue is in this
/// process.
pub fn begin<T>(work: impl Future<Output = T> + Send + 'static) -> Result<T, Rest<T>> {
    let mut work: Rest<T> = Box::pin(work);
    match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Ok(value),
        Poll::Pending => Err(work),
    }
}

/// Does `work` as far as that goes without waiting; a task of its own does the rest, even when the
/// caller goes away.
pub fn go_on<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, JoinHandle<T>> {
    begin(work).map_err(tokio::spawn)
}

/// A client that goes away in the middle must not leave a call half noticed.
pub async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Unavailable>> + Send + 'static,
) -> Result<T, Unavailable> {
    match go_on(caught(work)) {
        Ok(value) => value?,
        Err(task) => task.await.map_err(|error| Unavailable(error.to_string()))??,
    }
}
