//! Whether this worker should take actions: it looks for room before each, and after some faults
//! of its own in a row it takes none until a trial has gone well.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_protos::reapi::ExecuteResponse;
use nix::sys::statvfs::statvfs;
use tokio::time::Instant;

use crate::failure::Failure;

/// How many faults in a row, in whatever slots, make the worker pause.
const MAX_FAULTS: u32 = 3;
/// How long a pause lasts before its first trial; each one that follows waits twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Bytes that must be free on the work directory's file system before an action is taken; the next
/// constant says how many files.
const MIN_BYTES: u64 = 32 << 20;
const MIN_FILES: u64 = 1_000;
/// Bytes that are written in a trial.
const TRIAL_BYTES: usize = 64 << 10;

/// Decides whether the worker takes actions.
pub struct Health {
    place: Place,
    faults: u32,
    /// How often the worker has paused since an action last went well here.
    pauses: u32,
    paused: Option<Pause>,
}

struct Pause {
    reason: String,
    trial_at: Instant,
}

impl Health {
    pub fn new(work_dir: PathBuf) -> Self {
        Self { place: Place::new(work_dir), faults: 0, pauses: 0, paused: None }
    }

    /// Why the worker takes no leases now; `None`: it takes them.
    pub fn paused(&self) -> Option<&str> {
        self.paused.as_ref().map(|pause| pause.reason.as_str())
    }

    /// When the worker is to try whether it works again; `None`: it is not paused.
    pub fn trial_at(&self) -> Option<Instant> {
        self.paused.as_ref().map(|pause| pause.trial_at)
    }

    /// Counts how an action ended here. What says nothing about this worker changes nothing.
    pub fn ended(&mut self, result: &Result<ExecuteResponse, Failure>, now: Instant) {
        match result {
            Err(failure @ Failure::Infrastructure(_)) => {
                self.faults += 1;
                if self.faults >= MAX_FAULTS && self.paused.is_none() {
                    let last = failure.in_full();
                    self.pause(format!("{} faults in a row, the last: {last}", self.faults), now);
                }
            }
            Ok(_)
            | Err(Failure::MissingInputs(_) | Failure::InvalidAction(_) | Failure::Answer { .. }) =>
            {
                (self.faults, self.pauses) = (0, 0);
            }
            Err(
                Failure::Cancelled
                | Failure::Draining(_)
                | Failure::Refused(_)
                | Failure::TimedOut(_)
                | Failure::StoreFull(_),
            ) => {}
        }
    }

    /// Pauses where there is no room for another action.
    pub fn look_for_room(&mut self, now: Instant) {
        if self.paused.is_none()
            && let Err(reason) = self.place.room()
        {
            self.pause(reason, now);
        }
    }

    fn pause(&mut self, reason: String, now: Instant) {
        let wait = FIRST_WAIT * 2_u32.saturating_pow(self.pauses.min(16));
        let wait = wait.min(LONGEST_WAIT);
        if self.paused.is_none() {
            tracing::warn!(reason, trial_in = ?wait, "this worker takes no actions for now");
        }
        self.pauses += 1;
        self.paused = Some(Pause { reason, trial_at: now + wait });
    }

    /// The worker has tried itself. Where that went well, one more fault is enough to pause again.
    pub fn tried(&mut self, trial: Result<(), String>, now: Instant) {
        match trial {
            Ok(()) => {
                self.faults = MAX_FAULTS - 1;
                self.paused = None;
                tracing::info!("this worker takes actions again: its trial went well");
            }
            Err(reason) => self.pause(reason, now),
        }
    }

    /// The part of a trial that needs no slot: there is room, and a file can be written and read.
    pub fn disk_trial(&self) -> impl Future<Output = Result<(), String>> + Send + use<> {
        let place = self.place.clone();
        async move {
            let trial = tokio::task::spawn_blocking(move || {
                place.room()?;
                write_and_read(&place.path)
                    .map_err(|error| format!("{} cannot be written: {error}", place.path.display()))
            });
            trial.await.map_err(|error| error.to_string())?
        }
    }
}

/// The work directory, with the device and inode that it had at the start (`None`: these could not
/// be read).
#[derive(Debug, Clone)]
struct Place {
    path: PathBuf,
    made: Option<(u64, u64)>,
}

impl Place {
    fn new(path: PathBuf) -> Self {
        Self { made: identity(&path), path }
    }

    fn room(&self) -> Result<(), String> {
        let shown = self.path.display();
        if self.made.is_some() && identity(&self.path) != self.made {
            return Err(format!(
                "{shown} has been removed or replaced while it was in use: start this worker again"
            ));
        }
        let found =
            statvfs(&self.path).map_err(|error| format!("{shown} cannot be looked at: {error}"))?;
        let bytes = found.blocks_available().saturating_mul(found.fragment_size());
        if bytes < MIN_BYTES {
            return Err(format!(
                "the disk is full: {shown} has {} MiB left, less than {} MiB",
                bytes >> 20,
                MIN_BYTES >> 20
            ));
        }
        // Some file systems do not count files.
        let (all, left) = (found.files(), found.files_available());
        if all > 0 && left < MIN_FILES {
            return Err(format!("the disk is full: {shown} has room for {left} files only"));
        }
        Ok(())
    }
}

/// The device and inode of `path`; `None`: it cannot be looked at.
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

fn write_and_read(work_dir: &Path) -> std::io::Result<()> {
    use std::io::{Read, Seek, Write};
    let mut file = tempfile::tempfile_in(work_dir)?;
    let data = vec![0x5a; TRIAL_BYTES];
    file.write_all(&data)?;
    file.sync_all()?;
    file.rewind()?;
    let mut found = Vec::with_capacity(data.len());
    file.read_to_end(&mut found)?;
    if found == data { Ok(()) } else { Err(std::io::Error::other("what was written is not read")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault() -> Result<ExecuteResponse, Failure> {
        Err(Failure::Infrastructure("the sandbox broke".into()))
    }

    fn health() -> (Health, Instant) {
        (Health::new(std::env::temp_dir()), Instant::now())
    }

    #[test]
    fn faults_in_a_row_pause_the_worker_and_others_do_not() {
        let (mut health, now) = health();
        for result in [fault(), fault(), Ok(ExecuteResponse::default()), fault(), fault()] {
            health.ended(&result, now);
        }
        health.ended(&Err(Failure::Cancelled), now);
        assert_eq!(health.paused(), None);
        health.ended(&fault(), now);
        let reason = health.paused().unwrap();
        assert!(reason.contains("3 faults") && reason.contains("the sandbox broke"), "{reason}");
        assert_eq!(health.trial_at(), Some(now + FIRST_WAIT));
    }

    #[test]
    fn trials_come_ever_later_and_one_fault_after_a_good_one_pauses_again() {
        let (mut health, now) = health();
        (0..3).for_each(|_| health.ended(&fault(), now));
        let mut waits = Vec::new();
        for _ in 0..8 {
            health.tried(Err("still broken".to_owned()), now);
            waits.push(health.trial_at().unwrap().duration_since(now).as_secs());
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60]);
        health.tried(Ok(()), now);
        assert_eq!(health.paused(), None);
        health.ended(&fault(), now);
        assert!(health.paused().is_some());
        health.tried(Ok(()), now);
        health.ended(&Ok(ExecuteResponse::default()), now);
        (0..3).for_each(|_| health.ended(&fault(), now));
        assert_eq!(health.trial_at(), Some(now + FIRST_WAIT), "an action went well in between");
    }

    #[tokio::test]
    async fn a_place_that_is_not_there_is_no_room() {
        let place = tempfile::tempdir().unwrap();
        let mut health = Health::new(place.path().join("gone"));
        health.look_for_room(Instant::now());
        assert!(health.paused().unwrap().contains("gone"));
        assert!(health.disk_trial().await.is_err());
        let there = Health::new(place.path().to_owned());
        assert_eq!(there.disk_trial().await, Ok(()));
    }

    #[tokio::test]
    async fn a_place_that_is_taken_away_pauses_until_it_is_back() {
        let around = tempfile::tempdir().unwrap();
        let [place, aside] = ["work", "aside"].map(|name| around.path().join(name));
        std::fs::create_dir(&place).unwrap();
        let mut health = Health::new(place.clone());
        std::fs::rename(&place, &aside).unwrap();
        health.look_for_room(Instant::now());
        assert!(health.paused().unwrap().contains("start this worker again"));
        std::fs::create_dir(&place).unwrap();
        assert!(health.disk_trial().await.is_err(), "it is another one");
        std::fs::remove_dir(&place).unwrap();
        std::fs::rename(&aside, &place).unwrap();
        assert_eq!(health.disk_trial().await, Ok(()));
    }
}
