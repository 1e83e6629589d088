//! Asks a server's JSON API.

use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kiln_executor::remote::{
    ServerError, Token, address, client_config, of_other_protocol, provider,
};
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{CliError, Target};
use crate::web::json::ErrorBody;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// For answers that cost nothing.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 256 << 20;

/// A server's API.
pub struct Api {
    /// `http://HOST:PORT` or `https://HOST:PORT`
    base: String,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    token: Option<Token>,
}

impl Api {
    pub fn new(target: &Target) -> Result<Self, CliError> {
        target.warn_of_a_bare_token();
        let (base, secure) = address(target.url.trim_end_matches('/'))?;
        let tls = match secure {
            true => client_config(&target.credentials.tls).map_err(ServerError::from)?,
            false => no_tls()?,
        };
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { base, client, token: target.credentials.token.clone() })
    }

    /// Whether a path of health answers 200, and what it says.
    pub async fn health(&self, path: &str) -> Result<(bool, String), CliError> {
        let (status, body) = self.fetch(path, HEALTH_TIMEOUT).await?;
        let said = String::from_utf8_lossy(&body).into_owned();
        match status {
            StatusCode::OK => Ok((true, said)),
            StatusCode::SERVICE_UNAVAILABLE => Ok((false, said)),
            _ => Err(not_kiln(&self.base, format!("it answered {status}"))),
        }
    }

    /// `path` comes after `/api/v1`. Errors: as the user should read them; what is not found
    /// has exit code 1.
    pub async fn get(&self, path: &str) -> Result<Value, CliError> {
        let (status, body) = self.fetch(&format!("/api/v1{path}"), ANSWER_TIMEOUT).await?;
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|error| not_kiln(&self.base, error));
        }
        let said: ErrorBody = serde_json::from_slice(&body)
            .map_err(|_| not_kiln(&self.base, format!("it answered {status}")))?;
        let error = match status {
            StatusCode::NOT_FOUND => CliError::not_found(said.error.message),
            StatusCode::BAD_REQUEST => CliError::usage(said.error.message),
            _ => CliError::answered(said.error.message),
        };
        Err(error.hint(said.error.hint))
    }

    async fn fetch(&self, path: &str, within: Duration) -> Result<(StatusCode, Bytes), CliError> {
        let url = format!("{}{path}", self.base);
        let url: http::Uri = url
            .parse()
            .map_err(|error| CliError::usage(format!("{url} is not an address: {error}")))?;
        let answer = tokio::time::timeout(within, self.answer(url)).await;
        let late = |_| format!("no answer within {} s", within.as_secs());
        answer
            .map_err(late)
            .and_then(|answer| answer)
            .map_err(|error| CliError::unreachable(&self.base, error))
    }

    async fn answer(&self, url: http::Uri) -> Result<(StatusCode, Bytes), String> {
        let mut request = Request::get(url).body(Empty::new()).map_err(|e| e.to_string())?;
        if let Some(token) = &self.token {
            let mut value = HeaderValue::try_from(token.authorization())
                .map_err(|_| "the token cannot be sent in a header".to_owned())?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let secure = self.base.starts_with("https:");
        let failed = |error| of_other_protocol(&error, secure).unwrap_or_else(|| innermost(&error));
        let answer = self.client.request(request).await.map_err(failed)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
    }
}

/// For a server without TLS: trusts nobody.
fn no_tls() -> Result<ClientConfig, CliError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| CliError::machine(error.to_string()))?;
    Ok(config.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// Outer errors only say that a request failed.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

fn not_kiln(base: &str, cause: impl std::fmt::Display) -> CliError {
    CliError::answered(format!("{base} does not answer as a Kiln server: {cause}"))
        .hint("is --server the address of `kiln serve`, of the same version as this command?")
}

/// The answer as its type.
pub fn read<T: DeserializeOwned>(answer: Value) -> Result<T, CliError> {
    serde_json::from_value(answer).map_err(|error| {
        CliError::answered(format!("the server's answer is not understood: {error}"))
            .hint("are server and command of the same version?")
    })
}

/// The answer as it is with `--json`, else as text for people.
pub fn print<T: DeserializeOwned>(
    answer: Value,
    json: bool,
    text: impl FnOnce(&T) -> String,
) -> Result<(), CliError> {
    match json {
        true => super::text::print(&format!("{answer:#}\n")),
        false => super::text::print(&text(&read(answer)?)),
    }
}
