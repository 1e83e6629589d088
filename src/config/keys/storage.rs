//! What is kept, where, and how much of it.

use super::key::{Key, Kind, MIB, key};

/// Smallest store: one that holds less refuses the outputs of ordinary actions.
const LEAST_STORAGE: u64 = 16 * MIB;
/// Operations that a scheduler is asked to hold.
const MOST_QUEUED: u64 = 10_000_000;

pub const KEYS: &[Key] = &[
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
        "quotas.caller_queued",
        "0",
        Kind::NumberIn(0, MOST_QUEUED),
        "Most operations of one caller that wait, of those that auth can tell apart; more are refused. 0: no limit of its own.",
    ),
    key(
        "quotas.caller_running",
        "0",
        Kind::NumberIn(0, MOST_QUEUED),
        "Slots that run actions of one caller at a time, of those that auth can tell apart; more wait though slots are free. 0: no limit.",
    ),
    key(
        "quotas.instance_queued",
        "0",
        Kind::NumberIn(0, MOST_QUEUED),
        "Most operations of one instance that wait; more are refused. 0: no limit of its own.",
    ),
    key(
        "quotas.instance_running",
        "0",
        Kind::NumberIn(0, MOST_QUEUED),
        "Slots that run actions of one instance at a time; more wait though slots are free. 0: no limit.",
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
        "cache.opaque_instances",
        "",
        Kind::List,
        "Instances in whose HTTP cache /ac/ takes any bytes instead of action results alone: for ccache and its \
         like, and for nothing else.",
    ),
    key(
        "fetch.allow",
        "",
        Kind::List,
        "URLs that the Remote Asset service may download begin with one of these: https://HOST, \
         https://HOST/DIRECTORY/, or https:// for the whole internet.",
    ),
    key(
        "fetch.headers",
        "",
        Kind::List,
        "Headers that callers of the Remote Asset service may have sent with a download, besides those for \
         credentials and forms of content. What says which host, path or method is meant makes a URL stand for \
         something else.",
    ),
    key(
        "fetch.max_size",
        "16GiB",
        Kind::Size,
        "Most bytes of one download, and of all downloads under way, which lie in the data directory.",
    ),
    key(
        "fetch.idle_timeout",
        "60s",
        Kind::DurationFrom(100),
        "How long the web server of a download may send nothing, before its answer and in it.",
    ),
];
