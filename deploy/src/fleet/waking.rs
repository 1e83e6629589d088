//! Wakes the questions for orders that are open at a frontend.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiln_cas::records::Version;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::limits::MAX_AGENTS;
use crate::rollouts::parts::Place;

/// How often a frontend looks whether another one has told something, once for all that wait for the same.
pub const LOOK: Duration = Duration::from_secs(1);
/// Places whose last look is remembered.
const MAX_LOOKS: usize = 1024;

/// Questions that are remembered, those that are over included.
const MAX_BELLS: usize = 2 * MAX_AGENTS as usize;

/// Wakes the questions that are open at this frontend.
#[derive(Default)]
pub struct Waking {
    closed: AtomicBool,
    /// What wakes each agent that asks, by the key of its order.
    bells: Mutex<HashMap<String, Arc<Notify>>>,
    looks: Mutex<HashMap<Place, (Instant, Option<Version>)>>,
}

impl Waking {
    /// What rings when this agent is told something here.
    pub fn bell(&self, key: &str) -> Arc<Notify> {
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        if bells.len() >= MAX_BELLS {
            bells.retain(|_, bell| Arc::strong_count(bell) > 1);
        }
        bells.entry(key.to_owned()).or_default().clone()
    }

    pub fn wake(&self, key: &str) {
        let bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bell) = bells.get(key) {
            bell.notify_waiters();
        }
    }

    /// Questions are answered at once from now on.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        bells.values().for_each(|bell| bell.notify_waiters());
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// What was seen of a place, if that is not long ago.
    pub fn seen(&self, place: &Place) -> Option<Option<Version>> {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.get(place).filter(|(at, _)| at.elapsed() < LOOK).map(|(_, version)| *version)
    }

    pub fn note(&self, place: &Place, version: Option<Version>) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.len() >= MAX_LOOKS {
            looks.clear();
        }
        looks.insert(place.clone(), (Instant::now(), version));
    }
}
