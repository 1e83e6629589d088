//! Whether files that settings name are there and can be used: what is missing is told at the start, not by the
//! first action that needs it.

use kiln_executor::images;
use kiln_net::{tls, urls};

use super::error::ConfigError;
use super::keys::find;
use super::settings::Settings;

/// Files with authorities (PEM).
const AUTHORITIES: [&str; 4] = ["images.ca", "redis.ca", "s3.ca", "telemetry.otlp_ca"];

pub fn check(settings: &Settings) -> Result<(), ConfigError> {
    for name in AUTHORITIES {
        let Some(path) = settings.path(name) else { continue };
        tls::roots(&path).map_err(|error| refused(settings, name, "authorities in PEM", &error))?;
    }
    if let Some(path) = settings.path("images.auth_file") {
        images::check_auth_file(&path).map_err(|error| {
            refused(settings, "images.auth_file", "a docker config.json", &error)
        })?;
    }
    if let Some(path) = settings.path("redis.password_file") {
        let name = "redis.password_file";
        kiln_net::files::read_text(&path)
            .map_err(|error| refused(settings, name, "a file that can be read", &error))?;
    }
    client_certificate(settings)?;
    for host in settings.list("images.insecure") {
        images::check_insecure(&host)
            .map_err(|error| refused(settings, "images.insecure", "HOST or HOST:PORT", &error))?;
    }
    if let Some(host) = settings.list("server.hosts").iter().find(|host| !is_name(host)) {
        let expected = "names of hosts without scheme, port and path, or *";
        return Err(refused(settings, "server.hosts", expected, &format!("{host:?} is none")));
    }
    endpoint(settings)
}

/// Whether the pair can be shown to Redis. That both are given is checked where they are used.
fn client_certificate(settings: &Settings) -> Result<(), ConfigError> {
    let path = |name| settings.path(name);
    let (Some(certificate), Some(key)) = (path("redis.client_cert"), path("redis.client_key"))
    else {
        return Ok(());
    };
    let expected = "a certificate, and its key in redis.client_key, in PEM";
    tls::certified_key(&certificate, &key)
        .map(drop)
        .map_err(|error| refused(settings, "redis.client_cert", expected, &error))
}

fn endpoint(settings: &Settings) -> Result<(), ConfigError> {
    let name = "s3.endpoint";
    let text = settings.text(name);
    if text.is_empty() {
        return Ok(());
    }
    let expected = "the http:// or https:// address of a store";
    let url = urls::parse(text).map_err(|error| refused(settings, name, expected, &error))?;
    match url.scheme() {
        "http" | "https" => Ok(()),
        other => Err(refused(settings, name, expected, &format!("{other}:// is something else"))),
    }
}

/// Names of hosts as the front reads them: see `server.hosts`.
fn is_name(host: &str) -> bool {
    let of_names = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    host == "*" || (!host.is_empty() && host.chars().all(of_names) && !host.contains("//"))
}

fn refused(
    settings: &Settings,
    name: &str,
    expected: &str,
    error: &dyn std::fmt::Display,
) -> ConfigError {
    let setting = settings.get(name);
    let name = find(name).map_or("", |key| key.name);
    let (value, origin) = (setting.text.clone(), setting.origin.clone());
    ConfigError::Value { name, value, origin, expected: format!("{expected}: {error}") }
}
