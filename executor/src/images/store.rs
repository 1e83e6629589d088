//! Unpacked images on disk: which are there, which are in use, and which make room.
//!
//! Each lies in a directory of its own, `HEX-RANDOM` with `root/` and `image.json`, which came there
//! complete by a rename. No name is used twice: a sandbox that still has a removed image mounted must
//! not take a new one for it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::manifest::Environment;

/// Pulls on their way and images on their way out; emptied at the start.
const UNFINISHED: &str = "unfinished";
const DESCRIPTION: &str = "image.json";
const ROOT: &str = "root";

/// An unpacked image, kept for as long as this is held.
#[derive(Debug)]
pub struct Image {
    directory: PathBuf,
    pub environment: Environment,
    bytes: u64,
    used: Mutex<SystemTime>,
}

impl Image {
    /// The directory of its root file system.
    pub fn root(&self) -> PathBuf {
        self.directory.join(ROOT)
    }

    /// The time of the description on disk is that of the last use, for the worker after this one.
    fn touch(&self) {
        let now = SystemTime::now();
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = now;
        let opened = File::options().append(true).open(self.directory.join(DESCRIPTION));
        if let Err(error) = opened.and_then(|file| file.set_modified(now)) {
            tracing::debug!(%error, "the use of an image was not noted");
        }
    }

    fn used(&self) -> SystemTime {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A complete image in a place that is still temporary.
pub struct Unpacked {
    pub staging: Arc<TempDir>,
    pub environment: Environment,
    /// Bytes that the image takes on disk.
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Description {
    /// The reference with which it was asked for, for people to read.
    image: String,
    bytes: u64,
    environment: Environment,
}

pub struct Store {
    directory: PathBuf,
    max_bytes: u64,
    /// Unpacked images by their digests.
    images: Mutex<HashMap<String, Arc<Image>>>,
}

impl Store {
    pub fn open(directory: &Path, max_bytes: u64) -> io::Result<Self> {
        let unfinished = directory.join(UNFINISHED);
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        fs::create_dir_all(&unfinished)?;
        let mut images = HashMap::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path == unfinished {
                continue;
            }
            match known(&path) {
                Some((digest, image)) => {
                    images.insert(digest, Arc::new(image));
                }
                None => {
                    tracing::warn!(path = %path.display(), "removing what is no complete image");
                    fs::remove_dir_all(&path)?;
                }
            }
        }
        let directory = directory.to_owned();
        let store = Self { directory, max_bytes, images: Mutex::new(images) };
        store.evict(&mut store.lock());
        Ok(store)
    }

    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// A place to unpack an image in, on the same file system as the store.
    pub fn staging(&self, digest: &str) -> io::Result<TempDir> {
        let staging = tempfile::Builder::new()
            .prefix(&format!("{digest}-"))
            .tempdir_in(self.directory.join(UNFINISHED))?;
        fs::create_dir(staging.path().join(ROOT))?;
        Ok(staging)
    }

    /// The directory in a staging place into which the image's files go.
    pub fn root_of(staging: &TempDir) -> PathBuf {
        staging.path().join(ROOT)
    }

    /// Writes the description of the image, which is the last file of a complete one.
    pub fn describe(
        staging: &TempDir,
        image: String,
        bytes: u64,
        environment: &Environment,
    ) -> io::Result<()> {
        let description = Description { image, bytes, environment: environment.clone() };
        let text = serde_json::to_vec(&description).map_err(io::Error::other)?;
        fs::write(staging.path().join(DESCRIPTION), text)
    }

    /// Makes a complete image, described and on disk, one of the store's; others make room.
    pub fn publish(&self, unpacked: &Unpacked) -> io::Result<PathBuf> {
        let from = unpacked.staging.path();
        let name =
            from.file_name().ok_or_else(|| io::Error::other("a staging place without name"))?;
        let to = self.directory.join(name);
        fs::rename(from, &to)?;
        Ok(to)
    }

    /// Adds an image that [`publish`](Self::publish) has put into `directory` to those that this
    /// process knows.
    pub fn add(&self, digest: String, directory: PathBuf, unpacked: Unpacked) -> Arc<Image> {
        let Unpacked { environment, bytes, .. } = unpacked;
        let used = Mutex::new(SystemTime::now());
        let image = Arc::new(Image { directory, environment, bytes, used });
        let mut images = self.lock();
        images.insert(digest, image.clone());
        self.evict(&mut images);
        image
    }

    pub fn get(&self, digest: &str) -> Option<Arc<Image>> {
        let image = self.lock().get(digest).cloned()?;
        image.touch();
        Some(image)
    }

    /// How many images there are, and their bytes.
    pub fn size(&self) -> (u64, u64) {
        let images = self.lock();
        (images.len() as u64, images.values().map(|image| image.bytes).sum())
    }

    /// Moves what was not used for the longest time out of the way, never what is in use.
    fn evict(&self, images: &mut HashMap<String, Arc<Image>>) {
        let mut bytes: u64 = images.values().map(|image| image.bytes).sum();
        while bytes > self.max_bytes {
            let idle = images.iter().filter(|(_, image)| Arc::strong_count(image) == 1);
            let oldest =
                idle.min_by_key(|(_, image)| image.used()).map(|(digest, _)| digest.clone());
            let Some(image) = oldest.and_then(|digest| images.remove(&digest)) else { return };
            bytes -= image.bytes;
            self.discard(&image.directory);
        }
    }

    /// Renames a directory at once and removes it by and by: large images have many files.
    fn discard(&self, directory: &Path) {
        let Some(name) = directory.file_name() else { return };
        let to = self.directory.join(UNFINISHED).join(name);
        if let Err(error) = fs::rename(directory, &to) {
            tracing::warn!(%error, image = %directory.display(), "an image cannot be removed");
            return;
        }
        let removal = move || {
            if let Err(error) = fs::remove_dir_all(&to) {
                tracing::warn!(%error, image = %to.display(), "an image is removed at the next start");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(removal)),
            Err(_) => removal(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Image>>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn known(directory: &Path) -> Option<(String, Image)> {
    let (digest, _) = directory.file_name()?.to_str()?.split_once('-')?;
    let path = directory.join(DESCRIPTION);
    let Description { bytes, environment, .. } =
        serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
    let used = Mutex::new(fs::metadata(&path).and_then(|it| it.modified()).ok()?);
    let directory = directory.to_owned();
    directory.join(ROOT).is_dir().then_some(())?;
    Some((digest.to_owned(), Image { directory, environment, bytes, used }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(store: &Store, digest: &str, bytes: u64) -> Arc<Image> {
        let staging = store.staging(digest).unwrap();
        fs::write(Store::root_of(&staging).join("file"), digest).unwrap();
        let environment = vec![("A".to_owned(), digest.to_owned())];
        Store::describe(&staging, digest.to_owned(), bytes, &environment).unwrap();
        let unpacked = Unpacked { staging: Arc::new(staging), environment, bytes };
        let directory = store.publish(&unpacked).unwrap();
        store.add(digest.to_owned(), directory, unpacked)
    }

    fn names(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn the_least_recently_used_makes_room_unless_it_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), 100).unwrap();
        let a = add(&store, "a", 40);
        drop(add(&store, "b", 40));
        drop(add(&store, "c", 40));
        assert!(store.get("b").is_none(), "idle and the oldest");
        assert_eq!(fs::read_to_string(a.root().join("file")).unwrap(), "a", "in use");
        assert!(store.get("c").is_some());
        assert_eq!(store.size(), (2, 80));
        let c = store.get("c").unwrap();
        drop(add(&store, "d", 90));
        assert_eq!(store.size().0, 3, "two in use, and the new one");
        drop((a, c));
        drop(add(&store, "e", 10));
        assert_eq!(store.size(), (2, 100), "d and e: a and c are idle and older");
        assert_eq!(names(&dir.path().join(UNFINISHED)), 0);
    }

    #[test]
    fn what_is_complete_survives_and_what_is_not_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), 100).unwrap();
        drop(add(&store, "a", 40));
        std::mem::forget(store.staging("b").unwrap());
        let broken = add(&store, "c", 1);
        fs::write(broken.directory.join(DESCRIPTION), "{").unwrap();
        drop(store);
        let store = Store::open(dir.path(), 100).unwrap();
        let a = store.get("a").unwrap();
        assert_eq!(a.environment, [("A".to_owned(), "a".to_owned())]);
        assert!(store.get("b").is_none() && store.get("c").is_none());
        assert_eq!(names(dir.path()), 2, "a, and the place for what is unfinished");
        drop(a);
        drop(Store::open(dir.path(), 10).unwrap());
        assert_eq!(names(dir.path()), 1, "a smaller store");
    }

    #[test]
    fn the_time_of_the_last_use_survives() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), 100).unwrap();
        for digest in ["a", "b"] {
            let image = add(&store, digest, 40);
            let past = SystemTime::now() - std::time::Duration::from_secs(1000);
            let file =
                File::options().append(true).open(image.directory.join(DESCRIPTION)).unwrap();
            file.set_modified(past).unwrap();
        }
        store.get("a").unwrap();
        drop(store);
        let store = Store::open(dir.path(), 50).unwrap();
        assert!(store.get("a").is_some() && store.get("b").is_none());
    }
}
