//! Options of promotion.

use std::path::{Path, PathBuf};

use kiln_deploy::promotion::{MAX_PIPELINE_BYTES, Pipeline};
use kiln_deploy::signing::KeyRing;
use kiln_net::{causes, files};

use crate::serve::webhook::WebhookOptions;

#[derive(Debug, Clone)]
pub struct PromotionOptions {
    /// The file of environments; `None`: there are none.
    pub policy: Option<PathBuf>,
    /// The environments that the file declared at the start.
    pub pipeline: Option<Pipeline>,
    /// The keys whose signatures count; `None`: the server's own.
    pub keys: Option<KeyRing>,
    pub keys_file: Option<PathBuf>,
    pub webhook: Option<WebhookOptions>,
}

/// Bytes of a key, or of a policy of keys.
const MAX_KEY_BYTES: usize = 1 << 20;

/// Reads the file of environments; errors in words.
pub fn read_pipeline(path: &Path) -> Result<Pipeline, String> {
    let text = text(path, MAX_PIPELINE_BYTES)?;
    Pipeline::read(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Reads the file of keys that count; errors in words.
pub fn read_keys(path: &Path) -> Result<KeyRing, String> {
    let ring = KeyRing::read("release", &text(path, MAX_KEY_BYTES)?);
    ring.map_err(|error| format!("{}: {}", path.display(), causes::chain(&error)))
}

fn text(path: &Path, limit: usize) -> Result<String, String> {
    let shown = path.display();
    let text = files::read_text(path).map_err(|error| format!("{shown}: {error}"))?;
    if text.len() > limit {
        return Err(format!("{shown}: it has more than {limit} bytes"));
    }
    Ok(text)
}
