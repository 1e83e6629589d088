//! What promotion is started with.

use std::path::{Path, PathBuf};

use kiln_deploy::promotion::{MAX_PIPELINE_BYTES, Pipeline};
use kiln_deploy::signing::KeyRing;

use crate::serve::webhook::WebhookOptions;

#[derive(Debug, Clone)]
pub struct PromotionOptions {
    /// The file of environments; `None`: there are none.
    pub policy: Option<PathBuf>,
    /// What it said at the start.
    pub pipeline: Option<Pipeline>,
    /// Whose signatures count; `None`: the server's own.
    pub keys: Option<KeyRing>,
    pub webhook: Option<WebhookOptions>,
}

/// Reads the file of environments; errors in words.
pub fn read_pipeline(path: &Path) -> Result<Pipeline, String> {
    use std::io::Read as _;
    let shown = path.display();
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| format!("{shown}: {error}"))?;
    // One byte more shows that it is too large.
    let read = file.take(MAX_PIPELINE_BYTES as u64 + 1).read_to_string(&mut text);
    read.map_err(|error| format!("{shown}: {error}"))?;
    Pipeline::read(&text).map_err(|error| format!("{shown}: {error}"))
}
