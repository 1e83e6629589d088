//! Whether somebody waits for blobs that are written behind. Places of such blobs are told to the
//! index in large batches while nobody does, and at once otherwise.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How long a place waits for those of other blobs while nobody is in a hurry...
const RELAXED: Duration = Duration::from_millis(200);
/// ...and while somebody is.
const HURRIED: Duration = Duration::from_millis(4);

/// Counts those who wait. Clones share the count.
#[derive(Clone)]
pub struct Hurry(Arc<watch::Sender<usize>>);

/// Somebody who waits, until this is dropped.
pub struct InHurry<'a>(&'a watch::Sender<usize>);

impl Drop for InHurry<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

impl Default for Hurry {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Hurry {
    /// Somebody waits for as long as the answer is kept.
    pub fn up(&self) -> InHurry<'_> {
        self.0.send_modify(|waiting| *waiting += 1);
        InHurry(&self.0)
    }

    /// Returns when it is time to tell the index the places that have gathered.
    pub async fn linger(self) {
        let mut waiting = self.0.subscribe();
        // An error means that it took too long: nobody is in a hurry.
        let _ = timeout(RELAXED, waiting.wait_for(|waiting| *waiting > 0)).await;
        sleep(HURRIED).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn places_gather_for_long_unless_somebody_waits() {
        let hurry = Hurry::default();
        let took = async |hurry: &Hurry| {
            let began = Instant::now();
            hurry.clone().linger().await;
            began.elapsed()
        };
        assert!(took(&hurry).await >= RELAXED);
        let waiting = (hurry.up(), hurry.up());
        assert!(took(&hurry).await < RELAXED / 2);
        drop(waiting.0);
        assert!(took(&hurry).await < RELAXED / 2, "one still waits");
        drop(waiting.1);
        assert!(took(&hurry).await >= RELAXED);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_begins_to_wait_is_noticed_at_once() {
        let (hurry, began) = (Hurry::default(), Instant::now());
        let lingering = tokio::spawn(hurry.clone().linger());
        tokio::time::sleep(RELAXED / 4).await;
        let _waiting = hurry.up();
        lingering.await.unwrap();
        assert!(began.elapsed() < RELAXED / 2, "{:?}", began.elapsed());
    }
}
