//! One download: the request, where it is redirected to, and what comes back.

use std::time::Duration;

use kiln_net::counts::duration;
use kiln_net::http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION};
use kiln_net::http::{Client, Response, StatusCode, described};
use kiln_net::urls::{follow, same_origin, shown};
use kiln_net::{Allowed, Url};
use tokio::time::timeout;

use super::coding::Coding;

/// Redirections followed for one download.
const MAX_REDIRECTS: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DownloadError {
    #[error("the server answered {0}")]
    NotFound(String),
    /// The web server refuses, or the configuration here does.
    #[error("{0}")]
    Denied(String),
    #[error("the download failed: {0}")]
    Failed(String),
}

/// Content on its way.
#[derive(Debug)]
pub struct Download {
    response: Response,
    coding: Coding,
    /// How long the web server may send nothing.
    idle: Duration,
}

impl Download {
    /// Bytes of the content, where the server says it.
    pub fn announced(&self) -> Option<u64> {
        if !self.coding.is_identity() {
            return None;
        }
        let length = self.response.headers().get(CONTENT_LENGTH)?.to_str().ok()?;
        length.parse().ok()
    }

    /// The next bytes as they came, to be put through [`Download::coding`]; `None`: that was all.
    pub async fn next(&mut self) -> Result<Option<bytes::Bytes>, DownloadError> {
        let next = timeout(self.idle, self.response.chunk()).await;
        let next = next.map_err(|_| DownloadError::Failed(silent(self.idle)))?;
        next.map_err(|error| DownloadError::Failed(described(error)))
    }

    pub fn coding(&mut self) -> &mut Coding {
        &mut self.coding
    }
}

/// Begins to download. `allowed` holds for redirections too; `url` has been checked. `idle`: how long a web server
/// may send nothing.
pub async fn begin(
    client: &Client,
    url: &Url,
    headers: &HeaderMap,
    allowed: &Allowed,
    idle: Duration,
) -> Result<Download, DownloadError> {
    let (mut at, mut headers) = (url.clone(), headers.clone());
    for _ in 0..=MAX_REDIRECTS {
        let response = request(client, &at, headers.clone(), idle).await?;
        let Some(target) = redirection(&at, &response)? else {
            return accept(url, &at, response, idle);
        };
        if !allowed.allows(&target) {
            return Err(DownloadError::Denied(format!(
                "{} redirects to {}, which the configuration does not allow (fetch.allow)",
                shown(&at),
                shown(&target)
            )));
        }
        if !same_origin(&at, &target) {
            // Credentials are for the one server only.
            headers.clear();
        }
        at = target;
    }
    Err(DownloadError::Failed(format!("{}: more than {MAX_REDIRECTS} redirections", shown(url))))
}

async fn request(
    client: &Client,
    url: &Url,
    mut headers: HeaderMap,
    idle: Duration,
) -> Result<Response, DownloadError> {
    // A coding would have to be undone: the content is what is left then.
    headers.entry(ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity"));
    let failed = |why: String| DownloadError::Failed(format!("{}: {why}", shown(url)));
    let response = timeout(idle, client.get(url.clone()).headers(headers).send()).await;
    response.map_err(|_| failed(silent(idle)))?.map_err(|error| failed(described(error)))
}

fn silent(idle: Duration) -> String {
    format!("nothing came for {} (fetch.idle_timeout)", duration(idle))
}

/// The URL that the answer redirects to. `None`: it is no redirection.
fn redirection(url: &Url, response: &Response) -> Result<Option<Url>, DownloadError> {
    let status = response.status();
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let failed = |what: &dyn std::fmt::Display| {
        DownloadError::Failed(format!("{} answered {status}: {what}", shown(url)))
    };
    let location = response.headers().get(LOCATION);
    let location = location.ok_or_else(|| failed(&"it does not say where to"))?;
    follow(url, location.as_bytes()).map(Some).map_err(|error| failed(&error))
}

/// `asked`: the URL before redirections.
fn accept(
    asked: &Url,
    url: &Url,
    response: Response,
    idle: Duration,
) -> Result<Download, DownloadError> {
    let status = response.status();
    if status == StatusCode::OK {
        let coding = Coding::of(response.headers(), [asked, url]);
        let coding = coding.map_err(|coding| {
            let url = shown(url);
            DownloadError::Failed(format!(
                "{url} answered with the content coding {coding:?}, which it was not asked for"
            ))
        })?;
        return Ok(Download { response, coding, idle });
    }
    let text = format!("{status} for {}", shown(url));
    Err(match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => DownloadError::NotFound(text),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            DownloadError::Denied(format!("the server answered {text}"))
        }
        _ => DownloadError::Failed(format!("the server answered {text}")),
    })
}
