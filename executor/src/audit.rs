//! Leases of the hermeticity audit: which conditions they change, and what became of that.

use kiln_protos::audit::{self, Applied};
use kiln_protos::protobuf::Any;
use kiln_protos::worker::Lease;
use prost::Message;

use crate::failure::Failure;
use crate::sandbox::{Condition, Conditions, NotChanged};

/// How [`Applied`] is named in the auxiliary metadata of a result.
const APPLIED: &str = "type.googleapis.com/kiln.audit.v1.Applied";

/// What a lease of the audit asks for.
pub struct Audit(Conditions);

impl Audit {
    /// `None`: the lease is not of the audit.
    pub fn of(lease: &Lease) -> Result<Option<Self>, Failure> {
        let Some(bytes) = &lease.audit else { return Ok(None) };
        let message = audit::Conditions::decode(bytes.clone())
            .map_err(|error| Failure::InvalidAction(format!("the audit's conditions: {error}")))?;
        Ok(Some(Self(message.changed().filter_map(condition).collect())))
    }

    pub fn conditions(&self) -> Conditions {
        self.0
    }
}

/// For the scheduler: what was asked for and stayed as it was.
pub fn applied(not_changed: &[NotChanged]) -> Any {
    let not_changed = not_changed.iter().map(|(condition, reason)| audit::NotChanged {
        condition: wire(*condition) as i32,
        reason: reason.clone(),
    });
    let applied = Applied { not_changed: not_changed.collect() };
    Any { type_url: APPLIED.to_owned(), value: applied.encode_to_vec() }
}

/// `None`: one that this worker does not know yet.
fn condition(wire: audit::Condition) -> Option<Condition> {
    Condition::ALL.into_iter().find(|condition| self::wire(*condition) == wire)
}

fn wire(condition: Condition) -> audit::Condition {
    match condition {
        Condition::HostName => audit::Condition::HostName,
        Condition::ProcessIds => audit::Condition::ProcessIds,
        Condition::Directory => audit::Condition::Directory,
        Condition::Clock => audit::Condition::Clock,
        Condition::Cpus => audit::Condition::Cpus,
        Condition::FileOrder => audit::Condition::FileOrder,
        Condition::ModificationTimes => audit::Condition::ModificationTimes,
        Condition::User => audit::Condition::User,
    }
}
