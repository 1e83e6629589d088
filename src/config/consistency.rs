//! Values that are right by themselves and contradict each other.

use super::error::ConfigError;
use super::setting::Origin;
use super::settings::Settings;

pub fn check(settings: &Settings) -> Result<(), ConfigError> {
    promises(settings)?;
    sizes(settings)
}

fn promises(settings: &Settings) -> Result<(), ConfigError> {
    let [least, lease] = ["storage.min_lease", "storage.lease"].map(|name| settings.duration(name));
    // The default holds for any lease, of which it is a part.
    if least <= lease || settings.get("storage.min_lease").origin == Origin::Default {
        return Ok(());
    }
    Err(ConfigError::Combination(format!(
        "storage.min_lease = {} is more than storage.lease = {}: what remains of a promise that is cut \
         short cannot be longer than the promise",
        settings.text("storage.min_lease"),
        settings.text("storage.lease"),
    )))
}

/// Checks that the largest blob fits into the store: S3 in a fleet, where the local disk holds
/// copies only, and else the local disk.
fn sizes(settings: &Settings) -> Result<(), ConfigError> {
    let (largest, all) = match settings.text("s3.url") {
        "" => ("storage.max_blob_size", "storage.max_size"),
        _ => ("storage.max_blob_size", "s3.max_size"),
    };
    let size = |name| settings.size(name).filter(|size| *size > 0);
    match (size(largest), size(all)) {
        (Some(blob), Some(store)) if blob > store => Err(ConfigError::Combination(format!(
            "{largest} = {} is more than {all} = {}: a blob of that size could not be stored",
            settings.text(largest),
            settings.text(all),
        ))),
        _ => Ok(()),
    }
}
