//! Figures of the history of tests, as metrics show them: made beside what is asked, at most once a minute.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_ci::history::{Figures, History, HistoryError};
use kiln_ci::model::Time;
use kiln_net::clock::unix_millis;
use tokio::runtime::Handle;

use super::observed::{InQuarantine, QuarantineOf};

/// The number of days that figures are of, this one included.
const DAYS: u64 = 14;
/// How old figures may be before they are made anew.
const FRESH: Duration = Duration::from_secs(60);

/// The figures of tests that were made last, made anew when they are asked for and too old. Clones
/// share them.
#[derive(Clone)]
pub struct TestFigures {
    history: Arc<History>,
    quarantine: QuarantineOf,
    latest: Arc<Mutex<Latest>>,
}

#[derive(Default)]
struct Latest {
    figures: Arc<Figures>,
    quarantine: InQuarantine,
    /// When the latest figures were begun; `None`: none were yet.
    begun: Option<Instant>,
}

impl TestFigures {
    pub fn new(history: Arc<History>, quarantine: QuarantineOf) -> Self {
        Self { history, quarantine, latest: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The figures that were made last; empty before the first ones were made.
    pub fn get(&self) -> Arc<Figures> {
        self.lock().figures.clone()
    }

    /// The quarantine as it was looked at last.
    pub fn quarantine(&self) -> InQuarantine {
        self.lock().quarantine
    }

    /// Begins to make new figures in the background where the latest ones are old. Must be called
    /// within a runtime.
    pub fn refresh(&self) {
        let now = Instant::now();
        let mut latest = self.lock();
        if latest.begun.is_some_and(|begun| now.duration_since(begun) < FRESH) {
            return;
        }
        latest.begun = Some(now);
        let (own, runtime) = (self.clone(), Handle::current());
        tokio::task::spawn_blocking(move || {
            match runtime.block_on(own.make()) {
                Ok(figures) => own.lock().figures = Arc::new(figures),
                Err(error) => tracing::warn!(%error, "no figures of tests"),
            }
            // What cannot be read now stays as it was.
            if let Some(quarantine) = runtime.block_on((own.quarantine)()) {
                own.lock().quarantine = quarantine;
            }
        });
    }

    async fn make(&self) -> Result<Figures, HistoryError> {
        let today = Time(unix_millis()).day();
        let days = today.saturating_sub(DAYS - 1)..=today.saturating_add(1);
        self.history.figures(&self.history.tested(days).await?).await
    }
}
