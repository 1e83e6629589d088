//! Whether the index is still the one that this process knows, and whether it knows all objects.
//!
//! An index draws a random epoch when it is created. An object store holds a mark: the epoch of
//! the index that knows all that is in it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::activity::Activity;
use super::index::BlobIndex;
use super::objects::Objects;
use super::presence::PresenceCache;
use crate::error::StoreError;

/// Asks the index for its epoch, and empties the presence cache when that has changed.
pub struct Epochs {
    index: Arc<dyn BlobIndex>,
    objects: Arc<dyn Objects>,
    presence: Arc<PresenceCache>,
    activity: Activity,
    /// How long an answer of the index counts.
    interval: Duration,
    /// The epoch that was seen last. Held by whoever asks.
    last: tokio::sync::Mutex<Option<u64>>,
    /// When the question was put that was answered last.
    asked: Mutex<Option<Instant>>,
    /// Nobody has looked yet whether index and objects belong together.
    unmarked: AtomicBool,
    /// The index was lost, and is not rebuilt.
    incomplete: AtomicBool,
}

impl Epochs {
    pub fn new(
        index: Arc<dyn BlobIndex>,
        objects: Arc<dyn Objects>,
        presence: Arc<PresenceCache>,
        activity: Activity,
        interval: Duration,
    ) -> Self {
        Self {
            index,
            objects,
            presence,
            activity,
            interval,
            last: Default::default(),
            asked: Mutex::default(),
            unmarked: AtomicBool::new(false),
            incomplete: AtomicBool::new(false),
        }
    }

    fn asked(&self) -> MutexGuard<'_, Option<Instant>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the index was asked for its epoch within the last interval: what is
    /// remembered is of an index that was there then. Errors: it does not answer.
    pub async fn confirm(&self) -> Result<(), StoreError> {
        if self.is_fresh() {
            return Ok(());
        }
        let mut last = self.last.lock().await;
        // Perhaps somebody asked meanwhile.
        if self.is_fresh() {
            return Ok(());
        }
        self.activity.note();
        self.ask(&mut last).await.map(drop)
    }

    fn is_fresh(&self) -> bool {
        self.asked().is_some_and(|asked| asked.elapsed() < self.interval)
    }

    async fn ask(&self, last: &mut Option<u64>) -> Result<u64, StoreError> {
        let asked = Instant::now();
        let epoch = self.index.epoch().await?;
        if *last != Some(epoch) {
            self.presence.forget_all();
            self.unmarked.store(true, Ordering::Release);
        }
        *last = Some(epoch);
        *self.asked() = Some(asked);
        Ok(epoch)
    }

    /// Asks the index, and looks whether it belongs to the objects where that is not known.
    pub async fn check(&self) -> Result<(), StoreError> {
        let epoch = self.ask(&mut *self.last.lock().await).await?;
        let unmarked = self.unmarked.swap(false, Ordering::AcqRel);
        if !unmarked && !self.is_incomplete() {
            return Ok(());
        }
        self.check_mark(epoch).await.inspect_err(|_| {
            self.unmarked.store(true, Ordering::Release);
        })
    }

    /// Whether [`Epochs::check`] is due: the index has changed since.
    pub fn is_unmarked(&self) -> bool {
        self.unmarked.load(Ordering::Acquire)
    }

    /// Whether the index was lost and not rebuilt, as far as was seen.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete.load(Ordering::Relaxed)
    }

    /// Looks whether index and objects belong together; an empty store is marked as such.
    async fn check_mark(&self, epoch: u64) -> Result<(), StoreError> {
        let marked = self.objects.mark().await? == Some(epoch);
        let complete = marked || self.objects.list(None).await?.0.is_empty();
        if complete && !marked {
            self.objects.set_mark(epoch).await?;
        }
        let was_incomplete = self.incomplete.swap(!complete, Ordering::Relaxed);
        if !complete && !was_incomplete {
            tracing::warn!(
                "the index was lost: until it is rebuilt, blobs that the object store holds are \
                 reported missing, and no orphans are collected"
            );
        }
        Ok(())
    }
}

/// Whether the objects bear the mark of this index: it knows all of them. By the word of an index
/// that was lost, all objects would be orphans.
pub async fn is_marked(index: &dyn BlobIndex, objects: &dyn Objects) -> Result<bool, StoreError> {
    let (mark, epoch) = (objects.mark().await?, index.epoch().await?);
    Ok(mark == Some(epoch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::stores::contract::blob;
    use crate::stores::indexed::{Generation, MemoryIndex, MemoryObjects, Place};

    const INTERVAL: Duration = Duration::from_secs(5);

    struct Subject {
        index: Arc<MemoryIndex>,
        objects: Arc<MemoryObjects>,
        presence: Arc<PresenceCache>,
        activity: Activity,
        epochs: Epochs,
    }

    fn subject() -> Subject {
        let clock = Clock::manual(1000);
        let index = Arc::new(MemoryIndex::new(clock.clone()));
        let objects = Arc::new(MemoryObjects::new(clock.clone()));
        let presence = Arc::new(PresenceCache::new(clock));
        let activity = Activity::default();
        let (one, other) = (index.clone(), objects.clone());
        let epochs = Epochs::new(one, other, presence.clone(), activity.clone(), INTERVAL);
        Subject { index, objects, presence, activity, epochs }
    }

    #[tokio::test(start_paused = true)]
    async fn the_index_is_asked_once_an_interval_and_another_one_empties_the_cache() {
        let Subject { index, presence, activity, epochs, .. } = subject();
        let (digest, _) = blob(1, 10);
        epochs.confirm().await.unwrap();
        let remember = || {
            let asked = presence.asking();
            presence.remember(&digest, Place::Index, INTERVAL, asked);
        };
        remember();
        for _ in 0..3 {
            epochs.confirm().await.unwrap();
        }
        assert_eq!(activity.count(), 1);
        tokio::time::advance(INTERVAL).await;
        epochs.confirm().await.unwrap();
        assert_eq!((activity.count(), presence.place(&digest)), (2, Some(Place::Index)));
        index.wipe();
        tokio::time::advance(INTERVAL / 2).await;
        epochs.confirm().await.unwrap();
        assert_eq!(presence.place(&digest), Some(Place::Index), "it was seen a moment ago");
        tokio::time::advance(INTERVAL / 2).await;
        epochs.confirm().await.unwrap();
        assert_eq!(presence.place(&digest), None);
    }

    #[tokio::test]
    async fn an_index_belongs_to_the_objects_that_were_empty_when_it_was_first_seen() {
        let Subject { index, objects, epochs, .. } = subject();
        assert!(!is_marked(&*index, &*objects).await.unwrap());
        epochs.check().await.unwrap();
        assert!(is_marked(&*index, &*objects).await.unwrap() && !epochs.is_incomplete());
        let (digest, data) = blob(1, 10);
        objects.put(&digest, Generation(1), data).await.unwrap();
        index.wipe();
        epochs.check().await.unwrap();
        assert!(epochs.is_incomplete() && !epochs.is_unmarked());
        assert!(!is_marked(&*index, &*objects).await.unwrap());
        // This is what a rebuild does at its end.
        objects.set_mark(index.epoch().await.unwrap()).await.unwrap();
        epochs.check().await.unwrap();
        assert!(!epochs.is_incomplete());
    }
}
