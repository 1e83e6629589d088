//! The first bytes of a connection, for which hyper would wait for ever: it cannot know yet whose time
//! limits hold, those of HTTP/1 or those of HTTP/2.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// The bytes that every HTTP/2 connection begins with (RFC 9113, section 3.4); no HTTP/1 request
/// does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream that ends with an error unless it has said in time which protocol it speaks.
pub struct Opening<S> {
    stream: S,
    /// Bytes of the preface that have come.
    matched: usize,
    /// `None`: the protocol is known.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Opening<S> {
    pub fn new(stream: S, limit: Duration) -> Self {
        Self { stream, matched: 0, deadline: Some(Box::pin(tokio::time::sleep(limit))) }
    }

    fn came(&mut self, data: &[u8]) {
        let rest = &PREFACE[self.matched..];
        let common = rest.iter().zip(data).take_while(|(expected, came)| expected == came).count();
        self.matched += common;
        if self.matched == PREFACE.len() || common < data.len() {
            self.deadline = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(deadline) = &mut self.deadline else { return polled };
        if polled.is_pending() {
            let late = || io::Error::new(io::ErrorKind::TimedOut, "no request came in time");
            return deadline.as_mut().poll(context).map(|()| Err(late()));
        }
        self.came(&buffer.filled()[before..]);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opening<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);

    /// Whether the stream lives on long after the limit when these parts came.
    async fn lives(parts: &[&[u8]]) -> bool {
        let (mut client, server) = duplex(1024);
        let mut opening = Opening::new(server, LIMIT);
        let mut buffer = [0; 64];
        for part in parts {
            client.write_all(part).await.unwrap();
            opening.read_exact(&mut buffer[..part.len()]).await.unwrap();
        }
        tokio::time::timeout(6 * LIMIT, opening.read(&mut buffer)).await.is_err()
    }

    #[tokio::test]
    async fn who_does_not_say_what_it_speaks_is_given_up() {
        assert!(!lives(&[]).await);
        assert!(!lives(&[&PREFACE[..23]]).await);
        assert!(!lives(&[b"P", b"R", b"I"]).await);
        for known in [PREFACE, b"GET", b"PRIX", b"PUT /ac"] {
            assert!(lives(&[known]).await);
        }
        assert!(lives(&[&PREFACE[..10], &PREFACE[10..]]).await);
    }
}
