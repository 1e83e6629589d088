//! Calls under way that may make a task or a worker known: news is kept for them.

use std::sync::Arc;

use super::engine::Engine;
use super::inner::Inner;

/// A call under way after which a task or a worker is known here. Must not be dropped while what the frontend
/// knows is locked.
pub struct UnderWay<E: Engine> {
    frontend: Arc<Inner<E>>,
    call: u64,
}

impl<E: Engine> Inner<E> {
    pub(super) fn under_way(self: &Arc<Self>) -> UnderWay<E> {
        UnderWay { call: self.lock().early.begin(), frontend: self.clone() }
    }
}

impl<E: Engine> Drop for UnderWay<E> {
    fn drop(&mut self) {
        let whole = self.frontend.lock().early.end(self.call);
        if !whole {
            self.frontend.engine.doubt();
        }
    }
}
