//! The history of tests on the stores of a server.

mod admit;
mod blobs;
mod errors;
mod records;
mod segments;

use std::sync::Arc;

use kiln_cas::stores::Storage;
use kiln_ci::history::Tap;
use kiln_ci::model::Time;
use kiln_ci::services::Clock;
use kiln_ci::{CiParts, CiServices};
use kiln_net::clock::unix_millis;

use self::admit::RoleAdmission;
pub use self::blobs::StoredBlobs;
pub use self::records::{StoredRecords, failed, write};
use self::segments::PinnedSegments;
use super::common::Common;
use super::options::ServeOptions;

/// Names of the pins of segments and of chunks: each kind is swept by itself.
const SEGMENTS: &str = "tests";
const CHUNKS: &str = "events";

/// The clock of the machine.
struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Time {
        Time(unix_millis())
    }
}

/// Starts the history of tests; `tap` hears of attempts that are committed as well.
pub fn start(
    options: &ServeOptions,
    storage: &Storage,
    common: &Common,
    tap: Option<Arc<dyn Tap>>,
) -> CiServices {
    let clock = Arc::new(SystemClock);
    let segments = |kind| Arc::new(PinnedSegments::new(storage, kind, clock.clone()));
    let parts = CiParts {
        segments: segments(SEGMENTS),
        chunks: segments(CHUNKS),
        records: Arc::new(StoredRecords(storage.records.clone())),
        blobs: Arc::new(StoredBlobs(storage.blobs.clone())),
        admit: Arc::new(RoleAdmission::new(common.access.clone())),
        clock: clock.clone(),
        executions: common.events.subscribe(),
        tap,
    };
    CiServices::start(options.tests.clone(), parts)
}
