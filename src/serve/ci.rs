//! Starts the server's part of `kiln_ci`: the history of tests, verdicts, merge queues, and forges
//! that ask for what lands. Its pipelines stand on releases as well, and are started by
//! `pipelines`.

use std::sync::Arc;

use kiln_ci::CiServices;
use kiln_ci::history::Tap;
use kiln_ci::verdicts::{Inbox, Verdicts};
use kiln_scheduler::Scheduler;

use super::base::Base;
use super::options::{ServeError, ServeOptions};
use super::pipelines::Directory;
use super::{forges, history, merge_queue, verdicts};

/// The history of tests, which hears of all that is executed from now on.
pub struct Recording {
    pub tests: CiServices,
    /// The inbox of verdicts, into which the history writes failures.
    inbox: Inbox,
}

/// The services for tests: their history, verdicts, merge queues and forges.
pub struct Ci {
    pub tests: CiServices,
    pub verdicts: Verdicts,
    pub merging: merge_queue::Started,
    pub forges: forges::Started,
    /// The pipelines that the operator declares, for which forges tell of pushes.
    pub declared: Arc<Directory>,
}

/// Starts to record what is executed. Call before anything can be executed, within a Tokio runtime.
pub fn record(options: &ServeOptions, base: &Base) -> Recording {
    let inbox = Inbox::default();
    let tap = options.verdicts.on.then(|| Arc::new(inbox.clone()) as Arc<dyn Tap>);
    let tests = history::start(options, &base.storage, &base.common, tap);
    Recording { tests, inbox }
}

/// Starts verdicts, merge queues and forges; `scheduler` runs tests again. Must be called within a
/// Tokio runtime.
pub fn start(
    options: &ServeOptions,
    base: &Base,
    recording: Recording,
    scheduler: &Scheduler,
) -> Result<Ci, ServeError> {
    let Recording { tests, inbox } = recording;
    let (storage, common) = (&base.storage, &base.common);
    let judged = (&tests, inbox);
    let verdicts = verdicts::start(&options.verdicts, storage, scheduler, judged, common)?;
    let merging = merge_queue::start(&options.merge_queue, storage, &tests, &common.base_url)?;
    let declared = Arc::new(Directory::new(&options.pipelines));
    let queues = (&tests, &merging.queues);
    let forges = forges::start(&options.forges, storage, queues, declared.clone(), common)?;
    Ok(Ci { tests, verdicts, merging, forges, declared })
}
