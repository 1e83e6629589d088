//! How a balancer that reads files comes to do something else: the file is written, checked by the balancer, taken by
//! it, and what it does then is read back. Whatever goes wrong on the way, the former file is put back.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::document::{Document, fits};
use super::error::TrafficError;
use super::file::Files;
use super::split::{Checked, check, name_of};
use crate::programs::Program;
use crate::rollouts::parts::{Applied, PartError, Place, Split, Traffic};

/// The time between two looks at what a balancer does, or at whether the lock is free.
const PAUSE: Duration = Duration::from_millis(30);
/// Looks in a row that have to say so: while a balancer reloads, the one before answers as well.
const LOOKS: u32 = 3;

/// What a balancer was seen to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// What the document says.
    Same,
    /// Something else, in words.
    Other(String),
    /// The balancer does not answer: why, in words.
    Silent(String),
}

/// What is different between balancers.
#[async_trait]
pub trait Balancer: Send + Sync + 'static {
    /// The highest weight that the balancer knows.
    const MOST: u32;
    /// The extension of the files that the balancer reads.
    const EXTENSION: &'static str;
    /// How long whoever worked by the former file may go on to take requests after the new one is there.
    const LINGER: Duration = Duration::ZERO;

    fn render(&self, checked: &Checked, tag: &str) -> String;

    /// Has the balancer do what is in the file.
    async fn take(&self, document: &Document) -> Result<(), TrafficError>;

    async fn look(&self, document: &Document) -> Seen;
}

/// A balancer with its directory.
pub struct Rendered<B> {
    pub balancer: B,
    pub directory: PathBuf,
    /// Checks all that the balancer reads, where there is such a program.
    pub test: Option<Program>,
    pub timeout: Duration,
}

#[async_trait]
impl<B: Balancer> Traffic for Rendered<B> {
    async fn set(&self, place: &Place, split: &Split) -> Result<Applied, PartError> {
        Ok(self.set_split(place, split).await?)
    }

    async fn observe(&self, place: &Place) -> Result<Option<Split>, PartError> {
        Ok(self.in_force(place).await?)
    }
}

impl<B: Balancer> Rendered<B> {
    fn files(&self, place: &Place) -> Result<Files, TrafficError> {
        Ok(Files::new(&self.directory, &name_of(place)?, B::EXTENSION))
    }

    async fn set_split(&self, place: &Place, split: &Split) -> Result<Applied, TrafficError> {
        let checked = check(place, split, B::MOST)?;
        let wanted = Document::new(split, checked, |it, tag| self.balancer.render(it, tag));
        fits(&wanted)?;
        let files = Arc::new(self.files(place)?);
        let _lock = self.lock(&files).await?;
        let current = self.current(&files, place).await?;
        if let Some(newer) =
            current.as_ref().map(|it| it.split.generation).filter(|it| *it > split.generation)
        {
            return Ok(Applied::Stale(newer));
        }
        if let Some(current) = &current {
            let in_force = self.balancer.look(current).await == Seen::Same;
            if in_force && current.text == wanted.text {
                return Ok(Applied::Now);
            }
            // What somebody was interrupted with is nothing to go back to.
            if in_force {
                let current = current.clone();
                on_disk(&files, move |files| files.keep(Some(&current))).await?;
            }
        } else {
            on_disk(&files, |files| files.keep(None)).await?;
        }
        self.change(&files, place, wanted).await?;
        Ok(Applied::Now)
    }

    /// Waits for whoever else changes something.
    async fn lock(&self, files: &Arc<Files>) -> Result<File, TrafficError> {
        let taken = async {
            loop {
                match on_disk(files, Files::try_lock).await? {
                    Some(lock) => return Ok::<_, TrafficError>(lock),
                    None => tokio::time::sleep(PAUSE).await,
                }
            }
        };
        let taken = tokio::time::timeout(self.timeout, taken).await;
        taken.unwrap_or(Err(TrafficError::Busy(self.timeout)))
    }

    async fn change(
        &self,
        files: &Arc<Files>,
        place: &Place,
        wanted: Document,
    ) -> Result<(), TrafficError> {
        let written = wanted.clone();
        on_disk(files, move |files| files.put(&written)).await?;
        if let Some(test) = &self.test
            && let Err(refused) = test.ask(b"").await
        {
            self.restore(files, place).await?;
            return Err(TrafficError::Refused(refused));
        }
        let failed = match self.balancer.take(&wanted).await {
            Ok(()) => match self.confirm(&wanted).await {
                Ok(()) => {
                    tokio::time::sleep(B::LINGER).await;
                    return Ok(());
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        // It may have taken the new one and be unable to say so: it is told to go back as well.
        if let Some(before) = self.restore(files, place).await? {
            let told = self.balancer.take(&before).await;
            tracing::warn!(file = %files.path.display(), taken = told.is_ok(), "put back a former split");
        }
        Err(failed)
    }

    async fn restore(
        &self,
        files: &Arc<Files>,
        place: &Place,
    ) -> Result<Option<Document>, TrafficError> {
        let place = place.clone();
        on_disk(files, move |files| files.restore(&place, B::MOST)).await
    }

    /// Waits until the balancer does what the document says.
    async fn confirm(&self, document: &Document) -> Result<(), TrafficError> {
        let mut last = String::new();
        let seen = async {
            let mut same = 0;
            while same < LOOKS {
                match self.balancer.look(document).await {
                    Seen::Same => same += 1,
                    Seen::Other(why) | Seen::Silent(why) => {
                        (same, last) = (0, why);
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        };
        let ended = tokio::time::timeout(self.timeout, seen).await.is_ok();
        if ended { Ok(()) } else { Err(TrafficError::NotInForce(self.timeout, last)) }
    }

    async fn current(
        &self,
        files: &Arc<Files>,
        place: &Place,
    ) -> Result<Option<Document>, TrafficError> {
        let place = place.clone();
        on_disk(files, move |files| files.current(&place, B::MOST)).await
    }

    /// The split of the file that the balancer works by.
    async fn in_force(&self, place: &Place) -> Result<Option<Split>, TrafficError> {
        let files = Arc::new(self.files(place)?);
        let Some(current) = self.current(&files, place).await? else { return Ok(None) };
        let other = match self.balancer.look(&current).await {
            Seen::Same => return Ok(Some(current.split)),
            Seen::Silent(why) => return Err(TrafficError::Silent(why)),
            Seen::Other(why) => why,
        };
        let of = place.clone();
        let before = on_disk(&files, move |files| files.before(&of, B::MOST)).await?;
        if let Some(before) = before
            && self.balancer.look(&before).await == Seen::Same
        {
            return Ok(Some(before.split));
        }
        Err(TrafficError::Differs(files.path.clone(), other))
    }
}

/// Runs what blocks beside what does not.
async fn on_disk<T: Send + 'static>(
    files: &Arc<Files>,
    work: impl FnOnce(&Files) -> Result<T, TrafficError> + Send + 'static,
) -> Result<T, TrafficError> {
    let files = files.clone();
    match tokio::task::spawn_blocking(move || work(&files)).await {
        Ok(done) => done,
        Err(ended) => Err(TrafficError::Split(format!("the work on files ended: {ended}"))),
    }
}
