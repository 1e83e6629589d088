//! One connection to one server.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::redis::ServerError;
use ::redis::aio::MultiplexedConnection;

use super::server::Server;

/// A connection that worked when it was handed out. Clones share it.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) connection: MultiplexedConnection,
    pub(super) server: Arc<Server>,
    closed: Closed,
    /// Hashes of the scripts that were loaded over this connection.
    scripts: Arc<Mutex<HashSet<String>>>,
    /// The server has functions, and lets them be loaded as far as is known.
    functions: Arc<AtomicBool>,
}

/// Whether a connection is of no use any more. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Closed(Arc<AtomicBool>);

impl Closed {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Link {
    /// `closed` is set by whoever sees the other end hang up.
    pub(super) fn new(connection: MultiplexedConnection, server: Server, closed: Closed) -> Self {
        let functions = Arc::new(AtomicBool::new(server.functions));
        let scripts = Arc::default();
        Self { connection, server: Arc::new(server), closed, scripts, functions }
    }

    /// Whether this is the same connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.closed.0, &other.closed.0)
    }

    /// Marks the connection as unusable. No call begins on it any more, and the node makes another
    /// connection for the next call.
    pub(super) fn discard(&self) {
        self.closed.set();
    }

    /// Whether it was discarded, or the other end has hung up.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.0.load(Ordering::Acquire)
    }

    /// Whether the server takes functions, so that scripts which may be functions are called as such.
    pub(super) fn has_functions(&self) -> bool {
        self.functions.load(Ordering::Acquire)
    }

    /// From now on scripts are not called as functions here: the server has refused a library, with the error `why`.
    pub(super) fn forgo_functions(&self, why: &ServerError) {
        if self.functions.swap(false, Ordering::AcqRel) {
            let why = why.to_string();
            tracing::info!(why, "Redis takes no functions; scripts are slower");
        }
    }

    /// Hashes of the scripts that the server knows, as far as this connection has loaded them.
    pub(super) fn scripts(&self) -> MutexGuard<'_, HashSet<String>> {
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
