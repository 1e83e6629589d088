//! From settings to where everything is kept.

use std::path::{Path, PathBuf};

use kiln_cas::redis::{RedisConfig, RedisError};
use kiln_cas::stores::s3::S3Config;
use kiln_cas::stores::{SharedConfig, StorageConfig};

use super::error::ConfigError;
use super::setting::Origin;
use super::settings::Settings;

const GIB: u64 = 1 << 30;

/// `name`: of the directory that is taken where none is configured. A server and a worker on one
/// machine have one each.
pub fn data_dir(settings: &Settings, name: &str) -> Result<PathBuf, ConfigError> {
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

/// The home directory by the user database: services are started without HOME.
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

pub fn storage(settings: &Settings, data_dir: PathBuf) -> StorageConfig {
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

#[cfg(test)]
mod tests {
    use super::*;

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
