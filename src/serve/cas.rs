//! Starts the server's part of `kiln_cas`: services over its stores, the registry among them, and
//! the tasks that look after the stores.

use std::time::{Duration, Instant};

use kiln_cas::services::{CasServices, ServicesConfig};
use kiln_cas::stores::Storage;
use kiln_net::panics::spawn_resumed;
use tokio::task::JoinHandle;

use super::base::Base;
use super::options::{ServeError, ServeOptions};
use super::{admission, registry};
use crate::registry::RegistryState;

/// How often each frontend of a fleet looks after the records of blobs, which any of the frontends
/// may have collected.
const SWEEP_SHARED: Duration = Duration::from_secs(3600);

pub struct Cas {
    pub services: CasServices,
    /// State of the registry's handlers; `None`: there is no registry.
    pub registry: Option<RegistryState>,
    /// Removes records of evicted blobs, makes the promises of pinned blobs anew, and lets go of what no tag of the
    /// registry needs. None of these tasks ends by itself.
    pub upkeep: Vec<JoinHandle<()>>,
}

/// Starts the services over stores; `asks`: whether callers have to prove who they are. Must be
/// called within a Tokio runtime.
pub fn start(options: &ServeOptions, base: &Base, asks: bool) -> Result<Cas, ServeError> {
    let storage = &base.storage;
    let services = services(options, base)?;
    storage.on_full(services.give_up_uploads());
    let sweeping = tokio::spawn(services.keep_swept(&registry::REMEMBERED, evictions(storage)));
    let registry = registry::state(options, storage, &base.common, asks);
    let tidying = registry
        .clone()
        .map(|it| spawn_resumed("tidying the registry", move || it.registry.clone().keep_tidy()));
    let pins = storage.pins.clone();
    let pinning = spawn_resumed("renewing pins", move || pins.clone().keep_renewed());
    let upkeep = [sweeping, pinning].into_iter().chain(tidying).collect();
    Ok(Cas { services, registry, upkeep })
}

fn services(options: &ServeOptions, base: &Base) -> Result<CasServices, ServeError> {
    let (storage, common) = (&base.storage, &base.common);
    Ok(CasServices::new(ServicesConfig {
        blobs: storage.blobs.clone(),
        actions: storage.actions.clone(),
        records: storage.records.clone(),
        logs: common.logs.clone(),
        events: common.events.clone(),
        exec_enabled: true,
        access: common.access.clone(),
        invocations: storage.invocations.clone(),
        fetch: options.fetch.clone(),
        opaque: options.opaque.clone(),
        max_blob_size: options.max_blob_size,
        quotas: common.quotas.clone(),
        secret: admission::secret().map_err(ServeError::Random)?,
    }))
}

/// Returns a function whose number changes whenever blobs may have been evicted: in a fleet once in
/// each `SWEEP_SHARED`, else with each evicted blob.
fn evictions(storage: &Storage) -> impl Fn() -> u64 + Send + 'static {
    let (stats, started) = (storage.stats.clone(), Instant::now());
    move || match stats.shared_blobs() {
        None => stats.evicted_blobs(),
        Some(_) => started.elapsed().as_secs() / SWEEP_SHARED.as_secs(),
    }
}
