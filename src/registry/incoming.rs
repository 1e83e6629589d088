//! Bodies of requests. What is refused before it was read is read on a little: a client that still sends would else
//! find its connection closed, and not why.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body as HttpBody, BodyDataStream, Bytes};
use futures_util::{Stream, StreamExt};
use kiln_deploy::registry::store::{Body, BrokenOff};

/// Bytes that are read of a body that is not wanted any more, and how long that may take.
const READ_ON: usize = 1 << 20;
const READ_ON_FOR: Duration = Duration::from_secs(2);

/// A body that two hold, of whom one reads at a time.
#[derive(Clone)]
pub struct Incoming(Arc<Mutex<BodyDataStream>>);

impl Incoming {
    pub fn new(body: HttpBody) -> Self {
        Self(Arc::new(Mutex::new(body.into_data_stream())))
    }

    pub fn body(&self) -> Body {
        Box::pin(self.clone())
    }

    /// Reads what a client still sends, if it is little.
    pub async fn read_on(mut self) {
        let reading = async {
            let mut bytes = 0;
            while let Some(Ok(data)) = self.next().await {
                bytes += data.len();
                if bytes > READ_ON {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(READ_ON_FOR, reading).await;
    }
}

impl Stream for Incoming {
    type Item = Result<Bytes, BrokenOff>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let polled = stream.poll_next_unpin(context);
        polled.map(|data| data.map(|it| it.map_err(|error| BrokenOff(error.to_string()))))
    }
}
