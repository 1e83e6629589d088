//! A connection's socket: acknowledgements in time, and an end to clients that take no answer.

use std::io;
use std::net::TcpStream;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use kiln_scheduler::presence::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream as TokioStream;
use tokio::time::Sleep;

use super::acks::Acks;

pub struct Socket {
    stream: TokioStream,
    acks: Acks,
    /// The connection as services know it.
    connection: Connection,
    /// Why nothing more will come, for the next read: the client has closed its side, or an error.
    end: Option<Poll<io::Result<()>>>,
    /// How long a client may take nothing of what is sent to it.
    limit: Duration,
    /// The limit to that: it runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    /// Call within a tokio runtime.
    pub fn new(stream: TcpStream, connection: Connection, limit: Duration) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let stream = TokioStream::from_std(stream)?;
        Ok(Self { stream, acks: Acks::default(), connection, end: None, limit, stalled: None })
    }

    fn written(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Ready(result) => {
                self.acks.wrote();
                self.stalled = None;
                Poll::Ready(result)
            }
            Poll::Pending => {
                let sleep = || Box::pin(tokio::time::sleep(self.limit));
                let late = self.stalled.get_or_insert_with(sleep).as_mut().poll(context);
                late.map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "it takes no answer")))
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(end) = self.end.take() {
            self.connection.silent();
            return end;
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        match &polled {
            Poll::Ready(Ok(())) if buffer.filled().len() > before => self.acks.read(Instant::now),
            // What came just before, such as the reset of a stream, is to show in its place first: tasks run in
            // the order of their waking.
            Poll::Ready(_) if buffer.remaining() > 0 => {
                self.end = Some(polled);
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(_) => {}
            Poll::Pending => {
                if self.acks.drained(Instant::now) {
                    // It only costs time where it is not possible.
                    let _ = self.stream.set_quickack(true);
                }
            }
        }
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, data);
        self.written(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, data);
        self.written(context, polled)
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
