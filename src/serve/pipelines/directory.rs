//! Pipelines that the operator declares: the files of a directory, read again and again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiln_ci::pipelines::control::{Registered, Registry};
use kiln_ci::pipelines::file::read;
use kiln_net::causes::chain;

use super::options::PipelineOptions;

/// How often the directory is read.
const EVERY: Duration = Duration::from_secs(15);
/// Files of the directory that are read.
const MAX_FILES: usize = 1_000;

type Found = Arc<BTreeMap<String, Registered>>;

pub struct Directory {
    path: Option<PathBuf>,
    instance: String,
    found: Mutex<Found>,
}

impl Directory {
    /// Reads the directory for the first time. What is wrong now was told when the configuration
    /// was read.
    pub fn new(options: &PipelineOptions) -> Self {
        let (path, instance) = (options.directory.clone(), options.instance.clone());
        let found = path.as_deref().map(|path| read_pipelines(path, &instance));
        let found = found.and_then(Result::ok).unwrap_or_default();
        Self { path, instance, found: Mutex::new(Arc::new(found)) }
    }

    /// Reads the directory again and again. Never returns; drop it to end it. A directory with an
    /// error leaves all pipelines as they were.
    pub async fn keep_read(self: Arc<Self>) {
        let Some(path) = self.path.clone() else { return std::future::pending().await };
        let mut told = String::new();
        loop {
            tokio::time::sleep(EVERY).await;
            let (path, instance) = (path.clone(), self.instance.clone());
            let reading = tokio::task::spawn_blocking(move || read_pipelines(&path, &instance));
            match reading.await {
                Ok(Ok(found)) => {
                    told.clear();
                    *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(found);
                }
                Ok(Err(error)) if error != told => {
                    tracing::warn!(error, "the pipelines of before stay");
                    told = error;
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }
}

impl Registry for Directory {
    fn pipelines(&self) -> Found {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Reads every `*.toml` of a directory; errors in words, with the place.
pub fn read_pipelines(
    directory: &Path,
    instance: &str,
) -> Result<BTreeMap<String, Registered>, String> {
    let shown = directory.display();
    let failed = |error| format!("{shown}: {error}");
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|it| it == "toml") {
            paths.push(path);
        }
    }
    if paths.len() > MAX_FILES {
        return Err(format!("{shown}: more than {MAX_FILES} files"));
    }
    paths.sort();
    let mut found: BTreeMap<String, Registered> = BTreeMap::new();
    for path in paths {
        let shown = path.display();
        let text =
            kiln_net::files::read_text(&path).map_err(|error| format!("{shown}: {error}"))?;
        let declared = read(&text).map_err(|error| format!("{shown}: {}", chain(&error)))?;
        let (name, instance) = (declared.name.clone(), instance.to_owned());
        let registered = Registered { declared: Arc::new(declared), instance };
        if found.insert(name.clone(), registered).is_some() {
            return Err(format!("{shown}: another file has a pipeline {name:?} as well"));
        }
    }
    Ok(found)
}
