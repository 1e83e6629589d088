//! Who looks after a test, by a CODEOWNERS file that is read again when it changes.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use kiln_ci::quarantine::Codeowners;
use kiln_ci::verdicts::Owners;

/// How often it is looked whether the file has changed.
const LOOK: Duration = Duration::from_secs(30);
/// Bytes of a file that is read; no more are written by hand.
const MAX_FILE: u64 = 16 << 20;

pub struct OwnersFile {
    path: Option<PathBuf>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    owners: Codeowners,
    modified: Option<SystemTime>,
    looked: Option<Instant>,
}

impl OwnersFile {
    /// Reads owners of tests from this file; `None`: no test has an owner.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path, kept: Mutex::default() }
    }

    /// Reads the file again where it has changed. While it cannot be read, what it said last
    /// counts.
    fn refresh(&self, kept: &mut Kept) {
        let Some(path) = &self.path else { return };
        if kept.looked.is_some_and(|it| it.elapsed() < LOOK) {
            return;
        }
        kept.looked = Some(Instant::now());
        let modified = std::fs::metadata(path).and_then(|it| {
            let fits = it.len() <= MAX_FILE;
            if fits { it.modified() } else { Err(std::io::ErrorKind::FileTooLarge.into()) }
        });
        let read = modified.and_then(|modified| {
            let is_new = kept.modified != Some(modified);
            let text = is_new.then(|| std::fs::read_to_string(path)).transpose()?;
            Ok(text.map(|text| (modified, text)))
        });
        match read {
            Ok(None) => {}
            Ok(Some((modified, text))) => {
                let (owners, problems) = Codeowners::parse(&text);
                for problem in problems.iter().take(3) {
                    tracing::warn!(path = %path.display(), %problem, "a line without effect");
                }
                (kept.owners, kept.modified) = (owners, Some(modified));
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the owners of tests cannot be read");
            }
        }
    }
}

impl Owners for OwnersFile {
    fn owner(&self, label: &str) -> Option<String> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh(&mut kept);
        let owners = kept.owners.of_label(label, &[]);
        (!owners.is_empty()).then(|| owners.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_those_of_the_package() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("CODEOWNERS");
        std::fs::write(&path, "/app/ @app @web\n").unwrap();
        let owners = OwnersFile::new(Some(path));
        assert_eq!(owners.owner("//app:test").as_deref(), Some("@app @web"));
        assert_eq!(owners.owner("//lib:test"), None);
        assert_eq!(OwnersFile::new(None).owner("//app:test"), None);
        let missing = OwnersFile::new(Some(directory.path().join("none")));
        assert_eq!(missing.owner("//app:test"), None);
    }
}
