//! Container images as root file systems of actions.
//!
//! An image is named by its digest ([`ImageReference`]), pulled from a registry or an image layout on
//! this machine, checked blob by blob, and unpacked once into the worker's directory. It stays there
//! until others need its place.
//!
//! | module | what it does |
//! | --- | --- |
//! | `reference`, `allow` | the property's value, and which values the operator allows |
//! | `registry`, `layout` | where blobs come from |
//! | `blob`, `manifest` | their bytes are checked; what they say |
//! | `pull` | one image from its name to a directory |
//! | `unpack` | layers become files |
//! | `store` | what is there, what is in use, what has to go |

mod allow;
mod blob;
mod config;
mod layout;
pub mod manifest;
mod problem;
mod pull;
mod reference;
mod registry;
mod stats;
mod store;
pub mod unpack;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};

pub use allow::AllowList;
pub use config::{ImageLimits, ImagesConfig, Timing};
pub use manifest::Environment;
pub use problem::Problem;
pub use reference::{ImageReference, ImageSource, ReferenceError, check_insecure};
pub use registry::login::check as check_auth_file;
pub use stats::{ImageFigures, ImageStats};
pub use store::Image;

use self::pull::{Pulled, Puller};
use self::store::Store;

type PullFuture = BoxFuture<'static, Result<Arc<Image>, Problem>>;

/// The images of a worker.
pub struct Images {
    allow: AllowList,
    puller: Puller,
    store: Store,
    stats: Arc<ImageStats>,
    /// The pulls that are under way, by the digest of the image; one that nobody waits for any more
    /// ends by itself.
    pulls: Mutex<HashMap<String, WeakShared<PullFuture>>>,
}

enum Found {
    Ready(Arc<Image>),
    Coming(Shared<PullFuture>),
}

impl Images {
    /// Opens the images in `directory`, which is this worker's alone. What an earlier worker left
    /// unfinished there is removed.
    pub fn open(
        directory: &Path,
        config: ImagesConfig,
        stats: Arc<ImageStats>,
    ) -> std::io::Result<Self> {
        let store = Store::open(directory, config.limits.bytes)?;
        let allow = config.allow.clone();
        let puller = Puller::new(config);
        let images = Self { allow, puller, store, stats, pulls: Mutex::default() };
        images.show_store();
        Ok(images)
    }

    /// The unpacked image; it stays for as long as this is held. Requests for one image at the same
    /// time share one pull, which ends when nobody waits for it any more.
    pub async fn get(self: &Arc<Self>, image: &ImageReference) -> Result<Arc<Image>, Problem> {
        let outcome = match self.check(image) {
            Err(problem) => Err(problem),
            Ok(()) => match self.find(image) {
                Found::Ready(image) => return Ok(image),
                Found::Coming(pull) => pull.await,
            },
        };
        outcome.map_err(|problem| problem.of(format_args!("container image {image}")))
    }

    pub fn stats(&self) -> Arc<ImageStats> {
        self.stats.clone()
    }

    fn check(&self, image: &ImageReference) -> Result<(), Problem> {
        if self.allow.allows(image) {
            return Ok(());
        }
        Err(Problem::Final(
            "this worker does not allow it: name its registry or directory in images.allow".into(),
        ))
    }

    fn find(self: &Arc<Self>, image: &ImageReference) -> Found {
        let mut pulls = self.pulls();
        if let Some(image) = self.store.get(&image.digest) {
            self.stats.hit();
            return Found::Ready(image);
        }
        if let Some(pull) = pulls.get(&image.digest).and_then(WeakShared::upgrade) {
            return Found::Coming(pull);
        }
        pulls.retain(|_, pull| pull.upgrade().is_some());
        let pull = self.clone().pull(image.clone()).boxed().shared();
        if let Some(weak) = pull.downgrade() {
            pulls.insert(image.digest.clone(), weak);
        }
        Found::Coming(pull)
    }

    async fn pull(self: Arc<Self>, image: ImageReference) -> Result<Arc<Image>, Problem> {
        let begin = Instant::now();
        let unfinished = self.stats.begin();
        let pulled = self.puller.pull(&image, &self.store).await;
        let seconds = begin.elapsed();
        let mut pulls = self.pulls();
        pulls.remove(&image.digest);
        unfinished.end(&pulled, seconds);
        let Pulled { unpacked, directory, fetched } = pulled.inspect_err(
            |problem| tracing::warn!(%image, %problem, ?seconds, "an image was not pulled"),
        )?;
        tracing::info!(%image, fetched, bytes = unpacked.bytes, ?seconds, "an image was pulled");
        let image = self.store.add(image.digest, directory, unpacked);
        drop(pulls);
        self.show_store();
        Ok(image)
    }

    fn show_store(&self) {
        let (images, bytes) = self.store.size();
        self.stats.set_store(images, bytes);
    }

    fn pulls(&self) -> MutexGuard<'_, HashMap<String, WeakShared<PullFuture>>> {
        self.pulls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
