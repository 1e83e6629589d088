//! Sends requests to the API of a forge, and says what came of it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiln_net::http::{self, Options, RequestBuilder, Response, StatusCode, described, header};
use kiln_net::tls::{TlsFiles, client_config, without_trust};
use kiln_net::{Reach, reach};

use super::calls::{self, Call};
use super::event::{Change, Person, Said};
use super::forge::{Binding, Forge, Kind};
use super::github;
use super::intake::LookUp;
use super::secrets::{Secrets, Token};

const CONNECT: Duration = Duration::from_secs(5);
/// Forges wait ten seconds for the answer to a webhook, in which two of these fit.
const ANSWER: Duration = Duration::from_millis(4_500);
/// Bytes of an answer that are read: a change is some tens of kilobytes.
const MAX_ANSWER: usize = 1 << 20;
/// Characters of an answer that a message repeats.
const MAX_SAID: usize = 200;
/// The longest time for which a forge may ask to be left alone.
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// Why a request came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// The same request may do later, and not before `after` where the forge says so.
    #[error("{why}")]
    Later { why: String, after: Option<Duration> },
    /// The same request would be refused again.
    #[error("{0}")]
    Refused(String),
}

/// Why a client cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client for forge {forge} cannot be set up: {why}")]
pub struct ApiError {
    forge: String,
    why: String,
}

/// The API of one forge. Clones share its connections.
#[derive(Clone)]
pub struct Api {
    client: http::Client,
    forge: Arc<Forge>,
    secrets: Arc<Secrets>,
}

impl Api {
    pub fn new(forge: Arc<Forge>, secrets: Arc<Secrets>) -> Result<Self, ApiError> {
        let failed = |why: String| ApiError { forge: forge.name.to_string(), why };
        let tls = match forge.api.scheme() {
            "https" => client_config(&TlsFiles { ca: forge.ca_file.clone(), identity: None }),
            _ => without_trust(),
        };
        let tls = tls.map_err(|error| failed(kiln_net::causes::chain(&error)))?;
        // The operator named this host, and nothing else: no redirection is followed, and whoever has its name in the DNS
        // leads nowhere but to a network.
        let reach = |name: &str| reach::of_name(name, Reach::Network);
        let options = Options { reach: Some(Arc::new(reach)), ..Options::new(tls, CONNECT) };
        let client = http::client(options).map_err(|error| failed(error.to_string()))?;
        Ok(Self { client, forge, secrets })
    }

    pub fn forge(&self) -> &Forge {
        &self.forge
    }

    fn request(&self, call: &Call, token: &Token) -> RequestBuilder {
        let url = format!("{}{}", self.forge.api.as_str().trim_end_matches('/'), call.path);
        let Token(token) = token;
        let request = match &call.body {
            Some(body) => self
                .client
                .post(url)
                .header(header::CONTENT_TYPE, "application/json")
                .body(body.to_string()),
            None => self.client.get(url),
        };
        let request = match self.forge.kind {
            Kind::GitHub => request
                .header(header::ACCEPT, "application/vnd.github+json")
                .header("x-github-api-version", "2022-11-28")
                .header(header::AUTHORIZATION, format!("Bearer {token}")),
            Kind::Gitea => request.header(header::AUTHORIZATION, format!("token {token}")),
            Kind::GitLab => request.header("private-token", token),
        };
        request.timeout(ANSWER)
    }

    /// Sends a request. The answer's body, where it was done.
    pub async fn send(&self, call: &Call) -> Result<Vec<u8>, Failed> {
        let name = &self.forge.name;
        let missing = || Failed::Refused(format!("forge {name} has no token_file"));
        let token = self.secrets.token(name).ok_or_else(missing)?;
        let sent = self.request(call, &token).send().await;
        let answer = sent.map_err(|error| Failed::Later { why: described(error), after: None })?;
        let (status, after) = (answer.status(), pause(&answer));
        let body = http::collect(answer, MAX_ANSWER).await;
        if status.is_success() {
            return body.map_err(|error| Failed::Later { why: error.to_string(), after: None });
        }
        let body = body.unwrap_or_default();
        match is_already(self.forge.kind, status, &body) {
            true => Ok(body),
            false => Err(failed(status, &body, after)),
        }
    }
}

/// How long the forge wants to be left alone, in whole seconds (RFC 9110, section 10.2.3).
fn pause(answer: &Response) -> Option<Duration> {
    let text = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    let seconds = text.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

/// Older GitLab takes it for a mistake to be told again what it knows.
fn is_already(kind: Kind, status: StatusCode, body: &[u8]) -> bool {
    let says = |words: &[u8]| body.windows(words.len()).any(|it| it == words);
    kind == Kind::GitLab && status == StatusCode::BAD_REQUEST && says(b"Cannot transition status")
}

fn failed(status: StatusCode, body: &[u8], after: Option<Duration>) -> Failed {
    let text = String::from_utf8_lossy(body);
    let said: String = kiln_net::causes::one_line(&text).chars().take(MAX_SAID).collect();
    let why = format!("it answered {status}: {said}");
    // Who may not do it now may once the token is mended, or the hour of a limit is over.
    let later = status.is_server_error()
        || matches!(status.as_u16(), 401 | 403 | 408 | 425 | 429)
        || after.is_some();
    if later { Failed::Later { why, after } } else { Failed::Refused(why) }
}

/// Looks changes up at the forges they are of.
pub struct Apis(pub Vec<Api>);

impl Apis {
    fn of<'a>(
        &'a self,
        forge: &'a Forge,
        repository: &str,
    ) -> Result<(&'a Api, &'a Binding), String> {
        let api = self.0.iter().find(|it| it.forge.name == forge.name);
        let api = api.ok_or_else(|| "the forge has no token_file".to_owned())?;
        let binding = forge.rules.bindings.iter().find(|it| it.repository.is(repository));
        let binding = binding.ok_or_else(|| "no queue has its repository".to_owned())?;
        Ok((api, binding))
    }
}

#[async_trait]
impl LookUp for Apis {
    async fn change(&self, forge: &Forge, said: &Said) -> Result<Change, String> {
        let (api, binding) = self.of(forge, &said.repository)?;
        let call = calls::change(forge.kind, &binding.repository, said.number);
        let body = api.send(&call).await.map_err(|failed| failed.to_string())?;
        github::change(&body).map_err(|error| error.to_string())
    }

    async fn is_open(&self, forge: &Forge, repository: &str, number: u64) -> Result<bool, String> {
        let (api, binding) = self.of(forge, repository)?;
        let call = calls::change(forge.kind, &binding.repository, number);
        let body = api.send(&call).await.map_err(|failed| failed.to_string())?;
        calls::is_open(&body).ok_or_else(|| "its answer does not say it".to_owned())
    }

    async fn writes(&self, forge: &Forge, repository: &str, by: &Person) -> Result<bool, String> {
        let (api, binding) = self.of(forge, repository)?;
        let Some(call) = calls::role(forge.kind, &binding.repository, by) else { return Ok(false) };
        match api.send(&call).await {
            Ok(body) => Ok(calls::writes(&body)),
            // There is nobody of that name in the repository.
            Err(Failed::Refused(_)) => Ok(false),
            Err(Failed::Later { why, .. }) => Err(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_do_later_is_told_from_what_never_does() {
        let of = |status: u16, after| {
            let status = StatusCode::from_u16(status).unwrap();
            matches!(failed(status, b"{}", after), Failed::Later { .. })
        };
        for status in [401, 403, 408, 429, 500, 502, 503] {
            assert!(of(status, None), "{status}");
        }
        for status in [301, 400, 404, 410, 422] {
            assert!(!of(status, None), "{status}");
        }
        assert!(of(404, Some(Duration::from_secs(1))), "the forge says when");
        let long = "x\n".repeat(1_000);
        let said = failed(StatusCode::NOT_FOUND, long.as_bytes(), None).to_string();
        assert!(said.len() < 300 && !said.contains('\n'), "{said}");
        let body = b"{\"message\":\"Cannot transition status via :enqueue from :pending\"}";
        assert!(is_already(Kind::GitLab, StatusCode::BAD_REQUEST, body));
        assert!(!is_already(Kind::GitHub, StatusCode::BAD_REQUEST, body));
        assert!(!is_already(Kind::GitLab, StatusCode::BAD_REQUEST, b"ref is missing"));
    }
}
