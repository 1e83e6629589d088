//! Container images: pulled from registries that behave and that do not, and unpacked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod build;
mod faults;
mod layers;
mod pulls;
mod registry;
mod store;
mod umoci;

use std::sync::Arc;
use std::time::Duration;

use kiln_executor::images::{
    AllowList, Image, ImageReference, Images, ImagesConfig, Problem, Timing,
};

/// Time limits and pauses that are short enough for tests that wait for their end.
pub fn timing() -> Timing {
    Timing {
        connect: Duration::from_secs(5),
        answer: Duration::from_secs(5),
        idle: Duration::from_secs(5),
        attempts: 3,
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(20),
        ..Timing::default()
    }
}

pub fn config(allowed: &[&str]) -> ImagesConfig {
    let allowed: Vec<String> = allowed.iter().map(|&entry| entry.to_owned()).collect();
    let allow = AllowList::new(&allowed).unwrap();
    ImagesConfig { allow, timing: timing(), ..ImagesConfig::default() }
}

/// A store of images in a directory of its own.
pub struct House {
    pub dir: tempfile::TempDir,
    pub images: Arc<Images>,
}

impl House {
    pub fn new(config: ImagesConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::open(dir.path(), config, Arc::default()).unwrap();
        Self { dir, images: Arc::new(images) }
    }

    /// A store that allows images of every registry.
    pub fn open() -> Self {
        Self::new(config(&["*"]))
    }

    pub async fn get(&self, image: &str) -> Result<Arc<Image>, Problem> {
        let image: ImageReference = image.parse().unwrap();
        self.images.get(&image).await
    }

    /// Asserts that failed pulls have left nothing behind.
    pub fn assert_clean(&self) {
        let unfinished = std::fs::read_dir(self.dir.path().join("unfinished")).unwrap();
        let left: Vec<_> = unfinished.flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

pub fn read(image: &Image, path: &str) -> String {
    std::fs::read_to_string(image.root().join(path)).unwrap()
}
