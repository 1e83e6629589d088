//! What several crates are given alike.

use std::sync::Arc;

use kiln_cas::access::SharedAuthorizer;
use kiln_cas::events::Events;
use kiln_cas::logs::LogStreams;
use kiln_cas::services::{QuotaLimits, Quotas};
use kiln_cas::stores::Storage;

use super::admission::Admission;
use super::options::{ServeError, ServeOptions};
use crate::reload::Reloads;

/// What several crates are given alike.
pub struct Common {
    pub access: SharedAuthorizer,
    pub events: Events,
    pub logs: LogStreams,
    pub quotas: Arc<Quotas>,
    pub base_url: String,
    pub reloads: Reloads,
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
        })
    }
}
