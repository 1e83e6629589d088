//! Asks a server's JSON API.

use std::time::Duration;

use kiln_net::grpc::{AddressError, Token, address, of_other_protocol};
use kiln_net::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use kiln_net::http::{Client, Options, RequestBuilder, StatusCode, client, collect};
use kiln_net::tls::{client_config, without_trust};
use kiln_net::{Url, causes, urls};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::error::CliError;
use crate::cli::target::Target;
use kiln_web::json::ErrorBody;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an answer may take for which the server reads and hashes all of a release.
const LONG_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long an answer may take that costs the server nothing, such as that of a health check.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 256 << 20;

/// An id as part of an address: what is no part of one is left out.
pub fn plain(id: &str) -> String {
    id.chars().filter(char::is_ascii_alphanumeric).take(80).collect()
}

/// A client of one server's JSON API.
pub struct Api {
    /// The server's address: `http://HOST:PORT` or `https://HOST:PORT`.
    base: String,
    client: Client,
    token: Option<Token>,
    /// How long the server may take to answer.
    patience: Duration,
}

impl Api {
    pub fn new(target: &Target) -> Result<Self, CliError> {
        target.warn_of_a_bare_token();
        Self::of(target, &target.url)
    }

    /// Makes a client of each server of a fleet that the command line names.
    pub fn each(target: &Target) -> Result<Vec<Self>, CliError> {
        target.warn_of_a_bare_token();
        target.urls().map(|url| Self::of(target, url)).collect()
    }

    fn of(target: &Target, url: &str) -> Result<Self, CliError> {
        let (base, secure) = address(url.trim_end_matches('/'))?;
        let tls = match secure {
            true => client_config(&target.credentials.tls).map_err(AddressError::from)?,
            false => without_trust().map_err(AddressError::from)?,
        };
        let client = client(Options::new(tls, CONNECT_TIMEOUT));
        let client = client.map_err(|error| CliError::of_machine(&error))?;
        Ok(Self { base, client, token: target.credentials.token.clone(), patience: ANSWER_TIMEOUT })
    }

    /// The same client with more time for the answer, for what takes a server long.
    pub fn patient(self) -> Self {
        Self { patience: LONG_TIMEOUT, ..self }
    }

    /// The same client, which waits no longer than this, for a caller that asks another server
    /// then.
    pub fn within_at_most(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The server's address as `http://HOST:PORT` or `https://HOST:PORT`, without a slash at the
    /// end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Whether a path of health answers 200, and what it says.
    pub async fn health(&self, path: &str) -> Result<(bool, String), CliError> {
        let asked = self.client.get(self.url(path)?);
        let (status, body) = self.within(HEALTH_TIMEOUT, asked).await?;
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
        let asked = self.client.get(self.url(&format!("/api/v1{path}"))?);
        self.understood(asked).await
    }

    /// Posts a body as JSON to a path below `/api/v1` and returns the answer. Errors are the
    /// server's refusal, or why there is no answer.
    pub async fn post<T: Serialize>(&self, path: &str, body: &T) -> Result<Value, CliError> {
        let body =
            serde_json::to_vec(body).map_err(|error| CliError::machine(error.to_string()))?;
        self.send(path, "application/json", body).await
    }

    /// Posts a body of any type to a path below `/api/v1` and returns the answer. Errors are the
    /// server's refusal, or why there is no answer.
    pub async fn send(
        &self,
        path: &str,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> Result<Value, CliError> {
        let asked = self.client.post(self.url(&format!("/api/v1{path}"))?);
        self.understood(asked.header(CONTENT_TYPE, content_type).body(body)).await
    }

    async fn understood(&self, asked: RequestBuilder) -> Result<Value, CliError> {
        let (status, body) = self.within(self.patience, asked).await?;
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|error| not_kiln(&self.base, error));
        }
        let said = serde_json::from_slice::<ErrorBody>(&body);
        let said = said.map_err(|_| match status {
            // What stands before it says that it is not there.
            StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                CliError::busy(format!("{} answered {status}", self.base)).hint(
                    "what stands before the server cannot reach it now: try again in a moment",
                )
            }
            _ => not_kiln(&self.base, format!("it answered {status}")),
        })?;
        let error = match status {
            StatusCode::NOT_FOUND => CliError::not_found(said.error.message),
            StatusCode::BAD_REQUEST => CliError::usage(said.error.message),
            StatusCode::CONFLICT => CliError::conflict(said.error.message),
            StatusCode::SERVICE_UNAVAILABLE => CliError::busy(said.error.message),
            _ => CliError::answered(said.error.message),
        };
        Err(error.hint(said.error.hint))
    }

    fn url(&self, path: &str) -> Result<Url, CliError> {
        urls::parse(&format!("{}{path}", self.base))
            .map_err(|error| CliError::usage(error.to_string()))
    }

    async fn within(
        &self,
        within: Duration,
        asked: RequestBuilder,
    ) -> Result<(StatusCode, Vec<u8>), CliError> {
        let answer = tokio::time::timeout(within, self.answer(asked)).await;
        let late = |_| format!("no answer within {} s", within.as_secs());
        answer
            .map_err(late)
            .and_then(|answer| answer)
            .map_err(|error| CliError::unreachable(&self.base, error))
    }

    async fn answer(&self, asked: RequestBuilder) -> Result<(StatusCode, Vec<u8>), String> {
        let mut request = asked;
        if let Some(token) = &self.token {
            let mut value = HeaderValue::try_from(token.authorization())
                .map_err(|_| "the token cannot be sent in a header".to_owned())?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let secure = self.base.starts_with("https:");
        let failed = |error| {
            let other = match secure {
                true => of_other_protocol(&error, secure),
                false => of_tls_port(&error),
            };
            // Outer errors only say that a request failed.
            other.unwrap_or_else(|| causes::innermost(&error))
        };
        let answer = request.send().await.map_err(failed)?;
        let status = answer.status();
        let body = collect(answer, MAX_ANSWER).await.map_err(|error| causes::chain(&error))?;
        Ok((status, body))
    }
}

/// The message for a port with TLS that was asked without: it answers by an alert, which is no
/// HTTP. `None`: the error is another one.
fn of_tls_port(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    causes::find::<hyper::Error>(error).filter(|error| error.is_parse()).map(|_| {
        "what answers there does not speak HTTP: if that port is one with TLS, write https:// in --server"
            .to_owned()
    })
}

fn not_kiln(base: &str, cause: impl std::fmt::Display) -> CliError {
    CliError::answered(format!("{base} does not answer as a Kiln server: {cause}"))
        .hint("is --server the address of `kiln serve`, of the same version as this command?")
}

/// Reads an answer as the type that it is to have.
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
