//! The history of tests on the stores of a server.

mod admit;
mod blobs;
mod errors;
mod records;
mod segments;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_cas::stores::Storage;
use kiln_ci::model::Time;
use kiln_ci::services::Clock;
use kiln_ci::{CiParts, CiServices};

use self::admit::RoleAdmission;
use self::blobs::StoredBlobs;
use self::records::StoredRecords;
use self::segments::PinnedSegments;
use super::common::Common;
use super::options::ServeOptions;

/// What pins of segments and of chunks are called: either is swept by itself.
const SEGMENTS: &str = "tests";
const CHUNKS: &str = "events";

/// The clock of the machine.
struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Time {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Time(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
    }
}

pub fn start(options: &ServeOptions, storage: &Storage, common: &Common) -> CiServices {
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
    };
    CiServices::start(options.tests.clone(), parts)
}
