//! Changes of the quarantine on their way to somebody outside: one after the other, each until it was heard or
//! given up. The server that decides tells them, under a lease of their own: what it tells is cut off before another
//! server may tell it, and nothing is told by one that was paused while another one took over.

use std::sync::Arc;
use std::time::Duration;

use kiln_net::Backoff;
use kiln_net::causes::chain;
use tokio::time::Instant;

use super::book::Book;
use super::error::VerdictError;
use super::keys;
use super::ledger::Teller;
use super::parts::VerdictParts;
use super::store::{TERM, delete};
use crate::quarantine::Change;
use crate::storage::{LeaseRecord, Record, RecordTurn, Records};

/// How often one change is told at most, and how long is waited after it could not be, at first and at most.
const TRIES: u32 = 10;
const PAUSES: Backoff = Backoff::new(Duration::from_secs(4), Duration::from_secs(300));
/// How long somebody outside may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often it is looked whether there is anything to tell.
const LOOK: Duration = Duration::from_secs(15);

pub struct Telling {
    records: Arc<dyn Records>,
    teller: Option<Arc<dyn Teller>>,
    turn: RecordTurn,
    book: Book,
    tries: u32,
    due: Instant,
}

impl Telling {
    pub fn new(parts: &VerdictParts, book: Book) -> Self {
        let (records, teller) = (parts.records.clone(), parts.teller.clone());
        let turn = LeaseRecord::new(records.clone(), keys::TELLING).turn(parts.name.clone(), TERM);
        Self { records, teller, turn, book, tries: 0, due: Instant::now() }
    }

    /// Tells changes for ever, where there is somebody to tell.
    pub async fn run(mut self) {
        let Some(teller) = self.teller.clone() else { return };
        loop {
            // What could not be told waits its time, whatever comes meanwhile.
            tokio::select! {
                () = tokio::time::sleep_until(self.due) => {}
                () = self.book.written(), if self.tries == 0 => {}
            }
            if let Err(error) = self.step(&*teller).await {
                let error = chain(&error);
                tracing::warn!(error, "it is not known what is to be told");
                self.due = Instant::now() + LOOK;
            }
        }
    }

    /// Tells the oldest change.
    async fn step(&mut self, teller: &dyn Teller) -> Result<(), VerdictError> {
        let Some(record) = self.next().await? else {
            self.due = Instant::now() + LOOK;
            return Ok(());
        };
        let told = match keys::decode::<Change>(&record.value) {
            Ok(change) => self.tell(teller, &change).await,
            Err(error) => {
                let (key, error) = (record.key.as_str(), chain(&error));
                tracing::error!(key, error, "a change that cannot be read is told to nobody");
                Some(Ok(()))
            }
        };
        match told {
            Some(told) => self.settle(record, told).await,
            None => {
                self.due = Instant::now() + LOOK;
                Ok(())
            }
        }
    }

    /// The oldest change, where it is this server's turn to tell it. Where nothing is left to tell, another server need not
    /// wait for its turn.
    async fn next(&self) -> Result<Option<Record>, VerdictError> {
        if self.oldest().await?.is_none() {
            self.turn.give_up().await?;
            return Ok(None);
        }
        // What was there before it was this server's turn may have been told by another one.
        match self.turn.is_mine().await? {
            true => self.oldest().await,
            false => Ok(None),
        }
    }

    async fn oldest(&self) -> Result<Option<Record>, VerdictError> {
        Ok(self.records.list(keys::NOTICES, None, false, 1).await?.pop())
    }

    /// Tells a change. Returns whether it was heard; `None`: it was not begun, or was cut off, because another server may
    /// tell it by now.
    async fn tell(&self, teller: &dyn Teller, change: &Change) -> Option<Result<(), String>> {
        let telling = async {
            let told = tokio::time::timeout(PATIENCE, teller.tell(change)).await;
            told.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
        };
        self.turn.doing(|| self.is_mine(), telling).await.unwrap_or_else(|_| {
            tracing::warn!("whoever tells changes of the quarantine could not renew that");
            None
        })
    }

    /// Whether it is this server's turn to tell, and no other's.
    async fn is_mine(&self) -> bool {
        self.turn.is_mine().await.unwrap_or_else(|error| {
            let error = chain(&error);
            tracing::warn!(error, "it is not known who tells changes of the quarantine");
            false
        })
    }

    async fn settle(
        &mut self,
        record: Record,
        told: Result<(), String>,
    ) -> Result<(), VerdictError> {
        if let Err(reason) = told {
            self.tries += 1;
            let pause = PAUSES.pause(self.tries);
            if self.tries < TRIES {
                tracing::info!(reason, ?pause, "a change of the quarantine could not be told");
                self.due = Instant::now() + pause;
                return Ok(());
            }
            tracing::warn!(
                reason,
                key = record.key,
                "a change of the quarantine is told to nobody"
            );
        }
        self.tries = 0;
        Ok(self.records.write(vec![delete(record.key)]).await?)
    }
}

#[cfg(test)]
#[path = "telling_tests.rs"]
mod tests;
