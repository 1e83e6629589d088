//! Bodies of requests that end with an error when their client sends nothing for too long.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use kiln_net::counts::duration;
use tokio::time::Sleep;

/// Methods whose clients may be silent for long: a worker with nothing to do, a log that nobody writes to, a
/// build in which nothing ends.
/// Keep-alive tells whether the client is there.
const SILENT: [&str; 3] = [
    "/kiln.worker.v1.Workers/Session",
    "/google.bytestream.ByteStream/Write",
    "/google.devtools.build.v1.PublishBuildEvent/PublishBuildToolEventStream",
];

/// A body that ends with an error when nothing of it comes for too long while it is waited for.
pub struct Expected<B> {
    body: B,
    limit: Duration,
    /// Whether the client may be silent once the body has begun.
    may_be_silent: bool,
    /// The limit to silence: it runs while the next part of the body is waited for.
    waits: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, thiserror::Error)]
pub enum BodyError<E> {
    #[error("nothing of the request's body came for {} (server.body_timeout)", duration(*.0))]
    Late(Duration),
    #[error(transparent)]
    Body(E),
}

impl<B> Expected<B> {
    /// Limits a body's silence to `limit`. With `is_http2` the connection shows by itself whether
    /// the client is there.
    pub fn new(body: B, path: &str, is_http2: bool, limit: Duration) -> Self {
        let may_be_silent = is_http2 && SILENT.contains(&path);
        Self { body, limit, may_be_silent, waits: None }
    }
}

impl<B: Body + Unpin> Body for Expected<B> {
    type Data = B::Data;
    type Error = BodyError<B::Error>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BodyError<B::Error>>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(frame) = polled {
            self.waits = None;
            if self.may_be_silent {
                self.limit = Duration::MAX;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Body)));
        }
        let limit = self.limit;
        if limit == Duration::MAX {
            return Poll::Pending;
        }
        let sleep = || Box::pin(tokio::time::sleep(limit));
        let late = self.waits.get_or_insert_with(sleep).as_mut().poll(context);
        late.map(|()| Some(Err(BodyError::Late(limit))))
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
    use std::convert::Infallible;

    use axum::body::Bytes;
    use futures_util::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);

    /// Whether a body of one part and then nothing ends with an error.
    async fn ends(path: &str, is_http2: bool) -> bool {
        let part = Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"part")));
        let parts = stream::iter([part]).chain(stream::pending());
        let mut body = Expected::new(StreamBody::new(parts), path, is_http2, LIMIT);
        assert!(body.frame().await.unwrap().is_ok());
        match tokio::time::timeout(6 * LIMIT, body.frame()).await {
            Ok(Some(Err(BodyError::Late(LIMIT)))) => true,
            Err(_) => false,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn only_streams_that_have_a_reason_may_be_silent() {
        assert!(ends("/cas/x", false).await);
        assert!(ends("/build.bazel.remote.execution.v2.Execution/Execute", true).await);
        for silent in SILENT {
            assert!(!ends(silent, true).await);
            assert!(ends(silent, false).await, "HTTP/1 shows no sign of life");
        }
    }
}
