//! Why the fleet did not do what it was asked.

use kiln_cas::records::RecordsError;

use super::limits::MAX_AGENTS;
use super::names::NameProblem;
use crate::json::JsonError;
use crate::rollouts::parts::Place;

#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error(transparent)]
    Name(#[from] NameProblem),
    #[error("there is no agent {name} of {place}")]
    Unknown { place: Place, name: String },
    /// Another credential registered this name.
    #[error("the agent {name} of {place} is somebody else's: it was registered by {by}")]
    Bound { place: Place, name: String, by: String },
    /// Two hosts have the same name.
    #[error("another agent {name} of {place} is alive: it was heard {ago} s ago")]
    Twice { place: Place, name: String, ago: u64 },
    #[error("there are {MAX_AGENTS} agents already")]
    Full,
    #[error("that generation was another version before: one generation means one")]
    Ambiguous,
    #[error("{0} was not told to this agent")]
    NotTold(String),
    #[error("the records of the fleet cannot be used")]
    Records(#[from] RecordsError),
    #[error("the record {key} is damaged")]
    Damaged {
        key: String,
        #[source]
        source: JsonError,
    },
    #[error("what is to be kept cannot be written")]
    Unwritable(#[source] JsonError),
    #[error("the machine has no random bytes")]
    Random,
    #[error("others changed the same again and again")]
    Restless,
}
