//! Values that several crates are given alike.

use std::sync::Arc;

use kiln_cas::access::SharedAuthorizer;
use kiln_cas::events::Events;
use kiln_cas::logs::LogStreams;
use kiln_cas::services::{QuotaLimits, Quotas};
use kiln_cas::stores::Storage;

use super::admission::{Admission, secret};
use super::options::{ServeError, ServeOptions};
use kiln_net::reload::Reloads;

/// Bytes of the name by which a server knows itself.
const NAME: usize = 16;

/// Values that several crates are given alike.
pub struct Common {
    pub access: SharedAuthorizer,
    pub events: Events,
    pub logs: LogStreams,
    pub quotas: Arc<Quotas>,
    pub base_url: String,
    pub reloads: Reloads,
    /// A random name that no other server has had or has, in hexadecimal digits.
    pub name: String,
}

impl Common {
    pub async fn new(
        options: &ServeOptions,
        admission: &Admission,
        storage: &Storage,
        base_url: String,
    ) -> Result<Self, ServeError> {
        let logs = match &storage.redis {
            None => LogStreams::default(),
            Some(redis) => LogStreams::join(redis.clone()).await?,
        };
        let limits = QuotaLimits { lease: options.storage.lease, ..options.quotas };
        Ok(Self {
            access: admission.authorizer(options),
            events: Events::new(),
            logs,
            quotas: Arc::new(Quotas::new(limits)),
            base_url,
            reloads: admission.reloads.clone(),
            name: name()?,
        })
    }
}

/// Makes a random name for this server, in hexadecimal digits.
fn name() -> Result<String, ServeError> {
    let random = secret().map_err(ServeError::Random)?;
    Ok(random.iter().take(NAME).map(|byte| format!("{byte:02x}")).collect())
}
