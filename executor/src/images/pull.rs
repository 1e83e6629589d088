//! One image from its name to a directory: documents, then layers, each checked before it is used.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use kiln_cas::{Digest, DigestFunction};
use kiln_net::counts::duration;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::blob::Sink;
use super::config::ImagesConfig;
use super::layout;
use super::manifest::{
    self, Compression, Document, Environment, Layer, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, Manifest,
};
use super::problem::Problem;
use super::reference::{ImageReference, ImageSource};
use super::registry::Registry;
use super::registry::http::Http;
use super::store::{Store, Unpacked};
use super::unpack::{self, Budget, Tree, UnpackError};

/// How many layers of one image are fetched at the same time.
const FETCHES: usize = 3;
const READ_BUFFER: usize = 256 << 10;
/// Directory and name of the files that the sandbox mounts its own over.
const MOUNT_POINTS: [(&str, &str); 2] = [("etc", "hosts"), ("etc", "resolv.conf")];

pub struct Puller {
    config: ImagesConfig,
    /// The HTTP client, made at its first use: reading the authorities takes time and memory.
    http: OnceLock<Arc<Http>>,
}

/// An image that is on disk.
pub struct Pulled {
    pub unpacked: Unpacked,
    /// The directory in which the image is now.
    pub directory: PathBuf,
    /// Bytes of all its layers together, compressed.
    pub fetched: u64,
}

impl Puller {
    pub fn new(config: ImagesConfig) -> Self {
        Self { config, http: OnceLock::new() }
    }

    pub async fn pull(&self, image: &ImageReference, store: &Store) -> Result<Pulled, Problem> {
        let limit = self.config.timing.pull;
        let pulled = tokio::time::timeout(limit, self.try_pull(image, store)).await;
        pulled.unwrap_or_else(|_| {
            Err(Problem::passing(format!("pulling it took longer than {}", duration(limit))))
        })
    }

    async fn try_pull(&self, image: &ImageReference, store: &Store) -> Result<Pulled, Problem> {
        let staging = store.staging(&image.digest);
        let staging = staging.map_err(|error| Problem::local("make a place for it", error))?;
        let source = Source::open(&image.source, self).await?;
        let fetch = Fetch { source: &source, staging: Arc::new(staging) };
        let manifest = fetch.manifest(&image.digest).await?;
        let config = fetch.small(&manifest.config, MAX_CONFIG_BYTES).await?;
        let environment = manifest::environment(&config)?;
        let fetched = self.check_size(&manifest, store)?;
        let budget = Budget { entries: self.config.limits.entries, bytes: store.max_bytes() };
        fetch.layers(&manifest.layers, budget).await?;
        let unpacked = finish(fetch.staging, image.to_string(), environment).await?;
        let directory =
            store.publish(&unpacked).map_err(|error| Problem::local("keep it", error))?;
        Ok(Pulled { unpacked, directory, fetched })
    }

    fn check_size(&self, manifest: &Manifest, store: &Store) -> Result<u64, Problem> {
        let sizes = manifest.layers.iter().map(|layer| layer.blob.size);
        let bytes = sizes.fold(0, u64::saturating_add);
        if bytes > store.max_bytes() {
            return Err(Problem::Final(format!(
                "its layers have {bytes} bytes, more than the {} that this worker may keep \
                 (images.max_size)",
                store.max_bytes()
            )));
        }
        Ok(bytes)
    }

    fn http(&self) -> Result<Arc<Http>, Problem> {
        if let Some(http) = self.http.get() {
            return Ok(http.clone());
        }
        let http = Arc::new(Http::new(&self.config)?);
        Ok(self.http.get_or_init(|| http).clone())
    }
}

enum Source {
    Registry(Registry),
    Layout(PathBuf),
}

impl Source {
    async fn open(source: &ImageSource, puller: &Puller) -> Result<Self, Problem> {
        Ok(match source {
            ImageSource::Layout(path) => Self::Layout(path.clone()),
            ImageSource::Registry { host, repository } => {
                let auth = puller.config.auth_file.as_deref();
                Self::Registry(Registry::open(puller.http()?, host, repository, auth).await?)
            }
        })
    }

    /// Fetches a document. Its bytes are not checked yet.
    async fn document(&self, hex: &str) -> Result<Bytes, Problem> {
        match self {
            Self::Registry(registry) => registry.manifest(hex).await,
            Self::Layout(path) => {
                let (path, hex) = (path.clone(), hex.to_owned());
                blocking(move || layout::read(&path, &hex, MAX_MANIFEST_BYTES))
                    .await
                    .map(Bytes::from)
            }
        }
    }

    async fn blob(&self, digest: Digest, mut sink: Sink) -> Result<(), Problem> {
        match self {
            Self::Registry(registry) => registry.blob(&digest, &mut sink).await,
            Self::Layout(path) => {
                let path = path.clone();
                blocking(move || layout::copy(&path, &digest, &mut sink)).await
            }
        }
    }
}

struct Fetch<'a> {
    source: &'a Source,
    staging: Arc<TempDir>,
}

impl Fetch<'_> {
    /// Reads the manifest of the image for this machine, where the digest names an index.
    async fn manifest(&self, hex: &str) -> Result<Manifest, Problem> {
        match self.document(hex).await? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(choices) => {
                let chosen = manifest::choose(&choices)?;
                match self.document(&chosen.hex()).await? {
                    Document::Manifest(manifest) => Ok(manifest),
                    Document::Index(_) => {
                        Err(Problem::Final("its index leads to another index".to_owned()))
                    }
                }
            }
        }
    }

    async fn document(&self, hex: &str) -> Result<Document, Problem> {
        let bytes = self.source.document(hex).await?;
        let found = DigestFunction::Sha256.digest(&bytes).hex();
        if found != hex {
            return Err(Problem::Final(format!(
                "what stands under sha256:{hex} has other bytes than its digest says (they are \
                 sha256:{found})"
            )));
        }
        manifest::read(&bytes)
    }

    async fn small(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, Problem> {
        if digest.size > limit {
            let size = digest.size;
            return Err(Problem::Final(format!(
                "its configuration has {size} bytes, more than {limit}"
            )));
        }
        let path = self.blob(*digest, "config").await?;
        std::fs::read(path).map_err(|error| Problem::local("read its configuration", error))
    }

    /// Fetches a blob into a file with exactly the bytes that the digest names.
    async fn blob(&self, digest: Digest, name: &str) -> Result<PathBuf, Problem> {
        let path = self.staging.path().join(name);
        self.source.blob(digest, Sink::create(&path, digest)?).await?;
        Ok(path)
    }

    /// Fetches layers a few at a time and unpacks them in their order, each while others come.
    async fn layers(&self, layers: &[Layer], budget: Budget) -> Result<(), Problem> {
        let tree = Tree::open(&Store::root_of(&self.staging)).map_err(unpack_problem)?;
        let mut state = (tree, budget);
        let fetches = layers.iter().cloned().enumerate().map(|(number, layer)| async move {
            self.blob(layer.blob, &format!("layer-{number}")).await.map(|path| (layer, path))
        });
        let mut fetched = stream::iter(fetches).buffered(FETCHES);
        let mut next = fetched.next().await.transpose()?;
        while let Some((layer, path)) = next {
            let unpacking = unpack_layer(state, layer, path, self.staging.clone());
            let (unpacked, following) = tokio::join!(unpacking, fetched.next());
            state = unpacked?;
            next = following.transpose()?;
        }
        Ok(())
    }
}

/// Removes the layer's file when it is done. The staging place lives until this ends, whoever is gone.
async fn unpack_layer(
    (mut tree, mut budget): (Tree, Budget),
    layer: Layer,
    path: PathBuf,
    staging: Arc<TempDir>,
) -> Result<(Tree, Budget), Problem> {
    let (stop, _guard) = stop_when_dropped();
    let work = move || {
        let _staging = staging;
        let opened = open_layer(&path, layer.compression);
        let reader = opened.map_err(|error| Problem::local("open a layer", error))?;
        unpack::apply(&mut tree, reader, &mut budget, &stop).map_err(|error| {
            unpack_problem(error).of(format_args!("its layer sha256:{}", layer.blob.hex()))
        })?;
        std::fs::remove_file(&path).map_err(|error| Problem::local("remove a layer", error))?;
        Ok((tree, budget))
    };
    blocking(work).await
}

/// A token that is cancelled when the guard is dropped: a thread that blocks cannot be cancelled
/// otherwise.
fn stop_when_dropped() -> (CancellationToken, DropGuard) {
    let stop = CancellationToken::new();
    (stop.clone(), stop.drop_guard())
}

fn open_layer(path: &Path, compression: Compression) -> std::io::Result<Box<dyn Read>> {
    let file = BufReader::with_capacity(READ_BUFFER, File::open(path)?);
    Ok(match compression {
        Compression::None => Box::new(file),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
    })
}

/// Describes the image and brings all of it to disk.
async fn finish(
    staging: Arc<TempDir>,
    name: String,
    environment: Environment,
) -> Result<Unpacked, Problem> {
    blocking(move || {
        let described = |error| Problem::local("describe it", error);
        let config = staging.path().join("config");
        std::fs::remove_file(config).map_err(described)?;
        let mut tree = Tree::open(&Store::root_of(&staging)).map_err(unpack_problem)?;
        let bytes = tree.finish(&MOUNT_POINTS).map_err(unpack_problem)?;
        Store::describe(&staging, name, bytes, &environment).map_err(described)?;
        tree.sync().map_err(unpack_problem)?;
        Ok(Unpacked { staging, environment, bytes })
    })
    .await
}

fn unpack_problem(error: impl Into<UnpackError>) -> Problem {
    match error.into() {
        UnpackError::Layer(text) => Problem::Final(text),
        UnpackError::Local(text) => Problem::Local(text),
        error @ UnpackError::Stopped => Problem::passing(error.to_string()),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let done: Result<Result<T, Problem>, _> = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Problem::local("unpack it", error)))
}
