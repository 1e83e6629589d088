//! The end of a connection: what still comes is read for a moment, and thrown away.
//!
//! A socket that is closed with bytes unread resets its connection. A client that is still sending then fails
//! to write, and gives the connection up without having read the last answers, such as why its stream ended.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;

/// How long a client may take to close its side after it was told that nothing more will come.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes that are thrown away at most; more than any window lets a client have on its way.
const MOST: usize = 16 << 20;
/// Bytes that are read at once.
const BUFFER: usize = 8 << 10;

/// Reads from a connection whose own side is closed.
#[derive(Default)]
pub struct Linger {
    limit: Option<Pin<Box<Sleep>>>,
    thrown_away: usize,
}

impl Linger {
    /// Ready when the client has closed its side or is lost, or has had its time or its bytes.
    pub fn poll(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let mut bytes = [MaybeUninit::uninit(); BUFFER];
        while self.thrown_away < MOST {
            let mut buffer = ReadBuf::uninit(&mut bytes);
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.thrown_away += buffer.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    let sleep = || Box::pin(tokio::time::sleep(LINGER));
                    return self.limit.get_or_insert_with(sleep).as_mut().poll(context);
                }
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncWriteExt, duplex, repeat};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_has_its_time_and_no_more() {
        let (mut server, _client) = duplex(64);
        let (began, mut linger) = (Instant::now(), Linger::default());
        poll_fn(|context| linger.poll(&mut server, context)).await;
        assert_eq!(began.elapsed(), LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_goes_on_sending_is_read_until_it_closes() {
        let (mut server, mut client) = duplex(64);
        let began = Instant::now();
        let sending = tokio::spawn(async move {
            client.write_all(&[0; 10 * BUFFER]).await.unwrap();
        });
        let mut linger = Linger::default();
        poll_fn(|context| linger.poll(&mut server, context)).await;
        sending.await.unwrap();
        assert_eq!((linger.thrown_away, began.elapsed()), (10 * BUFFER, Duration::ZERO));
    }

    #[tokio::test]
    async fn a_flood_ends() {
        let mut linger = Linger::default();
        poll_fn(|context| linger.poll(&mut repeat(0), context)).await;
        assert_eq!(linger.thrown_away, MOST);
    }
}
