//! Leases of the hermeticity check: which conditions they change, and what became of that.

use kiln_protos::hermeticity::{self, Applied};
use kiln_protos::protobuf::Any;
use kiln_protos::worker::Lease;
use prost::Message;

use crate::failure::Failure;
use crate::sandbox::{Condition, Conditions, NotChanged};

/// The type URL of [`Applied`] in the auxiliary metadata of a result.
const APPLIED: &str = "type.googleapis.com/kiln.hermeticity.v1.Applied";

/// The conditions that the lease of a hermeticity check asks to change.
pub struct Rerun(Conditions);

impl Rerun {
    /// Reads the conditions in `lease`; `None`: it is not the lease of a hermeticity check. Fails
    /// where they cannot be decoded.
    pub fn of(lease: &Lease) -> Result<Option<Self>, Failure> {
        let Some(bytes) = &lease.conditions else { return Ok(None) };
        let message = hermeticity::Conditions::decode(bytes.clone()).map_err(|error| {
            Failure::InvalidAction(format!("the conditions of the hermeticity check: {error}"))
        })?;
        Ok(Some(Self(message.changed().filter_map(condition).collect())))
    }

    pub fn conditions(&self) -> Conditions {
        self.0
    }
}

/// The message that tells the scheduler which conditions could not be changed as it asked, and why.
pub fn applied(not_changed: &[NotChanged]) -> Any {
    let not_changed = not_changed.iter().map(|(condition, reason)| hermeticity::NotChanged {
        condition: wire(*condition) as i32,
        reason: reason.clone(),
    });
    let applied = Applied { not_changed: not_changed.collect() };
    Any { type_url: APPLIED.to_owned(), value: applied.encode_to_vec() }
}

/// The sandbox's condition for the scheduler's; `None`: this worker does not know it yet.
fn condition(wire: hermeticity::Condition) -> Option<Condition> {
    Condition::ALL.into_iter().find(|condition| self::wire(*condition) == wire)
}

fn wire(condition: Condition) -> hermeticity::Condition {
    match condition {
        Condition::HostName => hermeticity::Condition::HostName,
        Condition::ProcessIds => hermeticity::Condition::ProcessIds,
        Condition::Directory => hermeticity::Condition::Directory,
        Condition::Clock => hermeticity::Condition::Clock,
        Condition::Cpus => hermeticity::Condition::Cpus,
        Condition::FileOrder => hermeticity::Condition::FileOrder,
        Condition::ModificationTimes => hermeticity::Condition::ModificationTimes,
        Condition::User => hermeticity::Condition::User,
    }
}
