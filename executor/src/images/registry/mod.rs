//! One repository of an OCI registry (distribution specification 1.1), for the length of one pull.
//!
//! | module | what it does |
//! | --- | --- |
//! | `http` | single requests, with their time limits |
//! | `challenge` | what a registry wants before it answers |
//! | `login` | credentials from a docker `config.json` |
//! | `retry` | how often and after what pause something is tried again |

mod challenge;
pub(super) mod http;
pub mod login;
mod retry;

use std::fmt::Display;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use kiln_cas::Digest;
use kiln_net::Url;
use kiln_net::http::header::{
    CONTENT_LENGTH, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use kiln_net::http::{Response, StatusCode};
use kiln_net::urls::{UrlError, follow, same_origin, shown};

use self::challenge::Challenge;
use self::http::Http;
use self::login::Login;
use self::retry::Retries;
use super::blob::Sink;
use super::manifest::{MANIFEST_TYPES, MAX_MANIFEST_BYTES};
use super::problem::Problem;
use super::reference::DOCKER_HUB;

/// The host that serves the registry of Docker Hub.
const DOCKER_HUB_REGISTRY: &str = "registry-1.docker.io";
const MAX_REDIRECTS: usize = 5;
/// Largest answer with a token, in bytes.
const MAX_TOKEN_BYTES: u64 = 1 << 20;

pub struct Registry {
    http: Arc<Http>,
    /// The repository's address: `https://HOST/v2/REPOSITORY`.
    base: Url,
    repository: String,
    login: Option<Login>,
    /// The header that the registry asked for last.
    authorization: Mutex<Option<HeaderValue>>,
}

impl Registry {
    /// Finds out whether the registry speaks TLS, where it need not.
    pub async fn open(
        http: Arc<Http>,
        host: &str,
        repository: &str,
        auth_file: Option<&Path>,
    ) -> Result<Self, Problem> {
        let login = match auth_file {
            Some(file) => login::find(file, host)?,
            None => None,
        };
        let host = if host == DOCKER_HUB { DOCKER_HUB_REGISTRY } else { host };
        let base = beneath(&http.registry(host).await?, repository);
        let (repository, authorization) = (repository.to_owned(), Mutex::default());
        Ok(Self { http, base, repository, login, authorization })
    }

    /// A manifest or index; its bytes are checked by the caller, who alone may know their number.
    pub async fn manifest(&self, hex: &str) -> Result<Bytes, Problem> {
        let path = format!("manifests/sha256:{hex}");
        let mut retries = Retries::new(self.http.timing());
        loop {
            let attempt = async {
                let response = self.get(&path, Some(MANIFEST_TYPES)).await?;
                self.http.collect(response, MAX_MANIFEST_BYTES).await
            };
            match attempt.await {
                Ok(bytes) => return Ok(bytes),
                Err(problem) => retries.pause(problem).await?,
            }
        }
    }

    /// Writes a blob into `sink`, which checks it.
    pub async fn blob(&self, digest: &Digest, sink: &mut Sink) -> Result<(), Problem> {
        let path = format!("blobs/sha256:{}", digest.hex());
        let mut retries = Retries::new(self.http.timing());
        loop {
            match self.try_blob(&path, digest, sink).await {
                Ok(()) => return Ok(()),
                Err(problem) => retries.pause(problem).await?,
            }
        }
    }

    async fn try_blob(&self, path: &str, digest: &Digest, sink: &mut Sink) -> Result<(), Problem> {
        sink.restart()?;
        let mut response = self.get(path, None).await?;
        let announced = response.headers().get(CONTENT_LENGTH).and_then(|it| it.to_str().ok());
        if let Some(length) = announced.and_then(|length| length.parse::<u64>().ok())
            && length != digest.size
        {
            return Err(Problem::Final(format!(
                "the registry has {length} bytes for a blob of {} (sha256:{})",
                digest.size,
                digest.hex()
            )));
        }
        while let Some(chunk) = self.http.chunk(&mut response).await? {
            sink.write(&chunk)?;
        }
        sink.finish()
    }

    /// Follows redirections and authenticates once. The answer's status is 200.
    async fn get(&self, path: &str, accept: Option<&str>) -> Result<Response, Problem> {
        let mut url = beneath(&self.base, path);
        let mut challenged = false;
        for _ in 0..=MAX_REDIRECTS + 1 {
            let own = same_origin(&url, &self.base);
            // Credentials are for the registry alone: where it sends us, others listen.
            let authorization = if own { self.authorization() } else { None };
            let response = self.http.get(&url, accept, authorization).await?;
            match response.status() {
                StatusCode::OK => return Ok(response),
                StatusCode::UNAUTHORIZED if own && !challenged => {
                    challenged = true;
                    self.authenticate(&response).await?;
                }
                status if status.is_redirection() => {
                    let target = response.headers().get(LOCATION).ok_or_else(|| {
                        let url = shown(&url);
                        Problem::Final(format!("{url} answered {status} without saying where to"))
                    })?;
                    let target = follow(&url, target.as_bytes()).map_err(malformed)?;
                    url = self.http.allowed(target, &self.base)?;
                }
                _ => return Err(self.refusal(&url, &response)),
            }
        }
        let url = shown(&url);
        Err(Problem::Final(format!("{url}: more than {MAX_REDIRECTS} redirections")))
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn authenticate(&self, response: &Response) -> Result<(), Problem> {
        let challenges = challenge::read(response.headers().get_all(WWW_AUTHENTICATE));
        let bearer = challenges.iter().find(|challenge| challenge.is("bearer"));
        let basic = challenges.iter().find(|challenge| challenge.is("basic"));
        let value = match (bearer, basic, &self.login) {
            (Some(bearer), _, _) => self.token(bearer).await?,
            (None, Some(_), Some(login)) => login.basic()?,
            (None, Some(_), None) => return Err(Problem::Final(self.denied("no credentials"))),
            (None, None, _) => {
                let text = "the registry wants to know who asks, in a way that is not supported \
                            (it offers neither Bearer nor Basic)";
                return Err(Problem::Final(text.to_owned()));
            }
        };
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(())
    }

    /// Asks for a token to read this repository, whatever else the registry proposes.
    async fn token(&self, challenge: &Challenge) -> Result<HeaderValue, Problem> {
        let scope = format!("repository:{}:pull", self.repository);
        let url = challenge.token_url(&scope).ok_or_else(|| {
            Problem::Final("the registry names no place to get a token (realm)".to_owned())
        })?;
        let url = self.http.allowed(url.map_err(malformed)?, &self.base)?;
        let basic = self.login.as_ref().map(Login::basic).transpose()?;
        let response = self.http.get(&url, None, basic).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(&url, &response));
        }
        let body = self.http.collect(response, MAX_TOKEN_BYTES).await?;
        challenge::token(&body)
            .ok_or_else(|| Problem::Final(format!("{} answered without a token", shown(&url))))
    }

    fn refusal(&self, url: &Url, response: &Response) -> Problem {
        let (url, status) = (shown(url), response.status());
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Problem::Final(self.denied(&format!("{url} answered {status}")))
            }
            StatusCode::NOT_FOUND => Problem::Final(format!(
                "the registry does not have it ({url} answered {status}); check repository and \
                 digest; a private repository also needs images.auth_file"
            )),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                passing(url, status, response)
            }
            status if status.is_server_error() => passing(url, status, response),
            status => Problem::Final(format!("{url} answered {status}")),
        }
    }

    fn denied(&self, why: &str) -> String {
        let hint = match &self.login {
            Some(_) => "the credentials of images.auth_file are not enough",
            None => "name a docker config.json with credentials for it in images.auth_file",
        };
        format!("the registry does not let this worker read the repository ({why}): {hint}")
    }
}

fn passing(url: impl Display, status: StatusCode, response: &Response) -> Problem {
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let after = after.and_then(|text| text.trim().parse().ok()).map(std::time::Duration::from_secs);
    Problem::Passing { text: format!("{url} answered {status}"), after }
}

/// The URL of `path` beneath `url`.
fn beneath(url: &Url, path: &str) -> Url {
    let mut url = url.clone();
    url.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
    url
}

fn malformed(error: UrlError) -> Problem {
    Problem::Final(format!("the registry sends us to a place that cannot be used: {error}"))
}
