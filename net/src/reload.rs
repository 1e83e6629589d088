//! Files that are read again when they change, while the server runs.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::panics::caught;

/// How often files are looked at. Notices of the kernel would miss what is mounted or linked
/// anew, as secrets are.
const INTERVAL: Duration = Duration::from_secs(2);

/// Something made of files.
pub trait Reload: Send + Sync + 'static {
    /// What is read again, in words for people.
    fn what(&self) -> &'static str;

    /// What is read again, in one word for metrics.
    fn label(&self) -> &'static str;

    fn files(&self) -> Vec<PathBuf>;

    /// Reads the files anew. On an error everything stays as it was.
    fn reload(&self) -> Result<(), String>;
}

/// What tells one content of a file from the next without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// `None`: there is no such file now.
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Whether what is in force is what the files say.
#[derive(Debug, Clone, Default)]
pub struct Reloads(Arc<Mutex<BTreeMap<&'static str, LastReload>>>);

/// How the last change of something's files went.
#[derive(Debug, Clone)]
pub struct LastReload {
    pub what: &'static str,
    /// `None`: it is in force.
    pub error: Option<String>,
}

impl Reloads {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, LastReload>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, item: &dyn Reload, error: Option<String>) {
        self.lock().insert(item.label(), LastReload { what: item.what(), error });
    }

    /// All that is watched, by its label.
    pub fn all(&self) -> Vec<(&'static str, LastReload)> {
        self.lock().iter().map(|(label, last)| (*label, last.clone())).collect()
    }
}

struct Watched {
    item: Arc<dyn Reload>,
    stamps: Vec<Option<Stamp>>,
    reloads: Reloads,
}

impl Watched {
    fn new(item: Arc<dyn Reload>, reloads: Reloads) -> Self {
        let stamps = stamps(item.as_ref());
        reloads.note(item.as_ref(), None);
        Self { item, stamps, reloads }
    }

    /// What panics on a change counts as one that is not taken over.
    async fn look_on(&mut self) {
        if let Err(panicked) = caught(async { self.look() }).await {
            tracing::error!(what = self.item.what(), error = %panicked, "a change is not taken over");
            self.reloads.note(self.item.as_ref(), Some(panicked.to_string()));
        }
    }

    fn look(&mut self) {
        // Taken before the files are read: what changes meanwhile is seen the next time.
        let stamps = stamps(self.item.as_ref());
        if stamps == self.stamps {
            return;
        }
        self.stamps = stamps;
        let what = self.item.what();
        let error = self.item.reload().err();
        match &error {
            None => tracing::info!(what, "read again after a change"),
            Some(error) => tracing::warn!(what, error, "a change is not taken over"),
        }
        self.reloads.note(self.item.as_ref(), error);
    }
}

fn stamps(item: &dyn Reload) -> Vec<Option<Stamp>> {
    item.files().iter().map(|path| Stamp::of(path)).collect()
}

/// Looks at the files of `items` until `stop` is cancelled, and says in `reloads` how that went. Make it
/// before they are first read.
pub fn watch(
    items: Vec<Arc<dyn Reload>>,
    reloads: &Reloads,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let watched = |item| Watched::new(item, reloads.clone());
    let mut watched: Vec<Watched> = items.into_iter().map(watched).collect();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            for one in &mut watched {
                one.look_on().await;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Text {
        path: PathBuf,
        read: Mutex<Vec<String>>,
    }

    impl Reload for Text {
        fn what(&self) -> &'static str {
            "text"
        }

        fn label(&self) -> &'static str {
            "text"
        }

        fn files(&self) -> Vec<PathBuf> {
            vec![self.path.clone()]
        }

        fn reload(&self) -> Result<(), String> {
            let text = std::fs::read_to_string(&self.path).map_err(|error| error.to_string())?;
            assert_ne!(text, "odd", "it panics");
            self.read.lock().unwrap().push(text);
            Ok(())
        }
    }

    #[test]
    fn a_file_is_read_once_for_every_change_in_place_or_by_another_link() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("link");
        for name in ["a", "b"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("a", &path).unwrap();
        let text = Arc::new(Text { path: path.clone(), read: Mutex::default() });
        let reloads = Reloads::default();
        let mut watched = Watched::new(text.clone(), reloads.clone());
        let failed = || reloads.all()[0].1.error.is_some();
        watched.look();
        assert!(text.read.lock().unwrap().is_empty());

        std::os::unix::fs::symlink("b", dir.path().join("next")).unwrap();
        std::fs::rename(dir.path().join("next"), &path).unwrap();
        watched.look();
        watched.look();
        std::fs::write(dir.path().join("b"), "longer").unwrap();
        watched.look();
        assert!(!failed());
        std::fs::remove_file(&path).unwrap();
        watched.look();
        watched.look();
        assert_eq!(*text.read.lock().unwrap(), ["b", "longer"]);
        assert!(failed(), "until it is mended");
        std::fs::write(&path, "mended").unwrap();
        watched.look();
        assert!(!failed());
    }

    #[tokio::test]
    async fn a_file_that_makes_its_reader_panic_is_one_that_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "first").unwrap();
        let text = Arc::new(Text { path: path.clone(), read: Mutex::default() });
        let reloads = Reloads::default();
        let mut watched = Watched::new(text.clone(), reloads.clone());
        std::fs::write(&path, "odd").unwrap();
        watched.look_on().await;
        let error = reloads.all()[0].1.error.clone().unwrap();
        assert!(error.contains("it panics"), "{error}");
        std::fs::write(&path, "mended").unwrap();
        watched.look_on().await;
        assert_eq!(*text.read.lock().unwrap(), ["mended"]);
        assert!(reloads.all()[0].1.error.is_none());
    }
}
