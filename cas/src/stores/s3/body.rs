//! Request bodies out of the pieces in which a blob came: nothing is copied, and a retry begins
//! again at the first piece.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// The signature covers bodies up to this size. Hashing larger ones, whose digest is checked by
/// whoever reads them, would cost a core for every 1-2 GB/s.
const SIGNED: usize = 64 << 10;

pub fn body(pieces: &[Bytes]) -> ByteStream {
    if let [data] = pieces
        && data.len() <= SIGNED
    {
        return ByteStream::from(data.clone());
    }
    let pieces: Arc<[Bytes]> = pieces.into();
    ByteStream::new(SdkBody::retryable(move || {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        SdkBody::from_body_1_x(Pieces { pieces: pieces.clone(), next: 0, left })
    }))
}

struct Pieces {
    pieces: Arc<[Bytes]>,
    next: usize,
    left: u64,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(piece) = self.pieces.get(self.next).cloned() else { return Poll::Ready(None) };
        self.next += 1;
        self.left -= piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.next == self.pieces.len()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
