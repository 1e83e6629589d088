//! Every key there is: its name, default and meaning. Flags, environment variables, the
//! configuration file, `kiln config` and docs/configuration.md all follow this table.

/// One setting. Values are text until they are read ([`super::values`]).
#[derive(Debug)]
pub struct Key {
    /// `section.key`, as in the file.
    pub name: &'static str,
    /// As it would stand in the file, without quotes.
    pub default: &'static str,
    pub kind: Kind,
    pub help: &'static str,
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// May hold a password: never shown.
    Secret,
    /// A file or directory. What is relative is meant from the directory of the file that says so,
    /// else from the current one; it is absolute once it is read.
    Path,
    /// A list of such paths.
    Paths,
    Address,
    /// An address, or empty: none.
    OptionalAddress,
    /// `http://` or `https://`, a host and perhaps a path.
    BaseUrl,
    Number,
    /// A number between these two, both included.
    NumberIn(u64, u64),
    /// A part of a whole, from 0 to 1.
    Share,
    Bool,
    /// `512MiB`, `10GB`, `auto` where the key says so.
    Size,
    /// The same, of so many bytes at least.
    SizeFrom(u64),
    /// `30s`, `12h`.
    Duration,
    /// The same, of so many milliseconds at least.
    DurationFrom(u64),
    /// What is logged.
    LogFilter,
    /// A list of strings.
    List,
    /// A list of `name=value`.
    Properties,
    Choice(&'static [&'static str]),
}

impl Kind {
    /// What is expected, in words.
    pub fn expected(self) -> String {
        match self {
            Self::Text | Self::Secret => "text".into(),
            Self::Path => "a path (~ is for shells alone)".into(),
            Self::Paths => "a list of paths (~ is for shells alone)".into(),
            Self::Address => {
                "a host and a port, e.g. 127.0.0.1:8980, [::1]:8980 or localhost:8980".into()
            }
            Self::OptionalAddress => {
                "a host and a port, e.g. 127.0.0.1:8981 or localhost:8981, or nothing".into()
            }
            Self::BaseUrl => "auto, or an address such as https://build.example".into(),
            Self::Number => "a whole number, or auto".into(),
            Self::NumberIn(least, most) => {
                format!("a whole number from {least} to {most}, or auto")
            }
            Self::Share => "a number from 0 (none) to 1 (all)".into(),
            Self::Bool => "true or false".into(),
            Self::Size => "a size, e.g. 512MiB or 10GB".into(),
            Self::SizeFrom(least) => {
                format!("a size of {} or more, e.g. 512MiB or 10GB", bytes(least))
            }
            Self::Duration => "a duration, e.g. 30s, 10m or 12h".into(),
            Self::DurationFrom(least) => {
                let least = std::time::Duration::from_millis(least);
                format!("a duration of {least:?} or more, e.g. 30s, 10m or 12h")
            }
            Self::LogFilter => "levels (error, warn, info, debug, trace, off), each alone or for \
                                what it names, e.g. info,kiln_scheduler=debug"
                .into(),
            Self::List => "a list of strings".into(),
            Self::Properties => "a list of name=value".into(),
            Self::Choice(choices) => format!("one of {}", choices.join(", ")),
        }
    }
}

/// With the largest unit that leaves nothing over.
fn bytes(bytes: u64) -> String {
    match bytes {
        bytes if bytes % MIB == 0 => format!("{}MiB", bytes / MIB),
        bytes if bytes % KIB == 0 => format!("{}KiB", bytes / KIB),
        bytes => format!("{bytes} bytes"),
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// A store that holds less refuses the outputs of ordinary actions.
const LEAST_STORAGE: u64 = 16 * MIB;
/// A shell alone needs some of it.
const LEAST_MEMORY: u64 = 16 * MIB;
/// The sandbox has two processes of its own.
const LEAST_PROCESSES: u64 = 8;
/// What a kernel knows at a time.
const MOST_PROCESSES: u64 = 1 << 22;
/// What the scheduler takes from one worker.
const MOST_SLOTS: u64 = kiln_scheduler::session::MAX_SLOTS as u64;

const fn key(name: &'static str, default: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { name, default, kind, help }
}

pub const KEYS: &[Key] = &[
    key("server.listen", "127.0.0.1:8980", Kind::Address, "Address for gRPC and HTTP."),
    key(
        "server.insecure",
        "false",
        Kind::Bool,
        "Allow an address that is not loopback without auth.access_files. Whoever reaches it may read, \
         write and execute, and run actions for others; on loopback too.",
    ),
    key(
        "server.base_url",
        "auto",
        Kind::BaseUrl,
        "How people reach the web pages, for links. auto: http:// or https:// and the address.",
    ),
    key(
        "server.hosts",
        "",
        Kind::List,
        "Names by which browsers and HTTP clients may call the server besides those of \
         server.base_url and server.listen, this machine's own and those without a dot. *: any. \
         Without TLS others are turned away.",
    ),
    key(
        "server.handshake_timeout",
        "10s",
        Kind::DurationFrom(100),
        "How long a client may take for its TLS handshake, and then to say which protocol it speaks.",
    ),
    key(
        "server.header_timeout",
        "30s",
        Kind::DurationFrom(100),
        "How long an HTTP/1 client may take for the headers of a request, and be silent between two.",
    ),
    key(
        "server.body_timeout",
        "2m",
        Kind::DurationFrom(100),
        "How long a client may send nothing of a request's body that is waited for, and take nothing \
         of an answer.",
    ),
    key(
        "server.max_connections",
        "8192",
        Kind::NumberIn(1, 1_000_000),
        "Most connections at a time.",
    ),
    key(
        "server.max_connections_per_peer",
        "2048",
        Kind::NumberIn(1, 1_000_000),
        "The same from one address (IPv6: one /64). A balancer is one.",
    ),
    key(
        "server.front_threads",
        "auto",
        Kind::NumberIn(1, 256),
        "Threads that serve connections. auto: one a core, at most 8.",
    ),
    key(
        "server.request_memory",
        "auto",
        Kind::SizeFrom(kiln_cas::budget::MIN_BUDGET),
        "Most memory of all requests under way; half of it for one address. Requests wait for it, and are \
         then refused. auto: a quarter of the memory here, at least 256MiB.",
    ),
    key(
        "server.drain",
        "30s",
        Kind::Duration,
        "What running actions and open requests get when the server is told to end. Its own workers then \
         give back what still runs.",
    ),
    key(
        "tls.cert",
        "",
        Kind::Path,
        "Certificate chain (PEM): the port speaks TLS. Read again when it changes.",
    ),
    key("tls.key", "", Kind::Path, "Private key (PEM) of tls.cert."),
    key(
        "tls.client_ca",
        "",
        Kind::Path,
        "Authorities (PEM) of client certificates (mutual TLS). Empty: clients are asked for none.",
    ),
    key(
        "tls.client_auth",
        "optional",
        Kind::Choice(&["optional", "required"]),
        "required: whoever shows no certificate of tls.client_ca is not let in at all.",
    ),
    key(
        "auth.access_files",
        "",
        Kind::Paths,
        "Files (TOML) that say who may do what: static tokens and grants of roles. Empty: everybody \
         may do everything. Read again when they change.",
    ),
    key(
        "auth.jwt_keys",
        "",
        Kind::Paths,
        "Files with public keys of JWTs (RS256, ES256): PEM, or a key set (JWKS). Read again when they change.",
    ),
    key(
        "auth.jwt_secret",
        "",
        Kind::Path,
        "File with the secret of JWTs (HS256), 32 bytes or more. Read again when it changes.",
    ),
    key(
        "auth.jwks_url",
        "",
        Kind::Text,
        "Where an identity provider publishes its keys (JWKS), https://.",
    ),
    key(
        "auth.jwks_refresh",
        "10m",
        Kind::Duration,
        "How often auth.jwks_url is fetched, at least 10s; sooner when a token names an unknown key.",
    ),
    key("auth.jwt_issuer", "", Kind::Text, "The issuer of JWTs (claim iss). Empty: any."),
    key(
        "auth.jwt_audience",
        "",
        Kind::List,
        "Whom JWTs are for (claim aud); a token has to name one of these.",
    ),
    key(
        "auth.jwt_leeway",
        "30s",
        Kind::Duration,
        "What clocks may differ by for a JWT's times, at most 5m.",
    ),
    key(
        "auth.open",
        "health, metrics",
        Kind::List,
        "What needs no credentials, of health, metrics and pages (the web pages and their API).",
    ),
    key(
        "storage.data_dir",
        "auto",
        Kind::Path,
        "Where everything is kept. auto: /var/lib/kiln for root, else ~/.local/share/kiln \
         (XDG_DATA_HOME); of kiln worker the same with -worker.",
    ),
    key(
        "storage.max_size",
        "auto",
        Kind::SizeFrom(LEAST_STORAGE),
        "Most bytes on disk of blobs and, where actions run, of their inputs, of which at most a quarter \
         stays for the next action. What running actions need is kept beyond it. auto: half of what is free \
         there at the start, kept and free together, at least 1GiB.",
    ),
    key(
        "storage.max_blob_size",
        "0",
        Kind::Size,
        "Largest blob that is taken. 0: no limit but storage.max_size.",
    ),
    key(
        "storage.lease",
        "13h",
        Kind::DurationFrom(1_000),
        "How long what was reported present is kept. Bazel relies on 3h, Buck2 on 12h and its cas_ttl_secs.",
    ),
    key(
        "storage.min_lease",
        "30m",
        Kind::Duration,
        "Where there is no room, what was promised to a build that is over is kept at least so long. A build \
         counts as over so long after its last request.",
    ),
    key(
        "storage.action_cache_max_size",
        "1GiB",
        Kind::SizeFrom(MIB),
        "Most bytes of action results on disk.",
    ),
    key(
        "storage.action_cache_memory",
        "32MiB",
        Kind::Size,
        "Most bytes of action results kept in memory.",
    ),
    key(
        "quotas.caller_bytes",
        "0",
        Kind::Size,
        "Most bytes that one caller (a credential; without one, an address) may have stored within \
         storage.lease. 0: no limit.",
    ),
    key(
        "quotas.instance_bytes",
        "0",
        Kind::Size,
        "Most bytes that all callers together may have stored in one instance within storage.lease. 0: no limit.",
    ),
    key(
        "redis.url",
        "",
        Kind::Secret,
        "Redis of a fleet: its queue, action cache, records and index of blobs. redis://HOST:6379, \
         rediss:// with TLS, redis+cluster://HOST,HOST. Needs s3.url. Empty: everything is in \
         storage.data_dir.",
    ),
    key("redis.password_file", "", Kind::Path, "File with the password for Redis."),
    key("redis.ca", "", Kind::Path, "Certificate authorities to trust, PEM. Empty: the system's."),
    key("redis.client_cert", "", Kind::Path, "Certificate to show to Redis, PEM."),
    key("redis.client_key", "", Kind::Path, "Its private key, PEM."),
    key(
        "redis.prefix",
        "kiln",
        Kind::Text,
        "What all keys in Redis begin with: fleets that differ in it share nothing.",
    ),
    key(
        "redis.timeout",
        "5s",
        Kind::DurationFrom(100),
        "How long one call to Redis may take, retries included.",
    ),
    key(
        "redis.wait",
        "30s",
        Kind::Duration,
        "How long the start waits for a Redis that does not answer yet.",
    ),
    key(
        "s3.url",
        "",
        Kind::Text,
        "Where blobs are: s3://BUCKET or s3://BUCKET/PREFIX. Region and credentials come from AWS's \
         environment variables, profiles and metadata services.",
    ),
    key(
        "s3.endpoint",
        "",
        Kind::Text,
        "URL of an S3-compatible store. Empty: AWS_ENDPOINT_URL_S3, else Amazon.",
    ),
    key("s3.region", "", Kind::Text, "Empty: AWS_REGION or the profile's."),
    key(
        "s3.path_style",
        "auto",
        Kind::Choice(&["auto", "true", "false"]),
        "Bucket in the path instead of in the host name. auto: where an endpoint is set.",
    ),
    key(
        "s3.ca",
        "",
        Kind::Path,
        "Authorities (PEM) of the store, trusted besides the system's. Empty: AWS_CA_BUNDLE, if that \
         is set.",
    ),
    key("s3.profile", "", Kind::Text, "Profile of AWS's files. Empty: AWS_PROFILE, else default."),
    key(
        "s3.timeout",
        "10s",
        Kind::DurationFrom(100),
        "How long one attempt of a request may take. Whole requests take up to 4 times, parts of \
         uploads 6 times as long.",
    ),
    key("s3.max_size", "0", Kind::Size, "Most bytes of all blobs in S3. 0: no limit."),
    key(
        "s3.keep",
        "7d",
        Kind::Duration,
        "Blobs are removed from S3 so long after their lease has ended.",
    ),
    key("s3.small_blob", "64KiB", Kind::Size, "Blobs up to this size are kept in Redis as well."),
    key(
        "cache.keep_results",
        "30d",
        Kind::Duration,
        "Action results that were not used for so long are forgotten (with Redis).",
    ),
    key(
        "cache.allow_updates",
        "false",
        Kind::Bool,
        "Clients may write action results (UpdateActionResult, PUT /ac/). Without, only workers do. With \
         auth.access_files roles decide.",
    ),
    key(
        "fetch.allow",
        "",
        Kind::List,
        "URLs that the Remote Asset service may download begin with one of these: https://HOST, \
         https://HOST/DIRECTORY/, or https:// for the whole internet.",
    ),
    key(
        "fetch.max_size",
        "16GiB",
        Kind::Size,
        "Most bytes of one download, and of all downloads under way, which lie in the data directory.",
    ),
    key(
        "workers.count",
        "auto",
        Kind::NumberIn(0, MOST_SLOTS),
        "Actions run at a time here. auto: one a core. 0: none.",
    ),
    key(
        "workers.properties",
        "OSFamily=linux, OSFamily=Linux, ISA=x86-64",
        Kind::Properties,
        "Platform properties that the workers here offer.",
    ),
    key(
        "workers.sandbox",
        "best-effort",
        Kind::Choice(&["best-effort", "required"]),
        "required: refuse to start when this machine cannot enforce everything.",
    ),
    key(
        "workers.root",
        "host",
        Kind::Choice(&["host", "strict", "inputs"]),
        "What an action sees beside its inputs. host: this machine's /usr and the like, read-only. strict: nothing. inputs: nothing, and the input root is / itself, as BuildStream needs it. Where it is not host, no action may ask for host.",
    ),
    key("workers.allow_network", "false", Kind::Bool, "Grant the property kiln-network=true."),
    key(
        "workers.memory",
        "auto",
        Kind::SizeFrom(LEAST_MEMORY),
        "Most memory of one action. auto: its share of four fifths of the machine.",
    ),
    key(
        "workers.processes",
        "4096",
        Kind::NumberIn(LEAST_PROCESSES, MOST_PROCESSES),
        "Most processes of one action.",
    ),
    key(
        "workers.disk",
        "auto",
        Kind::SizeFrom(MIB),
        "Most bytes that one action may write. auto: as workers.memory.",
    ),
    key(
        "workers.output",
        "128MiB",
        Kind::SizeFrom(KIB),
        "Bytes kept of stdout and of stderr of one action: of more, the first and the last. An action that prints 16 times as much is stopped.",
    ),
    key(
        "workers.absence",
        "1m",
        Kind::Duration,
        "How long actions go on while no server is heard; then they are stopped.",
    ),
    key(
        "workers.drain",
        "1h",
        Kind::Duration,
        "What running actions get when kiln worker is told to end; then they are given back and run elsewhere, \
         without a retry. Stay below what its supervisor waits.",
    ),
    key(
        "workers.persistent",
        "auto",
        Kind::Number,
        "Most tools that stay between actions (Bazel's persistent workers). auto: one for each action \
         that runs at a time. 0: none, every action runs by itself. At most 1024.",
    ),
    key(
        "workers.persistent_idle",
        "5m",
        Kind::Duration,
        "A tool that no action asked for so long is ended.",
    ),
    key(
        "worker.listen",
        "",
        Kind::OptionalAddress,
        "Where kiln worker answers /healthz, /readyz and /metrics, with TLS where tls.cert is set. \
         Empty: nowhere.",
    ),
    key(
        "images.allow",
        "",
        Kind::List,
        "Container images that actions may name (property container-image): registries \
         (registry.example:5000), repositories (docker.io/library), directories of image layouts \
         (oci:/srv/images), * for every registry. Empty: none.",
    ),
    key(
        "images.max_size",
        "20GiB",
        Kind::Size,
        "Most bytes of unpacked images; the least recently used make room. Also of one image.",
    ),
    key(
        "images.auth_file",
        "",
        Kind::Path,
        "Docker config.json with credentials for registries (auths). Read for every pull.",
    ),
    key(
        "images.ca",
        "",
        Kind::Path,
        "Authorities (PEM) of registries, trusted besides the system's.",
    ),
    key(
        "images.insecure",
        "",
        Kind::List,
        "Registries that may be spoken to without TLS (HOST or HOST:PORT). Loopback always may.",
    ),
    key(
        "scheduler.default_timeout",
        "1h",
        Kind::DurationFrom(1_000),
        "For actions that name no timeout.",
    ),
    key(
        "scheduler.max_timeout",
        "24h",
        Kind::DurationFrom(1_000),
        "An action that names a longer timeout is refused.",
    ),
    key(
        "scheduler.worker_grace",
        "30s",
        Kind::Duration,
        "How long an action waits for a worker that could run it at all.",
    ),
    key(
        "scheduler.max_queued",
        "auto",
        Kind::NumberIn(1, 10_000_000),
        "Most operations that wait. auto: 250000.",
    ),
    key(
        "scheduler.instance_queued",
        "auto",
        Kind::NumberIn(1, 10_000_000),
        "Most operations of one instance that wait; more are refused. auto: no bound of its own.",
    ),
    key(
        "scheduler.instance_running",
        "auto",
        Kind::NumberIn(1, 10_000_000),
        "Slots that run actions of one instance at a time; more wait though slots are free. auto: all.",
    ),
    key(
        "scheduler.caller_queued",
        "auto",
        Kind::NumberIn(1, 10_000_000),
        "Most operations of one caller that wait, of those that auth can tell apart; more are refused. auto: no bound of its own.",
    ),
    key(
        "scheduler.caller_running",
        "auto",
        Kind::NumberIn(1, 10_000_000),
        "Slots that run actions of one caller at a time, of those that auth can tell apart; more wait though slots are free. auto: all.",
    ),
    key("journal.max_executions", "100000", Kind::Number, "Executions kept for the web pages."),
    key("journal.max_builds", "2000", Kind::Number, "Builds kept for the web pages."),
    key(
        "audit.rate",
        "0",
        Kind::Share,
        "The part of executed actions that is run again under changed conditions while workers are \
         idle, from 0 (none) to 1 (all). See docs/audit.md.",
    ),
    key(
        "audit.concurrency",
        "1",
        Kind::NumberIn(1, 4096),
        "Actions that are audited at the same time.",
    ),
    key("log.format", "text", Kind::Choice(&["text", "json"]), "How logs are written to stderr."),
    key(
        "log.filter",
        "info,aws_config=warn",
        Kind::LogFilter,
        "What is logged, e.g. info,kiln_scheduler=debug.",
    ),
    key(
        "telemetry.otlp_endpoint",
        "",
        Kind::Text,
        "Where traces go, e.g. http://127.0.0.1:4317, or https:// (OTLP over gRPC). Empty: nowhere.",
    ),
    key(
        "telemetry.otlp_ca",
        "",
        Kind::Path,
        "Authorities (PEM) that are trusted for an https:// collector. Empty: the system's.",
    ),
];

pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The known key that is spelled most alike.
pub fn nearest(name: &str) -> Option<&'static str> {
    KEYS.iter()
        .map(|key| (strsim::jaro_winkler(name, key.name), key.name))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.7)
        .map(|(_, name)| name)
}

/// `KILN_SERVER_LISTEN` for `server.listen`.
pub fn variable(name: &str) -> String {
    format!("KILN_{}", name.to_uppercase().replace('.', "_"))
}
