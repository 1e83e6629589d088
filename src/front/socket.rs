//! A connection's socket: acknowledgements in time, an end to clients that take no answer, and one that loses none.

use std::io;
use std::net::TcpStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use kiln_scheduler::presence::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream as TokioStream;
use tokio::time::Sleep;

use super::acks::Acks;
use super::linger::Linger;

pub struct Socket {
    stream: TokioStream,
    acks: Acks,
    /// The connection as services know it.
    connection: Connection,
    /// Why nothing more will come, for the next read: the client has closed its side, or an error.
    end: Option<Poll<io::Result<()>>>,
    /// How long a client may take nothing of what is sent to it.
    limit: Duration,
    /// The timer of `limit`: it runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// The wait for the client's end after this side was closed; `None`: this side is open.
    linger: Option<Linger>,
}

impl Socket {
    /// Call within a tokio runtime.
    pub fn new(stream: TcpStream, connection: Connection, limit: Duration) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let stream = TokioStream::from_std(stream)?;
        Ok(Self {
            stream,
            acks: Acks::default(),
            connection,
            end: None,
            limit,
            stalled: None,
            linger: None,
        })
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
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        }
        let linger = this.linger.get_or_insert_default();
        linger.poll(&mut this.stream, context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use kiln_scheduler::presence::OpenConnection;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_client_that_is_still_sending_reads_the_last_answer_and_can_write_until_it_closes() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut client = TokioStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let accepted = listener.accept().await.unwrap().0.into_std().unwrap();
        let open = OpenConnection::new();
        let limit = Duration::from_secs(60);
        let mut socket = Socket::new(accepted, open.connection(), limit).unwrap();
        client.write_all(b"unread").await.unwrap();
        let ending = tokio::spawn(async move {
            socket.write_all(b"the last answer").await.unwrap();
            socket.shutdown().await.unwrap();
        });
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "the last answer");
        // What resets a connection shows at the write after the next one.
        for _ in 0..3 {
            client.write_all(b"more").await.unwrap();
            tokio::task::yield_now().await;
        }
        drop(client);
        ending.await.unwrap();
    }
}
