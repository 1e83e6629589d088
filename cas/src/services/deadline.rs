//! Deadlines: a call to which its client gives a time (`grpc-timeout`) ends with DEADLINE_EXCEEDED when
//! that is over, also in the middle of a stream. Not every client library ends it by itself.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;

const TIMEOUT: &str = "grpc-timeout";
/// Most digits that a timeout has (gRPC over HTTP/2: `TimeoutValue`).
const MAX_DIGITS: usize = 8;

/// A gRPC service that keeps its clients' deadlines.
#[derive(Debug, Clone)]
pub struct Deadlines<S>(pub S);

impl<S: NamedService> NamedService for Deadlines<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<B>> for Deadlines<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Unpin>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let at = timeout(request.headers()).and_then(|time| Instant::now().checked_add(time));
        DeadlineFuture { inner: self.0.call(request), alarm: at.map(Alarm::new) }
    }
}

/// What the client allows; what cannot be read counts as nothing.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > MAX_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3_600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Set only once something has to be waited for: most calls are answered at once.
struct Alarm {
    at: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    fn new(at: Instant) -> Self {
        Self { at, sleep: None }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        let at = self.at;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        ready!(sleep.as_mut().poll(context));
        Poll::Ready(Status::deadline_exceeded(
            "the time that the client gave this call (grpc-timeout) is over",
        ))
    }
}

/// The call until its response begins.
pub struct DeadlineFuture<F> {
    inner: F,
    alarm: Option<Alarm>,
}

impl<F> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Poll::Ready(Ok(response)) = Pin::new(&mut this.inner).poll(context) {
            return Poll::Ready(Ok(match this.alarm.take() {
                Some(alarm) => response.map(|body| limited(body, alarm)),
                None => response,
            }));
        }
        let Some(alarm) = &mut this.alarm else { return Poll::Pending };
        alarm.poll(context).map(|status| Ok(status.into_http()))
    }
}

fn limited(body: Body, alarm: Alarm) -> Body {
    if body.is_end_stream() {
        return body;
    }
    Body::new(Limited { inner: Some(body), alarm })
}

/// A response body that ends with the deadline at the latest.
struct Limited {
    /// `None`: it ended before its time.
    inner: Option<Body>,
    alarm: Alarm,
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(inner).poll_frame(context) {
            return Poll::Ready(frame);
        }
        let status = ready!(self.alarm.poll(context));
        self.inner = None;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use http_body_util::{BodyExt, StreamBody};
    use tonic::Code;

    use super::*;

    type SlowFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    /// Answers after a while; then the body sends a frame, and another after the same time.
    #[derive(Clone)]
    struct Slow(Duration);

    impl Service<Request<()>> for Slow {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = SlowFuture;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> SlowFuture {
            let time = self.0;
            Box::pin(async move {
                tokio::time::sleep(time).await;
                let frames =
                    futures_util::stream::iter(["one", "two"]).then(move |text| async move {
                        tokio::time::sleep(time).await;
                        Ok::<_, Status>(Frame::data(Bytes::from_static(text.as_bytes())))
                    });
                Ok(Response::new(Body::new(StreamBody::new(Box::pin(frames)))))
            })
        }
    }

    async fn call(slow: u64, timeout: &str) -> (Option<Code>, String) {
        let request = Request::builder().header(TIMEOUT, timeout).body(()).unwrap();
        let response = Deadlines(Slow(Duration::from_millis(slow))).call(request).await.unwrap();
        let at_once = Status::from_header_map(response.headers()).map(|status| status.code());
        let body = response.into_body().collect().await.unwrap();
        let later = body.trailers().and_then(Status::from_header_map).map(|status| status.code());
        let data = body.to_bytes();
        (at_once.or(later), String::from_utf8(data.to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_with_its_deadline_wherever_it_is() {
        let exceeded = Some(Code::DeadlineExceeded);
        assert_eq!(call(100, "50m").await, (exceeded, String::new()), "before the answer");
        assert_eq!(call(100, "150m").await, (exceeded, String::new()), "before the first frame");
        assert_eq!(call(100, "250000u").await, (exceeded, "one".into()), "between two");
        assert_eq!(call(100, "1S").await, (None, "onetwo".into()));
        assert_eq!(call(100, "99999999H").await, (None, "onetwo".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_read_is_no_deadline() {
        for rubbish in ["", "m", "5", "-5m", "5x", "123456789m", "5 m", "+5m"] {
            assert_eq!(call(100, rubbish).await, (None, "onetwo".into()), "{rubbish:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_at_once_is_not_too_late() {
        assert_eq!(call(0, "0n").await, (None, "onetwo".into()));
        let body = limited(Body::empty(), Alarm::new(Instant::now()));
        assert!(body.is_end_stream());
    }
}
