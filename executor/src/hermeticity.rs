//! Leases of the hermeticity check: which conditions they change, and what became of that.

use kiln_protos::hermeticity::{self, Applied};
use kiln_protos::protobuf::Any;
use kiln_protos::worker::Lease;
use prost::Message;

use crate::failure::Failure;
use crate::sandbox::{Condition, Conditions, NotChanged};

/// How [`Applied`] is named in the auxiliary metadata of a result.
const APPLIED: &str = "type.googleapis.com/kiln.hermeticity.v1.Applied";

/// What the lease of a hermeticity check asks for.
pub struct Rerun(Conditions);

impl Rerun {
    /// `None`: the lease is not of a hermeticity check.
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

/// For the scheduler: what was asked for and stayed as it was.
pub fn applied(not_changed: &[NotChanged]) -> Any {
    let not_changed = not_changed.iter().map(|(condition, reason)| hermeticity::NotChanged {
        condition: wire(*condition) as i32,
        reason: reason.clone(),
    });
    let applied = Applied { not_changed: not_changed.collect() };
    Any { type_url: APPLIED.to_owned(), value: applied.encode_to_vec() }
}

/// `None`: one that this worker does not know yet.
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
