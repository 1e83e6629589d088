//! Asks a server's JSON API.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::CliError;
use crate::web::json::ErrorBody;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 256 << 20;

/// A server's API, by its address.
pub struct Api {
    /// `http://HOST:PORT`
    base: String,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Api {
    /// `server`: `http://`, `grpc://` or nothing in front of `HOST:PORT`.
    pub fn new(server: &str) -> Result<Self, CliError> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { base: base(server)?, client })
    }

    /// `path` comes after `/api/v1`. Errors: as the user should read them; what is not found
    /// has exit code 1.
    pub async fn get(&self, path: &str) -> Result<Value, CliError> {
        let url = format!("{}/api/v1{path}", self.base);
        let url: http::Uri = url
            .parse()
            .map_err(|error| CliError::usage(format!("{url} is not an address: {error}")))?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.answer(url)).await;
        let (status, body) = answer
            .map_err(|_| CliError::unreachable(&self.base, "no answer within 60 s"))?
            .map_err(|error| CliError::unreachable(&self.base, error))?;
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

    async fn answer(&self, url: http::Uri) -> Result<(StatusCode, Bytes), String> {
        let answer = self.client.get(url).await.map_err(|error| innermost(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
    }
}

fn base(server: &str) -> Result<String, CliError> {
    let address = match server.split_once("://") {
        Some(("http" | "grpc", rest)) => rest,
        Some((scheme, _)) => {
            let message = format!("{scheme}:// is not supported in the server's address {server}");
            return Err(CliError::usage(message).hint("write it as http://HOST:PORT"));
        }
        None => server,
    };
    Ok(format!("http://{}", address.trim_end_matches('/')))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_in_several_ways() {
        for good in ["grpc://host:1", "http://host:1/", "host:1"] {
            assert_eq!(base(good).ok().as_deref(), Some("http://host:1"), "{good}");
        }
        assert_eq!(base("https://host:1").err().map(|error| error.code), Some(2));
    }
}
