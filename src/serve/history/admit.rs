//! Who may publish build events, and whose memory they take.

use kiln_cas::access::{Right, SharedAuthorizer};
use kiln_cas::budget;
use kiln_cas::services::{Guard, budget_status};
use kiln_ci::services::{Admit, Charge};
use tonic::{Extensions, Status};

/// Whoever may store what builds of an instance make may tell of these builds.
pub struct RoleAdmission(Guard);

impl RoleAdmission {
    pub fn new(access: SharedAuthorizer) -> Self {
        Self(Guard(access))
    }
}

impl Admit for RoleAdmission {
    fn admit(&self, caller: &Extensions, project: &str) -> Result<String, Status> {
        self.0.check(caller, Right::WriteBlobs, project)?;
        Ok(project.to_owned())
    }

    fn name(&self, caller: &Extensions) -> Option<String> {
        self.0.0.name(caller).map(|it| it.to_string())
    }

    fn charge(&self, caller: &Extensions) -> Box<dyn Charge> {
        Box::new(RequestMemory(budget::Charge::of(caller)))
    }
}

/// A request's share of the server's memory.
struct RequestMemory(budget::Charge);

impl Charge for RequestMemory {
    fn hold(&mut self, bytes: u64) -> Result<(), Status> {
        self.0.try_grow_to(bytes).map_err(|error| budget_status(&error))
    }
}
