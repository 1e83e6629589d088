//! A history of tests in memory.

use std::sync::Arc;

use kiln_cas::events::Events;
use kiln_ci::history::Tap;
use kiln_ci::model::Time;
use kiln_ci::quarantine::Policy;
use kiln_ci::services::{Admit, Charge, Clock};
use kiln_ci::storage::memory::Memory;
use kiln_ci::storage::{Records, StorageError, Write};
use kiln_ci::verdicts::{
    Answers, Book, Inbox, Judging, Ledger, Note, Owners, Survey, VerdictParts, Verdicts,
};
use kiln_ci::{CiOptions, CiParts, CiServices};
use tonic::{Extensions, Status};

/// Everybody may do everything, at the end of time.
struct Anybody;

impl Admit for Anybody {
    fn admit(&self, _: &Extensions, project: &str) -> Result<String, Status> {
        Ok(project.to_owned())
    }

    fn name(&self, _: &Extensions) -> Option<String> {
        None
    }

    fn charge(&self, _: &Extensions) -> Box<dyn Charge> {
        Box::new(Self)
    }
}

impl Charge for Anybody {
    fn hold(&mut self, _: u64) -> Result<(), Status> {
        Ok(())
    }
}

impl Clock for Anybody {
    fn now(&self) -> Time {
        Time(u64::try_from(super::now() / 1_000_000).unwrap_or(0))
    }
}

pub fn services(events: &Events) -> CiServices {
    on(&Memory::default(), events, None)
}

fn on(memory: &Memory, events: &Events, tap: Option<Arc<dyn Tap>>) -> CiServices {
    let parts = CiParts {
        segments: Arc::new(memory.clone()),
        chunks: Arc::new(Memory::default()),
        records: Arc::new(memory.clone()),
        blobs: Arc::new(memory.clone()),
        admit: Arc::new(Anybody),
        clock: Arc::new(Anybody),
        executions: events.subscribe(),
        tap,
    };
    CiServices::start(CiOptions::default(), parts)
}

/// An audit log that nobody reads.
struct Unaudited(Memory);

#[async_trait::async_trait]
impl Ledger for Unaudited {
    async fn write(&self, _: Vec<Note>, writes: Vec<Write>) -> Result<(), StorageError> {
        self.0.write(writes).await
    }
}

/// Owners of tests, who are named after the test's package.
struct Packages;

impl Owners for Packages {
    fn owner(&self, label: &str) -> Option<String> {
        let package = label.strip_prefix("//")?.split(['/', ':']).next()?;
        (package != "db").then(|| format!("@{package}-team"))
    }
}

/// A quarantine in memory, in which nobody judges.
pub fn verdicts() -> Verdicts {
    let memory = Memory::default();
    let records = Arc::new(memory.clone());
    let ledger = Arc::new(Unaudited(memory));
    let book = Book::new(records.clone(), ledger, Policy::default(), false);
    let survey = Survey::new(records.clone());
    let answers = Answers::new(records, book.clone(), false);
    Verdicts { book, answers, survey, owners: Arc::new(Packages), judging: None }
}

/// Services and verdicts as above, with somebody who judges at once what is committed.
pub fn judging() -> (CiServices, Verdicts) {
    let (memory, inbox) = (Memory::default(), Inbox::default());
    let services = on(&memory, &Events::new(), Some(Arc::new(inbox.clone())));
    let records = Arc::new(memory.clone());
    let ledger = Arc::new(Unaudited(memory));
    let book = Book::new(records.clone(), ledger.clone(), Policy::default(), false);
    let parts = VerdictParts {
        records: records.clone(),
        ledger,
        history: services.history.clone(),
        streams: services.streams.clone(),
        reruns: Arc::new(super::flakes::Busy),
        owners: Arc::new(Packages),
        teller: None,
        clock: services.clock.clone(),
        name: "a server".to_owned(),
    };
    let judging = Judging::start(super::flakes::at_once(), parts, inbox, book.clone());
    let verdicts = Verdicts {
        answers: Answers::new(records.clone(), book.clone(), true),
        survey: Survey::new(records),
        owners: Arc::new(Packages),
        judging: Some(judging),
        book,
    };
    (services, verdicts)
}
