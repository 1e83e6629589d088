//! From settings to what the parts are started with.

use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use kiln_cas::budget::MIN_BUDGET;
use kiln_cas::redis::{RedisConfig, RedisError};
use kiln_cas::services::{FetchConfig, QuotaLimits};
use kiln_cas::stores::s3::S3Config;
use kiln_cas::stores::{SharedConfig, StorageConfig};
use kiln_executor::images::{AllowList, ImageLimits, ImagesConfig, Timing};
use kiln_executor::sandbox::RootFs;
use kiln_executor::{SandboxMode, WorkerConfig};
use kiln_net::Allowed;
use kiln_scheduler::SchedulerConfig;
use kiln_scheduler::audit::AuditConfig;
use kiln_scheduler::journal::JournalConfig;
use kiln_scheduler::queue::Quota;
use kiln_scheduler::session::MAX_PROPERTIES;

use super::security::{auth, tls};
use super::{ConfigError, Origin, Settings};
use crate::front::{FrontLimits, Listen, Resolved};
use crate::port::PortOptions;
use crate::serve::ServeOptions;
use crate::telemetry::OtlpOptions;

const GIB: u64 = 1 << 30;
/// Files and directories that no action may see.
const SECRETS: [&str; 7] = [
    "auth.access_files",
    "auth.jwt_secret",
    "images.auth_file",
    "redis.client_key",
    "redis.password_file",
    "storage.data_dir",
    "tls.key",
];
/// In a worker's own storage, a blob that was just read is not evicted at once.
const LOCAL_LEASE: Duration = Duration::from_secs(10);
/// In the data directory: downloads whose digest is not known yet.
const DOWNLOADS: &str = "downloads";
/// More front threads than this have nothing to do before the disk is busy.
const MAX_FRONT_THREADS: usize = 8;

/// What `kiln serve` starts with.
pub fn serve_options(settings: &Settings) -> Result<ServeOptions, ConfigError> {
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
    // The server waits for `server.drain` before it tells its worker to end.
    worker.drain_timeout = Duration::ZERO;
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
        front_threads: front_threads(settings),
        request_memory: request_memory(settings),
        storage: StorageConfig { shared: shared_storage(settings)?, ..storage(settings, data_dir) },
        scheduler: scheduler(settings)?,
        journal: journal(settings),
        audit: audit(settings),
        worker,
        allow_cache_updates: settings.flag("cache.allow_updates"),
        fetch,
        max_blob_size: settings.size("storage.max_blob_size").unwrap_or(0),
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
    Ok(FetchConfig { allowed, directory: data_dir.join(DOWNLOADS), max_size })
}

/// Bytes; the table of keys has seen to the least.
fn request_memory(settings: &Settings) -> u64 {
    let given = settings.size("server.request_memory");
    given.unwrap_or_else(|| memory_here().map_or(0, |memory| memory / 4)).max(MIN_BUDGET)
}

/// Of the machine, or of the container that this runs in, in bytes.
fn memory_here() -> Option<u64> {
    let machine = kiln_executor::config::machine_memory();
    let container = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let container = container.and_then(|text| text.trim().parse().ok());
    machine.into_iter().chain(container).min()
}

fn audit(settings: &Settings) -> AuditConfig {
    let concurrency = settings.number("audit.concurrency").unwrap_or(1);
    AuditConfig {
        rate: settings.text("audit.rate").parse().unwrap_or(0.0),
        concurrency: usize::try_from(concurrency).unwrap_or(usize::MAX),
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

/// What a server is called, besides its base URL. `listens`: the key that says where it listens.
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

/// What `kiln worker` starts with: the worker and its local storage.
pub fn worker_options(settings: &Settings) -> Result<(WorkerConfig, StorageConfig), ConfigError> {
    let data_dir = data_dir(settings, "kiln-worker")?;
    let slots = slots(settings, "workers.count").max(1);
    let id = format!("{}-{}", host(), std::process::id());
    let worker = worker_config(settings, id, &data_dir, slots)?;
    // Nobody was promised what is here: it is a copy of what the server keeps.
    let local = StorageConfig { lease: LOCAL_LEASE, ..storage(settings, data_dir) };
    Ok((worker, local))
}

/// The port of `kiln worker`; `None`: it has none. Nothing there executes or shows content, so
/// that what `auth.open` opens may be reached from anywhere, as at a server.
pub fn worker_port(settings: &Settings) -> Result<Option<PortOptions>, ConfigError> {
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
    Ok(Some(PortOptions { listen, limits, hosts, tls, auth }))
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

/// `name`: of the directory that is taken where none is configured. A server and a worker on one
/// machine have one each.
fn data_dir(settings: &Settings, name: &str) -> Result<PathBuf, ConfigError> {
    let text = settings.text("storage.data_dir");
    if text != "auto" {
        return Ok(text.into());
    }
    if nix::unistd::geteuid().is_root() {
        return Ok(Path::new("/var/lib").join(name));
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|it| it.is_absolute());
    let home = || absolute("HOME").or_else(home_of_user).map(|home| home.join(".local/share"));
    absolute("XDG_DATA_HOME").or_else(home).map(|data| data.join(name)).ok_or_else(|| {
        ConfigError::Combination(
            "there is no place for data: neither HOME nor XDG_DATA_HOME names a directory, and this \
             user has none; name one with --data-dir"
                .into(),
        )
    })
}

/// As the user database has it: services are started without HOME.
fn home_of_user() -> Option<PathBuf> {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok()??;
    Some(user.dir).filter(|home| home.is_absolute() && home.is_dir())
}

/// Redis and S3 of a fleet; `None`: everything is in the data directory.
pub fn shared_storage(settings: &Settings) -> Result<Option<SharedConfig>, ConfigError> {
    let (redis, s3) = (settings.text("redis.url"), settings.text("s3.url"));
    match (redis.is_empty(), s3.is_empty()) {
        (true, true) => return Ok(None),
        (false, false) => {}
        (no_redis, _) => {
            let (given, lacking) = if no_redis {
                ("s3.url", "redis.url (--redis)")
            } else {
                ("redis.url", "s3.url (--s3)")
            };
            return Err(ConfigError::Combination(format!(
                "{given} is set, but not {lacking}: a fleet keeps its blobs in S3 and what it knows \
                 of them in Redis"
            )));
        }
    }
    let duration = |name| settings.duration(name);
    Ok(Some(SharedConfig {
        redis: redis_config(settings)?,
        s3: s3_config(settings)?,
        small: settings.size("s3.small_blob").unwrap_or(0),
        max_size: settings.size("s3.max_size").unwrap_or(0),
        keep: Some(duration("s3.keep")),
        keep_results: duration("cache.keep_results"),
    }))
}

fn redis_config(settings: &Settings) -> Result<RedisConfig, ConfigError> {
    let invalid = |error: RedisError| ConfigError::Combination(error.to_string());
    let url = settings.get("redis.url");
    if matches!(url.origin, Origin::Flag(_)) && url.text.contains('@') {
        return Err(ConfigError::Combination(
            "--redis holds a user or password, which everybody on this machine could read in the \
             list of processes; give the URL in KILN_REDIS_URL, or the password in \
             redis.password_file"
                .into(),
        ));
    }
    let mut config = RedisConfig::from_url(&url.text).map_err(invalid)?;
    let path = |name| settings.path(name);
    if let Some(file) = path("redis.password_file") {
        config = config.with_password_file(&file).map_err(invalid)?;
    }
    let client = match (path("redis.client_cert"), path("redis.client_key")) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        _ => {
            let message = "redis.client_cert and redis.client_key go together";
            return Err(ConfigError::Combination(message.into()));
        }
    };
    let ca = path("redis.ca");
    match &mut config.tls {
        Some(tls) => (tls.ca, tls.client) = (ca, client),
        None if ca.is_some() || client.is_some() => {
            let message =
                "redis.ca and redis.client_cert are for TLS: write rediss:// in redis.url";
            return Err(ConfigError::Combination(message.into()));
        }
        None => {}
    }
    config.prefix = settings.text("redis.prefix").to_owned();
    config.timeout = settings.duration("redis.timeout");
    config.wait = settings.duration("redis.wait");
    Ok(config)
}

fn s3_config(settings: &Settings) -> Result<S3Config, ConfigError> {
    let url = settings.text("s3.url");
    let config = url.parse::<S3Config>();
    let mut config =
        config.map_err(|error| ConfigError::Combination(format!("s3.url: {error}")))?;
    let text = |name| Some(settings.text(name).to_owned()).filter(|text| !text.is_empty());
    config.endpoint = text("s3.endpoint");
    config.region = text("s3.region");
    config.profile = text("s3.profile");
    config.ca = settings.path("s3.ca");
    config.timeout = settings.duration("s3.timeout");
    config.path_style = settings.text("s3.path_style").parse().ok();
    Ok(config)
}

fn storage(settings: &Settings, data_dir: PathBuf) -> StorageConfig {
    let defaults = StorageConfig::default();
    let max_size = settings.size("storage.max_size").unwrap_or_else(|| half_of_the_disk(&data_dir));
    StorageConfig {
        data_dir,
        max_size,
        lease: settings.duration("storage.lease"),
        min_lease: settings.duration("storage.min_lease"),
        action_cache_max_size: settings
            .size("storage.action_cache_max_size")
            .unwrap_or(defaults.action_cache_max_size),
        action_cache_memory: settings
            .size("storage.action_cache_memory")
            .unwrap_or(defaults.action_cache_memory),
        shared: None,
    }
}

/// Half of what is free where `data_dir` is or will be, what Kiln holds there counted as free.
fn half_of_the_disk(data_dir: &Path) -> u64 {
    let existing = data_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let free = nix::sys::statvfs::statvfs(existing)
        .map_or(0, |stat| stat.blocks_available() * stat.fragment_size());
    let held = size_below(&data_dir.join("blobs"));
    ((free + held) / 2).max(GIB)
}

fn size_below(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

fn scheduler(settings: &Settings) -> Result<SchedulerConfig, ConfigError> {
    let mut config = SchedulerConfig {
        default_timeout: settings.duration("scheduler.default_timeout"),
        max_timeout: settings.duration("scheduler.max_timeout"),
        ..SchedulerConfig::default()
    };
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
        let most = |what: &str| settings.number(&format!("scheduler.{whose}_{what}"));
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

fn images_config(settings: &Settings) -> Result<ImagesConfig, ConfigError> {
    let path = |name| settings.path(name);
    let allow = AllowList::new(&settings.list("images.allow"))
        .map_err(|problem| ConfigError::Combination(format!("images.allow: {problem}")))?;
    let defaults = ImageLimits::default();
    let bytes = settings.size("images.max_size").unwrap_or(defaults.bytes);
    Ok(ImagesConfig {
        allow,
        insecure: settings.list("images.insecure"),
        auth_file: path("images.auth_file"),
        ca: path("images.ca"),
        limits: ImageLimits { bytes, ..defaults },
        timing: Timing::default(),
    })
}

fn worker_config(
    settings: &Settings,
    id: String,
    data_dir: &Path,
    slots: u32,
) -> Result<WorkerConfig, ConfigError> {
    let mut config = WorkerConfig::new(id, data_dir.join("worker"), slots);
    config.hidden = secrets(settings, data_dir);
    config.properties = settings.properties("workers.properties");
    let properties = config.properties.len();
    if properties > MAX_PROPERTIES {
        return Err(ConfigError::Combination(format!(
            "workers.properties has {properties} entries; a worker can offer {MAX_PROPERTIES}"
        )));
    }
    config.sandbox = match settings.text("workers.sandbox") {
        "required" => SandboxMode::Required,
        _ => SandboxMode::BestEffort,
    };
    config.root_fs = match settings.text("workers.root") {
        "strict" => RootFs::Empty,
        "inputs" => RootFs::Inputs,
        _ => RootFs::Host,
    };
    config.images = images_config(settings)?;
    config.allow_network = settings.flag("workers.allow_network");
    config.drain_timeout = settings.duration("workers.drain");
    config.absence = settings.duration("workers.absence");
    if let Some(tools) = settings.number("workers.persistent") {
        let most = kiln_executor::persistent::MAX_TOOLS;
        let fits = u32::try_from(tools).ok().filter(|tools| *tools <= most);
        config.persistent.tools = fits.ok_or_else(|| {
            ConfigError::Combination(format!(
                "workers.persistent is {tools}; at most {most} tools can be kept on one machine"
            ))
        })?;
    }
    config.persistent.idle = settings.duration("workers.persistent_idle");
    if let Some(memory) = settings.size("workers.memory") {
        config.limits.memory_bytes = Some(memory);
        config.limits.disk_bytes = Some(memory);
    }
    if let Some(disk) = settings.size("workers.disk") {
        config.limits.disk_bytes = Some(disk);
    }
    if let Some(processes) = settings.number("workers.processes") {
        config.limits.processes = Some(u32::try_from(processes).unwrap_or(u32::MAX));
    }
    if let Some(output) = settings.size("workers.output") {
        config.limits.output_bytes = Some(output);
    }
    Ok(config)
}

/// With the configuration file itself: a URL in it may hold a password.
fn secrets(settings: &Settings, data_dir: &Path) -> Vec<PathBuf> {
    let named = SECRETS.iter().flat_map(|name| settings.list(name));
    let files = settings.iter().filter_map(|(_, setting)| match &setting.origin {
        Origin::File(path) => Some(path.clone()),
        _ => None,
    });
    let mut all: Vec<PathBuf> = named.map(PathBuf::from).chain(files).collect();
    all.push(data_dir.to_owned());
    all.sort();
    all.dedup();
    all.retain(|path| path.is_absolute() || path.exists());
    all
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_from_actions() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kiln.toml");
        std::fs::write(&file, "[auth]\naccess_files = [\"/a/one\", \"/a/two\"]\n").unwrap();
        let data = ("KILN_STORAGE_DATA_DIR".to_owned(), "/usr/kiln".to_owned());
        let settings = Settings::load(Some(&file), [data], Vec::new()).unwrap();
        let hidden = serve_options(&settings).unwrap().worker.unwrap().hidden;
        for path in
            [file.as_path(), Path::new("/a/one"), Path::new("/a/two"), Path::new("/usr/kiln")]
        {
            assert!(hidden.iter().any(|it| it == path), "{path:?} in {hidden:?}");
        }
    }

    #[test]
    fn the_settings_of_s3_reach_its_clients() {
        let s3 = |variables: &[(&str, &str)]| {
            let all = variables.iter().chain(&[("KILN_S3_URL", "s3://builds")]);
            let all = all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            s3_config(&Settings::load(None, all, Vec::new()).unwrap()).unwrap()
        };
        for (text, expected) in [("auto", None), ("true", Some(true)), ("false", Some(false))] {
            assert_eq!(s3(&[("KILN_S3_PATH_STYLE", text)]).path_style, expected);
        }
        let none = s3(&[]);
        assert_eq!((none.path_style, none.ca), (None, None));
        let named = s3(&[("KILN_S3_CA", "/etc/ca.pem")]);
        assert_eq!(named.ca, Some(PathBuf::from("/etc/ca.pem")));
    }
}
