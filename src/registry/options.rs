//! Options of a registry.

use std::time::Duration;

use crate::auth::pattern::Pattern;

#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Whether `/v2/` is answered at all.
    pub on: bool,
    /// Whether anything may be deleted, by those who may.
    pub delete: bool,
    /// Tags that pushes may not write: `TAG`, or `REPOSITORY:TAG`.
    pub protected_tags: Vec<Pattern>,
    pub max_uploads: usize,
    /// Bytes of all uploads under way.
    pub max_upload_bytes: u64,
    pub upload_age: Duration,
}
