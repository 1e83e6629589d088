//! Notices of a list in memory, under leases in records that may fall silent.

use std::cell::Cell;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use kiln_cas::records::{Record, Records, RecordsError, Version, Write};
use kiln_cas::stores::MemoryRecords;
use tokio::time::{Instant, advance, sleep, timeout};

use super::*;

const PACE: Pace = Pace { look: Duration::from_secs(10), term: Duration::from_secs(60) };

/// Records that answer nobody any more once they have fallen silent.
#[derive(Default)]
struct Silent {
    inner: MemoryRecords,
    fell: AtomicBool,
}

impl Silent {
    async fn heard(&self) {
        if self.fell.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
    }
}

#[async_trait]
impl Records for Silent {
    async fn get(&self, key: &str) -> Result<Option<Record>, RecordsError> {
        self.heard().await;
        self.inner.get(key).await
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Version>, RecordsError> {
        self.heard().await;
        self.inner.write(writes).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Record>, RecordsError> {
        self.heard().await;
        self.inner.list(prefix, after, reverse, limit).await
    }
}

/// What is to be told, by numbers, to somebody who hears no number of `deaf` and never answers to 0, where records fall silent.
#[derive(Default)]
struct Board {
    records: Arc<Silent>,
    left: Mutex<Vec<u32>>,
    deaf: Vec<u32>,
    tried: Mutex<Vec<u32>>,
}

#[async_trait]
impl Notices for Arc<Board> {
    type Notice = u32;
    type Error = RecordsError;
    const CALLED: &'static str = "a number";
    const LEASE: &'static str = "numbers/telling";

    async fn waiting(&self, most: usize) -> Result<Vec<u32>, RecordsError> {
        Ok(self.left.lock().unwrap().iter().take(most).copied().collect())
    }

    fn which(&self, notice: &u32) -> String {
        notice.to_string()
    }

    async fn tell(&self, notice: &u32) -> Result<(), String> {
        self.tried.lock().unwrap().push(*notice);
        if *notice == 0 {
            self.records.fell.store(true, Ordering::Relaxed);
            pending::<()>().await;
        }
        match self.deaf.contains(notice) {
            true => Err("nobody hears it".to_owned()),
            false => Ok(()),
        }
    }

    async fn told(&self, notice: &u32) -> Result<(), RecordsError> {
        self.left.lock().unwrap().retain(|it| it != notice);
        Ok(())
    }
}

impl Board {
    fn new(left: &[u32], deaf: &[u32]) -> Arc<Self> {
        let (left, deaf) = (Mutex::new(left.to_vec()), deaf.to_vec());
        Arc::new(Self { left, deaf, ..Self::default() })
    }

    fn telling(self: &Arc<Self>, name: &str) -> Telling<Arc<Self>> {
        let records: SharedRecords = self.records.clone();
        Telling::new(self.clone(), PACE, (&records, name))
    }

    fn left(&self) -> Vec<u32> {
        self.left.lock().unwrap().clone()
    }

    fn tried(&self, notice: u32) -> usize {
        self.tried.lock().unwrap().iter().filter(|it| **it == notice).count()
    }
}

fn tries() -> Tries {
    Tries::new("a number", PACE.look)
}

#[tokio::test(start_paused = true)]
async fn what_is_told_is_cut_off_before_another_server_may_tell_it() {
    let board = Board::new(&[0], &[]);
    let (one, two) = (board.telling("one"), board.telling("two"));
    assert_eq!(one.doing(sleep(3 * PACE.term)).await, Some(()), "it renews its turn");
    assert_eq!(two.tell_all(&mut tries()).await, None);
    assert_eq!(board.tried(0), 0, "it is not its turn");
    let began = Instant::now();
    let done = timeout(2 * PACE.term, one.tell_all(&mut tries())).await;
    assert_eq!(done, Ok(None), "it goes on");
    assert!(began.elapsed() < PACE.term, "another one may tell by then");
    assert_eq!((board.tried(0), board.left()), (1, vec![0]), "it is not taken for told");
}

#[tokio::test(start_paused = true)]
async fn no_further_step_is_taken_once_the_turn_is_over() {
    // Chance would decide about each.
    for _ in 0..20 {
        let board = Board::new(&[], &[]);
        let telling = board.telling("one");
        let went_on = Cell::new(false);
        let work = async {
            sleep(PACE.term).await;
            went_on.set(true);
        };
        let pause = async {
            board.records.fell.store(true, Ordering::Relaxed);
            advance(2 * PACE.term).await;
        };
        let (done, ()) = tokio::join!(telling.doing(work), pause);
        assert_eq!((done, went_on.get()), (None, false));
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_hears_is_given_up_at_last_and_holds_up_no_other_for_ever() {
    let board = Board::new(&[1, 2], &[1]);
    let telling = board.telling("one");
    assert!(telling.tell_all(&mut tries()).await.is_some(), "it is not tried again");
    assert_eq!((board.tried(1), board.tried(2)), (1, 0), "they are told in their order");
    timeout(Duration::from_secs(3_600), telling.keep_told()).await.unwrap_err();
    assert_eq!((board.tried(1), board.tried(2)), (11, 1));
    assert!(board.left().is_empty());
    assert!(board.telling("two").is_mine().await, "its turn is over where all is told");
}

#[test]
fn a_notice_that_is_heard_late_leaves_the_next_one_all_its_tries() {
    let mut tries = tries();
    let unheard = || Err("no".to_owned());
    for _ in 0..2 {
        for _ in 1..TRIES {
            assert!(tries.after(unheard(), "1").is_some());
        }
        assert_eq!(tries.after(Ok(()), "1"), None);
    }
    for at in 1..=TRIES {
        assert_eq!(tries.after(unheard(), "2").is_some(), at < TRIES, "{at}");
    }
}
