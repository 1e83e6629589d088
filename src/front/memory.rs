//! Charges requests for the memory of their bodies.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::{BoxError, http::Request};
use http_body::{Frame, SizeHint};
use kiln_cas::budget::{Charge, Share};
use kiln_cas::services::budget_status;

use crate::auth::permissions::{IMPORT, REGISTRY};

/// Bytes of memory that a message may take once it is decoded, for each of its own bytes.
const DECODED: u64 = 8;
/// Services that charge what they hold themselves, message by message and blob by blob.
const CHARGING: [&str; 8] = [
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/",
    "/google.bytestream.ByteStream/",
    "/build.bazel.remote.execution.v2.ActionCache/",
    "/build.bazel.remote.asset.v1.",
    // Streams for as long as a worker is there, with a limit to each message.
    "/kiln.worker.v1.Workers/",
    // Streams for as long as a build takes; what waits to be written is charged.
    "/google.devtools.build.v1.PublishBuildEvent/PublishBuildToolEventStream",
    // Reports are read as they come.
    IMPORT,
    // Blobs are taken in pieces.
    REGISTRY,
];

/// The share of memory that a request holds until it is answered.
pub type Held = Option<Arc<Mutex<Charge>>>;

/// Puts the share of whoever sent the request into its extensions, for those who charge by
/// themselves; of other requests the body is charged here as it arrives.
pub fn charged<B>(mut request: Request<B>, share: &Share) -> (Request<Body>, Held)
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    request.extensions_mut().insert(share.clone());
    if charges_itself(request.uri().path()) || request.body().is_end_stream() {
        return (request.map(Body::new), None);
    }
    let held = Arc::new(Mutex::new(Charge::of(request.extensions())));
    let charge = held.clone();
    (request.map(|body| Body::new(Charged { body, charge, bytes: 0 })), Some(held))
}

fn charges_itself(path: &str) -> bool {
    CHARGING.iter().any(|service| path.starts_with(service))
        || path.contains("/cas/")
        || path.contains("/ac/")
}

/// A body that is read whole before its request is answered.
struct Charged<B> {
    body: B,
    charge: Arc<Mutex<Charge>>,
    bytes: u64,
}

impl<B> http_body::Body for Charged<B>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other.map(|frame| frame.map_err(Into::into))),
        };
        self.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
        let mut charge = self.charge.lock().unwrap_or_else(PoisonError::into_inner);
        let grown = charge.try_grow_to(self.bytes * DECODED);
        Poll::Ready(Some(grown.map(|()| frame).map_err(|error| budget_status(&error).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};
    use kiln_cas::budget::{Budget, MIN_BUDGET};
    use tonic::{Code, Status};

    use super::*;

    fn request(
        path: &str,
        pieces: usize,
    ) -> Request<impl http_body::Body<Data = Bytes, Error = BoxError> + Unpin> {
        let piece = || Ok::<_, BoxError>(Frame::data(Bytes::from(vec![0; 1 << 20])));
        let pieces = futures_util::stream::iter(std::iter::repeat_with(piece).take(pieces));
        Request::builder().uri(path).body(StreamBody::new(pieces)).unwrap()
    }

    #[tokio::test]
    async fn many_requests_that_never_end_hold_no_more_than_a_share() {
        let budget = Budget::new(MIN_BUDGET);
        let share = budget.share(None);
        let execute = "/build.bazel.remote.execution.v2.Execution/Execute";
        let (mut held, mut refused) = (Vec::new(), 0);
        for _ in 0..300 {
            let (request, charge) = charged(request(execute, 3), &share);
            match request.into_body().collect().await {
                Ok(body) => held.push((body, charge)),
                Err(error) => {
                    let status = Status::from_error(error.into());
                    assert_eq!(status.code(), Code::Unavailable, "{status}");
                    refused += 1;
                }
            }
        }
        assert_eq!((held.len(), refused), (5, 295));
        assert!(budget.snapshot().used_bytes <= MIN_BUDGET / 2);
        drop(held);
        assert_eq!(budget.snapshot().used_bytes, 0);
    }

    #[tokio::test]
    async fn who_charges_itself_finds_its_share() {
        let budget = Budget::new(MIN_BUDGET);
        let path = "/google.bytestream.ByteStream/Write";
        let (request, charge) = charged(request(path, 3), &budget.share(None));
        assert!(charge.is_none() && request.extensions().get::<Share>().is_some());
        request.into_body().collect().await.unwrap();
        assert_eq!(budget.snapshot().used_bytes, 0);
    }
}
