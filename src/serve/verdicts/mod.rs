//! Verdicts about tests on the stores and the scheduler of a server.

mod audited;
mod options;
mod owners;
mod reruns;
mod told;

use std::sync::Arc;

use kiln_cas::stores::Storage;
use kiln_cas::stores::audit::AuditLog;
use kiln_ci::CiServices;
use kiln_ci::verdicts::{
    Answers, Book, Inbox, Judging, Owners, Survey, Teller, VerdictParts, Verdicts,
};
use kiln_scheduler::Scheduler;
use kiln_scheduler::again::ShadowRuns;

pub use self::audited::Audited;
pub use self::options::VerdictsOptions;
use self::owners::OwnersFile;
use self::reruns::OnWorkers;
use self::told::Told;
use super::common::Common;
use super::history::{StoredBlobs, StoredRecords};
use super::webhook::{Webhook, WebhookError};

/// Starts verdicts; `inbox` holds the failures that the history writes to it.
pub fn start(
    options: &VerdictsOptions,
    storage: &Storage,
    scheduler: &Scheduler,
    (tests, inbox): (&CiServices, Inbox),
    common: &Common,
) -> Result<Verdicts, WebhookError> {
    let records = Arc::new(StoredRecords(storage.records.clone()));
    let ledger = Arc::new(Audited(AuditLog::new(storage.records.clone())));
    let teller = Webhook::named(options.webhook.as_ref(), &common.base_url)?;
    let teller = teller.map(|it| Arc::new(Told(it)) as Arc<dyn Teller>);
    let policy = options.judging.policy.clone();
    let book = Book::new(records.clone(), ledger.clone(), policy, teller.is_some());
    let runs_again = options.on && options.judging.limits.per_failure > 0;
    let answers = Answers::new(records.clone(), book.clone(), runs_again);
    let survey = Survey::new(records.clone());
    let owners: Arc<dyn Owners> = Arc::new(OwnersFile::new(options.owners.clone()));
    if !options.on {
        return Ok(Verdicts { book, answers, survey, owners, judging: None });
    }
    let blobs = Arc::new(StoredBlobs(storage.blobs.clone()));
    let parts = VerdictParts {
        records,
        ledger,
        history: tests.history.clone(),
        streams: tests.streams.clone(),
        reruns: Arc::new(OnWorkers {
            runs: ShadowRuns::new(scheduler),
            blobs: storage.blobs.clone(),
            reader: tests.recorder.reader(blobs),
        }),
        owners: owners.clone(),
        teller,
        clock: tests.clock.clone(),
        name: common.name.clone(),
    };
    let judging = Judging::start(options.judging.clone(), parts, inbox, book.clone());
    Ok(Verdicts { book, answers, survey, owners, judging: Some(judging) })
}
