//! A history of tests in memory.

use std::sync::Arc;

use kiln_cas::events::Events;
use kiln_ci::model::Time;
use kiln_ci::services::{Admit, Charge, Clock};
use kiln_ci::storage::memory::Memory;
use kiln_ci::{CiOptions, CiParts, CiServices};
use tonic::{Extensions, Status};

/// Everybody may do everything, at the end of time.
struct Anybody;

impl Admit for Anybody {
    fn admit(&self, _: &Extensions, project: &str) -> Result<String, Status> {
        Ok(project.to_owned())
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
    let memory = Memory::default();
    let parts = CiParts {
        segments: Arc::new(memory.clone()),
        chunks: Arc::new(Memory::default()),
        records: Arc::new(memory.clone()),
        blobs: Arc::new(memory),
        admit: Arc::new(Anybody),
        clock: Arc::new(Anybody),
        executions: events.subscribe(),
    };
    CiServices::start(CiOptions::default(), parts)
}
