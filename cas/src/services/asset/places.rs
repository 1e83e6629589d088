//! Places of downloads. Those of one caller are bounded, and those of all together: no caller can take all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Downloads of one caller that receive at the same time; further ones wait.
const RECEIVING: usize = 16;
/// Downloads of one caller that receive or wait; further ones are refused.
const ADMITTED: usize = 256;
/// All callers together have so many times as many.
const ALL: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} downloads are under way or wait: try again later")]
pub struct Full(usize);

pub struct Places {
    all: Arc<Bounds>,
    /// Of callers that have downloads.
    callers: Mutex<HashMap<Arc<str>, Weak<Bounds>>>,
}

struct Bounds {
    admitted: Arc<Semaphore>,
    receiving: Arc<Semaphore>,
    most: usize,
}

/// What one download holds from when it is admitted to its end.
pub struct Admission {
    /// Of its caller, and of all.
    bounds: [Arc<Bounds>; 2],
    _admitted: [OwnedSemaphorePermit; 2],
}

impl Default for Places {
    fn default() -> Self {
        Self { all: Arc::new(Bounds::new(ALL)), callers: Mutex::default() }
    }
}

impl Places {
    /// `caller`: the account of whoever began the download.
    pub fn admit(&self, caller: &Arc<str>) -> Result<Admission, Full> {
        let own = self.of(caller);
        let admitted = [own.admit()?, self.all.admit()?];
        Ok(Admission { bounds: [own, self.all.clone()], _admitted: admitted })
    }

    fn of(&self, caller: &Arc<str>) -> Arc<Bounds> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = callers.get(caller).and_then(Weak::upgrade) {
            return own;
        }
        callers.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Bounds::new(1));
        callers.insert(caller.clone(), Arc::downgrade(&own));
        own
    }
}

impl Bounds {
    fn new(times: usize) -> Self {
        let most = times * ADMITTED;
        let receiving = Arc::new(Semaphore::new(times * RECEIVING));
        Self { admitted: Arc::new(Semaphore::new(most)), receiving, most }
    }

    fn admit(&self) -> Result<OwnedSemaphorePermit, Full> {
        self.admitted.clone().try_acquire_owned().map_err(|_| Full(self.most))
    }
}

impl Admission {
    /// Waits for a place to receive in, which is free again when what is returned is dropped.
    pub async fn receive(&self) -> Vec<OwnedSemaphorePermit> {
        let mut held = Vec::with_capacity(self.bounds.len());
        for bounds in &self.bounds {
            // The only error is that it was closed, which nobody does.
            held.extend(bounds.receiving.clone().acquire_owned().await.ok());
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_caller_leaves_places_for_others() {
        let places = Places::default();
        let [one, two] = ["one", "two"].map(Arc::<str>::from);
        let of_one: Vec<_> = (0..ADMITTED).map(|_| places.admit(&one).unwrap()).collect();
        assert_eq!(places.admit(&one).err(), Some(Full(ADMITTED)));
        let mut held = Vec::new();
        for admission in &of_one[..RECEIVING] {
            held.push(admission.receive().await);
        }
        let waiting = &of_one[RECEIVING];
        assert!(waiting.receive().now_or_never().is_none());
        let of_two = places.admit(&two).unwrap();
        assert!(of_two.receive().now_or_never().is_some());
        held.pop();
        assert!(waiting.receive().now_or_never().is_some());
        drop((held, of_one));
        assert!(places.admit(&one).is_ok());
        assert_eq!(places.callers.lock().unwrap().len(), 2);
        drop(of_two);
        assert!(places.admit(&one).is_ok());
        assert_eq!(places.callers.lock().unwrap().len(), 1, "who has none is forgotten");
    }
}
