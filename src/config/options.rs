//! From settings to what the parts are started with.

use std::path::Path;
use std::thread::available_parallelism;
use std::time::Duration;

use kiln_cas::budget::MIN_BUDGET;
use kiln_cas::services::{CallerHeaders, FetchConfig, OpaqueInstances, QuotaLimits};
use kiln_cas::stores::StorageConfig;
use kiln_ci::CiOptions;
use kiln_ci::events::StreamLimits;
use kiln_ci::history::Policy;
use kiln_executor::WorkerConfig;
use kiln_net::Allowed;
use kiln_scheduler::hermeticity::HermeticityConfig;
use kiln_scheduler::journal::JournalConfig;
use kiln_scheduler::queue::Quota;
use kiln_scheduler::session::MAX_WORKER_ID;
use kiln_scheduler::{SchedulerConfig, SchedulerOptions};

use super::consistency;
use super::error::ConfigError;
use super::files;
use super::forges::forges;
use super::merge_queue::merge_queue;
use super::pipelines::pipelines;
use super::promotion::promotion;
use super::registry::registry;
use super::releases::releases;
use super::rollouts::rollouts;
use super::security::{auth, tls};
use super::settings::Settings;
use super::stages::stages;
use super::storage::{data_dir, shared_storage, storage};
use super::verdicts::verdicts;
use super::workers::{named_secrets, worker_config};
use crate::front::{FrontLimits, Listen, Resolved};
use crate::serve::ServeOptions;
use crate::status_server::StatusServerOptions;
use crate::telemetry::OtlpOptions;

/// How long a worker's own storage keeps a blob from eviction after it was read.
const LOCAL_LEASE: Duration = Duration::from_secs(10);
/// The directory within the data directory for downloads whose digest is not known yet.
const DOWNLOADS: &str = "downloads";
/// More front threads than this have nothing to do before the disk is busy.
const MAX_FRONT_THREADS: usize = 8;

/// Makes the options of `kiln serve` from settings that are consistent with each other.
pub fn serve_options(settings: &Settings) -> Result<ServeOptions, ConfigError> {
    consistency::check(settings)?;
    files::check(settings)?;
    let listen = resolved(settings, "server.listen")?;
    let (tls, auth) = (tls(settings)?, auth(settings)?);
    if !listen.is_loopback() && auth.is_none() && !settings.flag("server.insecure") {
        return Err(ConfigError::Combination(format!(
            "{} can be reached from other machines, and anybody there could read, write and \
             execute; say who may do what (--access-file, see docs/security.md), listen on \
             127.0.0.1, or give --insecure if the network is trusted",
            listen.listen()
        )));
    }
    let data_dir = data_dir(settings, "kiln")?;
    let slots = slots(settings, "workers.count");
    let id = format!("{}-{}", host(), listen.listen().port);
    let mut worker = worker_config(settings, id, &data_dir, slots)?;
    // The server waits for `server.drain` before it tells its worker to end; operators ask for no end.
    worker.asked_drain_timeout = Some(worker.drain_timeout);
    worker.drain_timeout = Duration::ZERO;
    // A worker elsewhere hears it from the server.
    worker.outputs.blob =
        settings.size("storage.max_blob_size").filter(|size| *size > 0).unwrap_or(u64::MAX);
    let (forges, stages, rollouts) = (forges(settings)?, stages(settings)?, rollouts(settings)?);
    worker.hidden.extend(named_secrets(&forges, &stages, &rollouts));
    let worker = (slots > 0).then_some(worker);
    let fetch = fetch(settings, &data_dir)?;
    let base_url = settings.text("server.base_url");
    Ok(ServeOptions {
        listen,
        limits: front_limits(settings),
        hosts: hosts(settings, "server.listen"),
        tls,
        auth,
        insecure: settings.flag("server.insecure"),
        base_url: (base_url != "auto").then(|| base_url.trim_end_matches('/').to_owned()),
        host_name: host(),
        front_threads: front_threads(settings),
        request_memory: request_memory(settings),
        storage: StorageConfig { shared: shared_storage(settings)?, ..storage(settings, data_dir) },
        scheduler: SchedulerOptions {
            scheduler: scheduler(settings)?,
            journal: journal(settings),
            hermeticity: hermeticity(settings),
        },
        tests: tests(settings),
        verdicts: verdicts(settings)?,
        releases: releases(settings)?,
        promotion: promotion(settings)?,
        rollouts,
        merge_queue: merge_queue(settings)?,
        forges,
        stages,
        pipelines: pipelines(settings)?,
        worker,
        allow_cache_updates: settings.flag("cache.allow_updates"),
        opaque: OpaqueInstances::new(settings.list("cache.opaque_instances")),
        fetch,
        max_blob_size: settings.size("storage.max_blob_size").unwrap_or(0),
        registry: registry(settings),
        quotas: QuotaLimits {
            caller_bytes: settings.size("quotas.caller_bytes").unwrap_or(0),
            instance_bytes: settings.size("quotas.instance_bytes").unwrap_or(0),
            ..QuotaLimits::default()
        },
        otlp: otlp(settings)?,
        drain: settings.duration("server.drain"),
    })
}

fn fetch(settings: &Settings, data_dir: &Path) -> Result<FetchConfig, ConfigError> {
    let allowed = Allowed::new(&settings.list("fetch.allow")).map_err(|error| {
        ConfigError::Combination(format!(
            "fetch.allow: {error}; write how URLs begin, e.g. https://files.example/releases/"
        ))
    })?;
    let max_size = settings.size("fetch.max_size").unwrap_or(u64::MAX);
    let headers = CallerHeaders::new(&settings.list("fetch.headers"))
        .map_err(|error| ConfigError::Combination(format!("fetch.headers: {error}")))?;
    let (directory, idle) = (data_dir.join(DOWNLOADS), settings.duration("fetch.idle_timeout"));
    Ok(FetchConfig { allowed, headers, directory, max_size, idle })
}

/// Bytes that requests under way may hold in memory: the setting, or a quarter of the memory that
/// there is, and at least `MIN_BUDGET`.
fn request_memory(settings: &Settings) -> u64 {
    let given = settings.size("server.request_memory");
    given.unwrap_or_else(|| memory_here().map_or(0, |memory| memory / 4)).max(MIN_BUDGET)
}

/// Memory of the machine, or of the container that this runs in, in bytes.
fn memory_here() -> Option<u64> {
    let machine = kiln_executor::config::machine_memory();
    let container = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let container = container.and_then(|text| text.trim().parse().ok());
    machine.into_iter().chain(container).min()
}

fn hermeticity(settings: &Settings) -> HermeticityConfig {
    let concurrency = settings.number("hermeticity.concurrency").unwrap_or(1);
    HermeticityConfig {
        rate: settings.text("hermeticity.rate").parse().unwrap_or(0.0),
        concurrency: usize::try_from(concurrency).unwrap_or(usize::MAX),
    }
}

fn tests(settings: &Settings) -> CiOptions {
    let (defaults, streams) = (Policy::default(), StreamLimits::default());
    CiOptions {
        records: settings.flag("tests.record"),
        policy: Policy {
            keep_attempts: settings.duration("tests.keep"),
            keep_days: settings.duration("tests.keep_days"),
            max_bytes: settings.size("tests.max_size").unwrap_or(defaults.max_bytes),
            ..defaults
        },
        keep_streams: settings.duration("tests.keep_events"),
        streams: StreamLimits {
            stream: settings.size("tests.max_stream").unwrap_or(streams.stream),
            instance: settings.size("tests.max_streams").unwrap_or(streams.instance),
        },
    }
}

fn front_limits(settings: &Settings) -> FrontLimits {
    let number = |name| settings.number(name).unwrap_or(u64::MAX);
    FrontLimits {
        handshake: settings.duration("server.handshake_timeout"),
        headers: settings.duration("server.header_timeout"),
        body: settings.duration("server.body_timeout"),
        connections: number("server.max_connections"),
        connections_per_peer: u32::try_from(number("server.max_connections_per_peer"))
            .unwrap_or(u32::MAX),
    }
}

/// Names of a server besides that in its base URL. `listens`: the key that says where it listens.
fn hosts(settings: &Settings, listens: &str) -> Vec<String> {
    let listen = Listen::parse(settings.text(listens));
    let name = listen.and_then(|listen| listen.name().map(str::to_owned));
    settings.list("server.hosts").into_iter().chain(name).chain([host()]).collect()
}

fn resolved(settings: &Settings, name: &str) -> Result<Resolved, ConfigError> {
    let text = settings.text(name);
    let listen = Listen::parse(text).ok_or_else(|| std::io::ErrorKind::InvalidInput.into());
    listen.and_then(Listen::resolve).map_err(|error| {
        ConfigError::Combination(format!("{name} = {text:?}: no address is found for it: {error}"))
    })
}

fn otlp(settings: &Settings) -> Result<Option<OtlpOptions>, ConfigError> {
    let endpoint = settings.text("telemetry.otlp_endpoint");
    if endpoint.is_empty() {
        return Ok(None);
    }
    let secure = endpoint.starts_with("https://");
    let host = endpoint.split_once("://").filter(|(scheme, _)| secure || *scheme == "http");
    if host.is_none_or(|(_, host)| host.is_empty()) || endpoint.parse::<http::Uri>().is_err() {
        return Err(ConfigError::Combination(format!(
            "telemetry.otlp_endpoint = {endpoint:?}: expected the http:// or https:// address of a \
             collector that speaks OTLP over gRPC, e.g. http://127.0.0.1:4317"
        )));
    }
    let ca = settings.path("telemetry.otlp_ca");
    if ca.is_some() && !secure {
        return Err(ConfigError::Combination(
            "telemetry.otlp_ca is for TLS: write https:// in telemetry.otlp_endpoint".into(),
        ));
    }
    Ok(Some(OtlpOptions { endpoint: endpoint.to_owned(), ca }))
}

/// Makes the options of `kiln worker` from settings: those of the worker and those of its local
/// storage.
pub fn worker_options(settings: &Settings) -> Result<(WorkerConfig, StorageConfig), ConfigError> {
    consistency::check(settings)?;
    files::check(settings)?;
    let data_dir = data_dir(settings, "kiln-worker")?;
    let slots = slots(settings, "workers.count").max(1);
    let id = worker_name(settings)?;
    let worker = worker_config(settings, id, &data_dir, slots)?;
    // Nobody was promised what is here: it is a copy of what the server keeps.
    let local = StorageConfig { lease: LOCAL_LEASE, ..storage(settings, data_dir) };
    Ok((worker, local))
}

/// The status server of `kiln worker`; `None`: it has none. Nothing there executes or shows content, so
/// that what `auth.open` opens may be reached from anywhere, as at a server.
pub fn status_server_options(
    settings: &Settings,
) -> Result<Option<StatusServerOptions>, ConfigError> {
    let text = settings.text("worker.listen");
    if text.is_empty() {
        return Ok(None);
    }
    let listen = resolved(settings, "worker.listen")?;
    let (tls, auth) = (tls(settings)?, auth(settings)?);
    let open = settings.list("auth.open");
    let closed = ["health", "metrics"].into_iter().find(|name| open.iter().all(|it| it != name));
    if let (Some(closed), None) = (closed, &auth)
        && !listen.is_loopback()
        && !settings.flag("server.insecure")
    {
        return Err(ConfigError::Combination(format!(
            "worker.listen = {text} can be reached from other machines, and auth.open leaves \
             {closed} out; say who may see it (auth.access_files, see docs/security.md), listen on \
             127.0.0.1, or add {closed} to auth.open"
        )));
    }
    let (limits, hosts) = (front_limits(settings), hosts(settings, "worker.listen"));
    Ok(Some(StatusServerOptions { listen, limits, hosts, tls, auth }))
}

fn worker_name(settings: &Settings) -> Result<String, ConfigError> {
    let name = settings.text("worker.name");
    if name.is_empty() {
        return Ok(format!("{}-{}", host(), std::process::id()));
    }
    let is_name = |c: char| c.is_ascii_graphic();
    match name.len() <= MAX_WORKER_ID && name.chars().all(is_name) {
        true => Ok(name.to_owned()),
        false => Err(ConfigError::Combination(format!(
            "worker.name = {name:?}: expected at most {MAX_WORKER_ID} letters, digits and signs, without spaces"
        ))),
    }
}

fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

fn slots(settings: &Settings, name: &str) -> u32 {
    let count = settings.number(name).unwrap_or(cores() as u64);
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn front_threads(settings: &Settings) -> usize {
    match settings.number("server.front_threads") {
        Some(threads) => usize::try_from(threads).unwrap_or(1).clamp(1, 256),
        None => cores().min(MAX_FRONT_THREADS),
    }
}

fn scheduler(settings: &Settings) -> Result<SchedulerConfig, ConfigError> {
    let mut config = SchedulerConfig {
        default_timeout: settings.duration("scheduler.default_timeout"),
        max_timeout: settings.duration("scheduler.max_timeout"),
        ..SchedulerConfig::default()
    };
    if let Some(factor) = settings.number("tests.hedge") {
        config.hedge.factor = factor as f64;
    }
    config.limits.unsatisfiable_grace =
        settings.duration("scheduler.worker_grace").as_millis() as u64;
    if config.default_timeout > config.max_timeout {
        return Err(ConfigError::Combination(format!(
            "scheduler.default_timeout = {} is more than scheduler.max_timeout = {}: every action \
             that names no timeout would be refused",
            settings.text("scheduler.default_timeout"),
            settings.text("scheduler.max_timeout"),
        )));
    }
    if let Some(queued) = settings.number("scheduler.max_queued") {
        config.limits.max_queued = usize::try_from(queued).unwrap_or(usize::MAX);
    }
    let quota = |whose: &str| {
        let most = |what: &str| {
            settings.number(&format!("quotas.{whose}_{what}")).filter(|most| *most > 0)
        };
        let bound = |most: Option<u64>| {
            most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX))
        };
        Quota { queued: bound(most("queued")), running: bound(most("running")) }
    };
    config.limits.instance = quota("instance");
    config.limits.caller = quota("caller");
    Ok(config)
}

fn journal(settings: &Settings) -> JournalConfig {
    let defaults = JournalConfig::default();
    JournalConfig {
        max_executions: settings
            .number("journal.max_executions")
            .unwrap_or(defaults.max_executions),
        max_builds: settings.number("journal.max_builds").unwrap_or(defaults.max_builds),
        ..defaults
    }
}

/// This machine's name, as far as it is one.
fn host() -> String {
    let of_names = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty() && name.chars().all(|c| of_names(&c)))
        .unwrap_or_else(|| "kiln".into())
}
