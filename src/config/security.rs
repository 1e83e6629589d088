//! From settings to TLS and authentication.

use std::path::PathBuf;
use std::time::Duration;

use kiln_net::counts::duration;
use kiln_net::urls;

use super::error::ConfigError;
use super::settings::Settings;
use crate::auth::AuthOptions;
use crate::auth::jwt::fetch::MIN_INTERVAL;
use crate::auth::jwt::{JwksOptions, JwtOptions};
use crate::auth::permissions::Door;
use crate::front::TlsOptions;

/// The longest difference between clocks that may be tolerated; more means that a clock is broken.
const MAX_LEEWAY: Duration = Duration::from_secs(300);

pub fn tls(settings: &Settings) -> Result<Option<TlsOptions>, ConfigError> {
    let path = |name| settings.path(name);
    let client_ca = path("tls.client_ca");
    let wrong = |message: &str| Err(ConfigError::Combination(message.to_owned()));
    match (path("tls.cert"), path("tls.key")) {
        (Some(certificate), Some(key)) => Ok(Some(TlsOptions {
            certificate,
            key,
            client_required: client_ca.is_some() && settings.text("tls.client_auth") == "required",
            client_ca,
        })),
        (None, None) if client_ca.is_none() => Ok(None),
        (None, None) => wrong("tls.client_ca is set without tls.cert and tls.key; set them too"),
        _ => wrong("tls.cert and tls.key belong together; set both"),
    }
}

pub fn auth(settings: &Settings) -> Result<Option<AuthOptions>, ConfigError> {
    let access_files: Vec<PathBuf> =
        settings.list("auth.access_files").into_iter().map(PathBuf::from).collect();
    let open =
        settings.list("auth.open").iter().map(|name| door(name)).collect::<Result<_, _>>()?;
    let wrong = |message: &str| Err(ConfigError::Combination(message.to_owned()));
    let jwt = jwt(settings)?;
    if access_files.is_empty() && jwt.is_some() {
        return wrong(
            "keys for JWTs are set, but nothing says what their holders may do; set \
             auth.access_files (--access-file) to a file with e.g. [[grant]] jwt = { groups = \
             \"developers\" }",
        );
    }
    if access_files.is_empty() {
        return match settings.text("tls.client_ca") {
            "" => Ok(None),
            _ => wrong(
                "tls.client_ca is set, but nothing says what a client with a certificate may do; \
                 set auth.access_files (--access-file) to a file with e.g. [[grant]] certificate = \
                 \"*\"",
            ),
        };
    }
    if settings.flag("cache.allow_updates") {
        return wrong(
            "cache.allow_updates would let everybody write action results, but auth.access_files \
             says who may do what; give the role write-cache instead",
        );
    }
    Ok(Some(AuthOptions { access_files, open, jwt }))
}

fn door(name: &str) -> Result<Door, ConfigError> {
    let found = Door::ALL.into_iter().find(|(_, known)| *known == name);
    found.map(|(door, _)| door).ok_or_else(|| {
        ConfigError::Combination(format!(
            "auth.open = {name:?}: there are health, metrics and pages"
        ))
    })
}

fn jwt(settings: &Settings) -> Result<Option<JwtOptions>, ConfigError> {
    let wrong = |message: String| Err(ConfigError::Combination(message));
    let text = |name| Some(settings.text(name)).filter(|text| !text.is_empty()).map(str::to_owned);
    let key_files: Vec<PathBuf> =
        settings.list("auth.jwt_keys").into_iter().map(PathBuf::from).collect();
    let secret_file = settings.path("auth.jwt_secret");
    let (jwks, audience) = (jwks(settings)?, settings.list("auth.jwt_audience"));
    let has_keys = !key_files.is_empty() || secret_file.is_some() || jwks.is_some();
    if !has_keys {
        return match audience.is_empty() && text("auth.jwt_issuer").is_none() {
            true => Ok(None),
            false => wrong(
                "auth.jwt_audience or auth.jwt_issuer is set, but no key to check tokens with; set \
                 auth.jwt_keys, auth.jwt_secret or auth.jwks_url"
                    .to_owned(),
            ),
        };
    }
    if audience.is_empty() {
        return wrong(
            "keys for JWTs are set without auth.jwt_audience: tokens that were made for other \
             services would be accepted; set it to what your identity provider puts into aud"
                .to_owned(),
        );
    }
    let leeway = settings.duration("auth.jwt_leeway");
    if leeway > MAX_LEEWAY {
        let (given, most) = (duration(leeway), duration(MAX_LEEWAY));
        return wrong(format!("auth.jwt_leeway is {given}; at most {most} is possible"));
    }
    let issuer = text("auth.jwt_issuer");
    Ok(Some(JwtOptions { key_files, secret_file, jwks, issuer, audience, leeway }))
}

fn jwks(settings: &Settings) -> Result<Option<JwksOptions>, ConfigError> {
    let text = settings.text("auth.jwks_url");
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |problem: &str| {
        Err(ConfigError::Combination(format!("auth.jwks_url = {text:?}: {problem}")))
    };
    let url = match urls::parse(text) {
        Ok(url) => url,
        Err(error) => return wrong(&error.to_string()),
    };
    if url.scheme() != "https" && !urls::is_loopback(&url) {
        return wrong("expected https://: whoever could change the answer could make tokens");
    }
    let refresh = settings.duration("auth.jwks_refresh");
    if refresh < MIN_INTERVAL {
        return wrong(&format!("auth.jwks_refresh is less than {MIN_INTERVAL:?}"));
    }
    Ok(Some(JwksOptions { url, refresh }))
}
