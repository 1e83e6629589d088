//! The rights that a request may need, and the trait that decides whether its caller has them.

use std::sync::Arc;

use http::Extensions;

/// One kind of thing that a caller may be allowed to do in an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Right {
    /// Read blobs, action results and operations.
    Read,
    /// Store blobs: they are named by their content, so nothing else changes.
    WriteBlobs,
    /// Say what an action results in, or what a URI stands for.
    WriteResults,
    /// Have actions run.
    Execute,
    /// Run actions for others.
    Work,
    /// Make and promote releases.
    Release,
    /// Run the releases of a service on a host, and say how they are: what agents do.
    Host,
    /// Put changes into a merge queue, take them out, and pause it.
    Queue,
    /// Run a merge queue: say what becomes of its changes.
    Land,
    /// Act on what belongs to others.
    Administer,
}

/// Why a caller was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The caller has not authenticated: the same request with credentials may be allowed.
    #[error("{0}")]
    Unauthenticated(String),
    /// The caller has authenticated and lacks the right.
    #[error("{0}")]
    Denied(String),
}

/// Decides who may do what. `caller`: the extensions of a request, into which whoever took it in
/// from the network has put who sent it.
pub trait Authorizer: Send + Sync + 'static {
    fn check(&self, caller: &Extensions, right: Right, instance: &str) -> Result<(), Refused>;

    /// Checks a right in all instances at once.
    fn check_everywhere(&self, caller: &Extensions, right: Right) -> Result<(), Refused>;

    /// Checks whether the caller may act as a host (an agent) of `_service`, which is written
    /// `service/environment`. Where this is not overridden, it needs [`Right::Host`] in all instances.
    fn check_host(&self, caller: &Extensions, _service: &str) -> Result<(), Refused> {
        self.check_everywhere(caller, Right::Host)
    }

    /// Checks a right of a merge queue, by the name of the queue.
    fn check_queue(&self, caller: &Extensions, right: Right, _queue: &str) -> Result<(), Refused> {
        self.check_everywhere(caller, right)
    }

    /// A name for the caller, the same for all its requests; `None`: anybody.
    fn name(&self, caller: &Extensions) -> Option<Arc<str>>;

    /// Names the group whose actions share tools that stay between actions and remember: callers with
    /// the same answer share. `None`: the caller's actions use no such tools.
    fn tools(&self, caller: &Extensions, instance: &str) -> Option<Arc<str>>;

    fn allows(&self, caller: &Extensions, right: Right, instance: &str) -> bool {
        self.check(caller, right, instance).is_ok()
    }
}

pub type SharedAuthorizer = Arc<dyn Authorizer>;

/// The authorizer of a server that does not ask who calls.
#[derive(Debug, Clone, Copy)]
pub struct Everybody {
    /// Whether everybody may also write action results. Otherwise nobody does: they come from the
    /// workers.
    pub write_results: bool,
}

impl Authorizer for Everybody {
    fn check(&self, caller: &Extensions, right: Right, _instance: &str) -> Result<(), Refused> {
        self.check_everywhere(caller, right)
    }

    fn check_everywhere(&self, _: &Extensions, right: Right) -> Result<(), Refused> {
        if right != Right::WriteResults || self.write_results {
            return Ok(());
        }
        Err(Refused::Denied(
            "clients may not write action results here: results come from the workers \
             (cache.allow_updates is false)"
                .to_owned(),
        ))
    }

    fn name(&self, _: &Extensions) -> Option<Arc<str>> {
        None
    }

    /// All callers share tools: nobody is kept from anything that others do.
    fn tools(&self, _: &Extensions, _instance: &str) -> Option<Arc<str>> {
        Some("".into())
    }
}
