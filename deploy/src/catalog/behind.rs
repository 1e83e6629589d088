//! Makes bytes on one thread and takes them on another: neither waits for what the other is doing.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use kiln_cas::StoreError;

/// Bytes that are handed over at once, and how many times so many wait.
const CHUNK: usize = 256 << 10;
const AHEAD: usize = 4;

/// What comes, chunk by chunk; `None`: that was all.
pub struct Chunks(Receiver<Option<Bytes>>);

impl Chunks {
    /// Hands each chunk to `take`. `false`: whoever makes them gave up in the middle.
    pub fn each(
        self,
        mut take: impl FnMut(Bytes) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        while let Ok(chunk) = self.0.recv() {
            match chunk {
                Some(chunk) => take(chunk)?,
                None => return Ok(true),
            }
        }
        Ok(false)
    }
}

struct Maker {
    chunk: Vec<u8>,
    sender: SyncSender<Option<Bytes>>,
}

impl Maker {
    fn send(&self, chunk: Option<Bytes>) -> io::Result<()> {
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody takes it any more");
        self.sender.send(chunk).map_err(gone)
    }

    fn hand_on(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        if chunk.is_empty() { Ok(()) } else { self.send(Some(chunk.into())) }
    }
}

impl Write for Maker {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(data);
        if self.chunk.len() >= CHUNK {
            self.hand_on()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `take` makes of everything that `write` writes. Errors: of the one who failed first.
pub fn behind<T: Send, E: From<StoreError>>(
    write: &mut dyn FnMut(&mut dyn Write) -> Result<(), E>,
    take: impl FnOnce(Chunks) -> Result<Option<T>, StoreError> + Send,
) -> Result<T, E> {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(AHEAD);
        let taking = scope.spawn(move || take(Chunks(receiver)));
        let mut maker = Maker { chunk: Vec::with_capacity(CHUNK), sender };
        let written = write(&mut maker).map(|()| {
            // Whoever takes says itself why it takes no more.
            maker.hand_on().and_then(|()| maker.send(None)).ok();
        });
        drop(maker);
        let ended = || StoreError::unavailable("a thread ended");
        match (taking.join().unwrap_or_else(|_| Err(ended())), written) {
            (Ok(Some(taken)), Ok(())) => Ok(taken),
            (Err(error), _) => Err(error.into()),
            (Ok(_), Err(error)) => Err(error),
            (Ok(None), Ok(())) => Err(ended().into()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(chunks: Chunks) -> Result<Option<usize>, StoreError> {
        let mut bytes = 0;
        let whole = chunks.each(|chunk| {
            bytes += chunk.len();
            Ok(())
        })?;
        Ok(whole.then_some(bytes))
    }

    #[test]
    fn all_of_it_is_taken_or_it_is_said_who_failed() {
        let many = |out: &mut dyn Write| (0..100).try_for_each(|_| out.write_all(&[0; 100_000]));
        let all = behind(&mut |out| many(out).map_err(|it| StoreError::io("write", it)), count);
        assert_eq!(all.unwrap(), 10_000_000);
        let maker = behind(
            &mut |out| {
                many(out).map_err(|it| StoreError::io("write", it))?;
                Err(StoreError::invalid("the maker failed"))
            },
            count,
        );
        assert!(maker.unwrap_err().to_string().contains("the maker failed"));
        // The taker fails after one chunk, and the maker must not wait for it forever.
        let taker =
            behind(&mut |out| many(out).map_err(|it| StoreError::io("write", it)), |chunks| {
                chunks.each(|_| Err(StoreError::invalid("the taker failed"))).map(|_| Some(0))
            });
        assert!(taker.unwrap_err().to_string().contains("the taker failed"));
    }
}
