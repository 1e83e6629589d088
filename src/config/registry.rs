//! From settings to the registry.

use super::settings::Settings;
use crate::auth::pattern::Pattern;
use crate::registry::RegistryOptions;

pub fn registry(settings: &Settings) -> RegistryOptions {
    let count = settings.number("registry.max_uploads").unwrap_or(0);
    RegistryOptions {
        on: settings.flag("registry.serve"),
        delete: settings.flag("registry.delete"),
        protected_tags: settings
            .list("registry.protected_tags")
            .into_iter()
            .map(Pattern::from)
            .collect(),
        max_uploads: usize::try_from(count).unwrap_or(usize::MAX),
        max_upload_bytes: settings.size("registry.max_upload_bytes").unwrap_or(u64::MAX),
        upload_age: settings.duration("registry.upload_age"),
    }
}
