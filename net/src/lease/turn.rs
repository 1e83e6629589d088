//! A lease that is kept in a record.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout};

use super::state::{Fence, Lease, Next};

/// How often is read and written in one call where others write meanwhile.
const TRIES: u32 = 6;
/// When it makes sense to ask again after as many tries came to nothing.
const RESTLESS: Duration = Duration::from_secs(1);
/// How often whoever does something that takes its time asks whether he still may. Asking renews the lease where it is due,
/// and costs nothing otherwise.
const ASKS: Duration = Duration::from_secs(2);

/// One record that several processes share.
pub trait Slot: Send + Sync {
    type Error: Send;

    /// The record's version and its value; `None` where there is none.
    fn read(&self) -> impl Future<Output = Result<Option<(u64, Vec<u8>)>, Self::Error>> + Send;

    /// Writes it where it has this version (`None`: where there is none), in one round trip. Gives its new version;
    /// nothing where somebody else has written.
    fn swap(
        &self,
        expected: Option<u64>,
        value: Vec<u8>,
    ) -> impl Future<Output = Result<Option<u64>, Self::Error>> + Send;
}

/// Which process has the lease, as far as one that asks for it has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// This process has its turn, under an epoch that grows with each process whose turn it becomes.
    Held(u64),
    /// Another process has its turn. It makes no sense to ask again for so long.
    Elsewhere(Duration),
}

/// One process's part in a lease. The tasks of the process share it.
pub struct Turn<S> {
    slot: S,
    lease: Mutex<Lease>,
    /// Times are counted from here, by a clock that nobody sets.
    began: Instant,
}

impl<S: Slot> Turn<S> {
    /// `holder` is this process's alone, and not empty. After `term` without a word of the holder another one's turn comes.
    pub fn new(slot: S, holder: String, term: Duration) -> Self {
        Self { slot, lease: Mutex::new(Lease::new(holder, term)), began: Instant::now() }
    }

    /// Takes or renews it. That costs nothing while half of the term is left or it is known that another one has it, and
    /// one round trip otherwise, unless somebody else has written.
    pub async fn take(&self) -> Result<Standing, S::Error> {
        let mut lease = self.lease.lock().await;
        for _ in 0..TRIES {
            match lease.next(self.began.elapsed()) {
                Next::Held(epoch) => return Ok(Standing::Held(epoch)),
                Next::Elsewhere(pause) => return Ok(Standing::Elsewhere(pause)),
                Next::Read => {
                    let found = self.slot.read().await?;
                    let found = found.as_ref().map(|(version, value)| (*version, value.as_slice()));
                    lease.saw(found, self.began.elapsed());
                }
                Next::Write(claim) => {
                    let sent = self.began.elapsed();
                    let written = self.slot.swap(claim.expected, claim.value.clone()).await;
                    match &written {
                        Ok(Some(version)) => lease.written(&claim, *version, sent),
                        Ok(None) => lease.lost(),
                        // What was written before holds all the same.
                        Err(_) => {}
                    }
                    if let Some(epoch) = lease.holds(self.began.elapsed()) {
                        return Ok(Standing::Held(epoch));
                    }
                    written?;
                }
            }
        }
        Ok(Standing::Elsewhere(RESTLESS))
    }

    /// Whether it is this process's turn, which it then is for nearly half of the term at least. To be asked before each
    /// single thing that one alone is to do.
    pub async fn is_mine(&self) -> Result<bool, S::Error> {
        Ok(matches!(self.take().await?, Standing::Held(_)))
    }

    /// How much longer it is this process's turn, as far as it knows without asking. Nothing where it is not. Whoever asks
    /// and does not hear in this time has lost it.
    pub async fn left(&self) -> Option<Duration> {
        self.lease.lock().await.left(self.began.elapsed())
    }

    /// Returns before it may be another process's turn, for whoever is to be cut off then. `may` asks whether it still is this
    /// one's, and renews that; its term is several seconds. Errors: `may` was not answered in time.
    pub async fn until_lost<F: Future<Output = bool>>(
        &self,
        may: impl Fn() -> F,
    ) -> Result<(), Elapsed> {
        while let Some(left) = self.left().await {
            let asks = async {
                sleep(ASKS).await;
                may().await
            };
            if !timeout(left, asks).await? {
                break;
            }
        }
        Ok(())
    }

    /// Does something that takes its time. `None`: it was not begun, or was cut off, because it may be another process's turn
    /// by now. `may` is what [`Turn::until_lost`] asks. Errors: `may` was not answered in time, and the work was cut off.
    pub async fn doing<T, F: Future<Output = bool>>(
        &self,
        may: impl Fn() -> F,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>, Elapsed> {
        if !may().await {
            return Ok(None);
        }
        tokio::select! {
            biased;
            // First, so that after a pause of the whole process no further step is taken in a turn that is over.
            lost = self.until_lost(may) => lost.map(|()| None),
            done = work => Ok(Some(done)),
        }
    }

    /// Takes or renews it, for writes that go along with the record. Nothing where another one has it. Whoever has written
    /// the record in this way says so with [`Turn::forget`] before it asks for anything else.
    pub async fn fence(&self) -> Result<Option<Fence>, S::Error> {
        let held = self.is_mine().await?;
        Ok(self.lease.lock().await.fence().filter(|_| held))
    }

    /// The record has been written by others than this.
    pub async fn forget(&self) {
        self.lease.lock().await.lost();
    }

    /// Gives up the lease, so that whoever asks next has it. It costs nothing where this process does not have it.
    pub async fn give_up(&self) -> Result<(), S::Error> {
        let mut lease = self.lease.lock().await;
        let Some(claim) = lease.give_up() else { return Ok(()) };
        if let Some(version) = self.slot.swap(claim.expected, claim.value.clone()).await? {
            lease.given_up(&claim, version);
        }
        Ok(())
    }
}
