//! Work on a stream of pieces beside its receipt: on another thread, in order, many pieces at a time, so that a
//! large upload does not hold up its neighbours.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::error::StoreError;

/// Batches that a thread works on before whoever else waits for one of its pool has a turn.
const IN_A_ROW: usize = 8;
/// Pieces of fewer bytes are copied together. Each piece keeps all of the memory that it arrived in, which has 128 KiB, and
/// costs some of its own: a million of one byte would hold far more than their bytes.
const SMALL: usize = 16 << 10;

type Work<T> = fn(&mut T, &[Bytes]) -> Result<(), StoreError>;

/// What is done with pieces, in batches.
pub struct Task<T> {
    /// What it is, for errors, e.g. `"hash a blob"`.
    pub name: &'static str,
    /// Bytes that are worth a trip to another thread.
    pub batch: usize,
    pub work: Work<T>,
}

/// Pieces on their way into a `T`. At most two batches are held: one is gathered while another is worked on. The
/// thread that is done with one takes the next itself where that is whole already: it would have nothing to do
/// until whoever receives the stream had been woken and had passed it on.
pub struct Stage<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    task: Task<T>,
    gathering: Mutex<Gathering<T>>,
    /// Told when a thread has taken a batch, and when it has ended.
    changed: Notify,
}

struct Gathering<T> {
    subject: Subject<T>,
    pieces: Vec<Bytes>,
    /// What came in small pieces after all of these.
    small: BytesMut,
    /// Of all pieces, small ones included.
    bytes: usize,
}

/// Where the `T` is.
enum Subject<T> {
    Idle(T),
    /// A thread has it, or it was given back for good.
    Away,
    /// The work on it failed.
    Lost(StoreError),
}

impl<T: Send + 'static> Stage<T> {
    pub fn new(subject: T, task: Task<T>) -> Self {
        let subject = Subject::Idle(subject);
        let (pieces, small) = (Vec::new(), BytesMut::new());
        let gathering = Mutex::new(Gathering { subject, pieces, small, bytes: 0 });
        Self { shared: Arc::new(Shared { task, gathering, changed: Notify::new() }) }
    }

    /// Adds a piece, and returns when there is room for the next one. Errors: those of the work on earlier pieces.
    pub async fn push(&mut self, piece: Bytes) -> Result<(), StoreError> {
        self.shared.lock().add(piece);
        while !self.pass_on()? {
            self.shared.changed.notified().await;
        }
        Ok(())
    }

    /// Begins to work on a batch that is whole. `false`: it has to wait for the one before.
    fn pass_on(&self) -> Result<bool, StoreError> {
        let mut gathering = self.shared.lock();
        if let Subject::Lost(error) = &gathering.subject {
            return Err(error.clone());
        }
        if gathering.bytes < self.shared.task.batch {
            return Ok(true);
        }
        let Some(subject) = gathering.take_subject() else { return Ok(false) };
        let batch = gathering.take_pieces();
        drop(gathering);
        let worker = Worker { shared: self.shared.clone(), ended: None };
        tokio::task::spawn_blocking(move || worker.run(subject, batch));
        Ok(true)
    }

    /// What was worked on, and the pieces that are still to be.
    pub async fn end(self) -> Result<(T, Vec<Bytes>), StoreError> {
        loop {
            if let Some(ended) = self.take_back()? {
                return Ok(ended);
            }
            self.shared.changed.notified().await;
        }
    }

    /// `None`: a thread works.
    fn take_back(&self) -> Result<Option<(T, Vec<Bytes>)>, StoreError> {
        let mut gathering = self.shared.lock();
        if let Subject::Lost(error) = &gathering.subject {
            return Err(error.clone());
        }
        let subject = gathering.take_subject();
        Ok(subject.map(|subject| (subject, gathering.take_pieces())))
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Gathering<T>> {
        self.gathering.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Gathering<T> {
    fn add(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        if piece.len() < SMALL {
            self.small.extend_from_slice(&piece);
            return;
        }
        self.join_small();
        self.pieces.push(piece);
    }

    fn join_small(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(std::mem::take(&mut self.small).freeze());
        }
    }

    fn take_pieces(&mut self) -> Vec<Bytes> {
        self.join_small();
        self.bytes = 0;
        std::mem::take(&mut self.pieces)
    }

    /// `None`: it is not here.
    fn take_subject(&mut self) -> Option<T> {
        match std::mem::replace(&mut self.subject, Subject::Away) {
            Subject::Idle(subject) => Some(subject),
            other => {
                self.subject = other;
                None
            }
        }
    }
}

/// A thread that works.
struct Worker<T> {
    shared: Arc<Shared<T>>,
    /// `None`: the work has not ended.
    ended: Option<Result<T, StoreError>>,
}

impl<T> Worker<T> {
    fn run(mut self, subject: T, batch: Vec<Bytes>) {
        self.ended = Some(self.work_off(subject, batch));
    }

    fn work_off(&self, mut subject: T, first: Vec<Bytes>) -> Result<T, StoreError> {
        let mut first = Some(first);
        for _ in 0..IN_A_ROW {
            let Some(batch) = first.take().or_else(|| self.next_batch()) else { break };
            (self.shared.task.work)(&mut subject, &batch)?;
        }
        Ok(subject)
    }

    /// What was gathered meanwhile, if it is whole.
    fn next_batch(&self) -> Option<Vec<Bytes>> {
        let mut gathering = self.shared.lock();
        if gathering.bytes < self.shared.task.batch {
            return None;
        }
        let batch = gathering.take_pieces();
        drop(gathering);
        self.shared.changed.notify_one();
        Some(batch)
    }
}

/// Gives back what it worked on. This runs after a panic as well, and where the runtime ends before the work began.
impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        let subject = match self.ended.take() {
            Some(Ok(subject)) => Subject::Idle(subject),
            Some(Err(error)) => Subject::Lost(error),
            None => {
                let context = self.shared.task.name.to_owned();
                Subject::Lost(StoreError::Io { context, reason: "it was cut off".into() })
            }
        };
        self.shared.lock().subject = subject;
        self.shared.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt as _;

    use super::*;

    const BATCH: usize = 10;

    /// Says when work on a batch begins, and waits until it may end.
    struct Gate {
        begun: mpsc::Sender<usize>,
        may_end: mpsc::Receiver<()>,
    }

    fn pass(gate: &mut Gate, pieces: &[Bytes]) -> Result<(), StoreError> {
        gate.begun.send(pieces.iter().map(Bytes::len).sum()).unwrap();
        gate.may_end.recv().unwrap();
        Ok(())
    }

    fn stage<T: Send + 'static>(subject: T, work: Work<T>) -> Stage<T> {
        Stage::new(subject, Task { name: "test a stage", batch: BATCH, work })
    }

    fn note_sizes(sizes: &mut Vec<usize>, pieces: &[Bytes]) -> Result<(), StoreError> {
        sizes.extend(pieces.iter().map(Bytes::len));
        Ok(())
    }

    fn fail(_: &mut (), _: &[Bytes]) -> Result<(), StoreError> {
        Err(StoreError::unavailable("it is gone"))
    }

    fn give_up(_: &mut (), _: &[Bytes]) -> Result<(), StoreError> {
        panic!("as this test wants it")
    }

    fn piece(size: usize) -> Bytes {
        Bytes::from(vec![0; size])
    }

    #[tokio::test]
    async fn a_thread_takes_the_next_batch_by_itself_and_leaves_others_their_turn() {
        let ((begun, begins), (end, may_end)) = (mpsc::channel(), mpsc::channel());
        let mut stage = stage(Gate { begun, may_end }, pass);
        stage.push(piece(4)).await.unwrap();
        stage.push(piece(7)).await.unwrap();
        assert_eq!(begins.recv().unwrap(), 11);
        for size in BATCH..BATCH + IN_A_ROW - 1 {
            let waits = stage.push(piece(size)).now_or_never();
            assert!(waits.is_none(), "two batches are held");
            // Nobody looks at the stage meanwhile.
            end.send(()).unwrap();
            assert_eq!(begins.recv().unwrap(), size);
        }
        assert!(stage.push(piece(BATCH)).now_or_never().is_none());
        end.send(()).unwrap();
        let (_gate, rest) = stage.end().await.unwrap();
        assert_eq!(rest, [piece(BATCH)], "another thread would have taken it");
        assert!(begins.try_recv().is_err());
    }

    #[tokio::test]
    async fn what_is_less_than_a_batch_is_left_to_whoever_ends_the_stage() {
        let mut stage = stage(Vec::new(), note_sizes);
        for size in [3, 7, 12, 1, 0, 2] {
            stage.push(piece(size)).await.unwrap();
        }
        let (sizes, rest) = stage.end().await.unwrap();
        assert_eq!(sizes, [10, 12], "small pieces are put together");
        assert_eq!(rest, [piece(3)]);
    }

    #[tokio::test]
    async fn small_pieces_do_not_keep_what_they_arrived_in() {
        let task = Task { name: "test a stage", batch: 1 << 20, work: note_sizes };
        let mut stage = Stage::new(Vec::new(), task);
        let arrived = Bytes::from((0..=250).cycle().take(128 << 10).collect::<Vec<u8>>());
        for at in 0..100 {
            stage.push(arrived.slice(at..at + 1)).await.unwrap();
        }
        assert!(arrived.is_unique(), "it is kept for a hundred bytes");
        stage.push(arrived.slice(100..100 + SMALL)).await.unwrap();
        stage.push(arrived.slice(100 + SMALL..101 + SMALL)).await.unwrap();
        let (_, rest) = stage.end().await.unwrap();
        assert_eq!(rest.iter().map(Bytes::len).collect::<Vec<_>>(), [100, SMALL, 1]);
        assert_eq!(rest.concat(), arrived[..101 + SMALL], "they are in their order");
    }

    #[tokio::test]
    async fn work_that_fails_or_panics_is_told_to_whoever_brings_more() {
        let works: [Work<()>; 2] = [fail, give_up];
        for (work, said) in works.into_iter().zip(["it is gone", "it was cut off"]) {
            let mut stage = stage((), work);
            stage.push(piece(BATCH)).await.unwrap();
            let error = stage.push(piece(BATCH)).await.unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            assert!(stage.push(piece(1)).await.is_err());
            let error = stage.end().await.unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
