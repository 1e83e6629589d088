//! Downloads for Remote Asset.

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::asset::Allowed;

/// Redirections followed for one download.
const MAX_REDIRECTS: usize = 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DownloadError {
    #[error("the server answered {0}")]
    NotFound(String),
    /// By the server, or by the configuration here.
    #[error("{0}")]
    Denied(String),
    #[error("{0}")]
    Malformed(String),
    #[error("the download failed: {0}")]
    Failed(String),
}

/// Content on its way.
pub struct Download {
    pub body: Pin<Box<dyn Stream<Item = Result<Bytes, DownloadError>> + Send>>,
}

#[async_trait]
pub trait Downloader: Send + Sync + 'static {
    /// Begins to download. `allowed` holds for redirections too; `uri` has been checked.
    async fn download(
        &self,
        uri: &str,
        headers: &[(String, String)],
        allowed: &Allowed,
    ) -> Result<Download, DownloadError>;
}

type HttpClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// http and https, with the machine's certificate authorities.
#[derive(Default)]
pub struct HttpDownloader {
    /// Made at the first use: reading the authorities takes time and memory.
    client: tokio::sync::OnceCell<HttpClient>,
}

impl HttpDownloader {
    pub fn new() -> Self {
        Self::default()
    }

    async fn client(&self) -> Result<&HttpClient, DownloadError> {
        let made = self.client.get_or_try_init(|| async { make_client() }).await;
        made.map_err(|error| {
            DownloadError::Failed(format!("the certificate authorities cannot be read: {error}"))
        })
    }
}

fn make_client() -> std::io::Result<HttpClient> {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.enforce_http(false);
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::ring::default_provider())?
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    Ok(Client::builder(TokioExecutor::new()).build(https))
}

#[async_trait]
impl Downloader for HttpDownloader {
    async fn download(
        &self,
        uri: &str,
        headers: &[(String, String)],
        allowed: &Allowed,
    ) -> Result<Download, DownloadError> {
        let client = self.client().await?;
        let mut uri = uri.to_owned();
        let mut headers = headers;
        for _ in 0..=MAX_REDIRECTS {
            let response = client
                .request(request(&uri, headers)?)
                .await
                .map_err(|error| DownloadError::Failed(format!("{uri}: {}", chain(&error))))?;
            let Some(target) = redirection(&uri, &response)? else {
                return accept(&uri, response);
            };
            if !allowed.allows(&target) {
                return Err(DownloadError::Denied(format!(
                    "{uri} redirects to {target}, which the configuration does not allow"
                )));
            }
            if authority(&uri) != authority(&target) {
                // Credentials are for the one server only.
                headers = &[];
            }
            uri = target;
        }
        Err(DownloadError::Failed(format!("{uri}: more than {MAX_REDIRECTS} redirections")))
    }
}

fn request(
    uri: &str,
    headers: &[(String, String)],
) -> Result<Request<Empty<Bytes>>, DownloadError> {
    let malformed = |what: String| DownloadError::Malformed(what);
    let parsed: Uri = uri.parse().map_err(|e| malformed(format!("{uri:?} is no URI: {e}")))?;
    if !matches!(parsed.scheme_str(), Some("http" | "https")) {
        return Err(malformed(format!("{uri:?}: only http and https can be downloaded")));
    }
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = parsed;
    for (name, value) in headers {
        let name: HeaderName =
            name.parse().map_err(|e| malformed(format!("header {name:?}: {e}")))?;
        // The value may be a secret: it is not repeated in the message.
        let value: HeaderValue =
            value.parse().map_err(|_| malformed(format!("header {name}: invalid value")))?;
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

/// Where the answer sends us. `None`: it is no redirection.
fn redirection(uri: &str, response: &Response<Incoming>) -> Result<Option<String>, DownloadError> {
    let status = response.status();
    if !status.is_redirection() || status == StatusCode::NOT_MODIFIED {
        return Ok(None);
    }
    let location = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
    let location = location.ok_or_else(|| {
        DownloadError::Failed(format!("{uri} answered {status} without a location"))
    })?;
    resolve(uri, location).map(Some)
}

/// `location` as seen from `uri`: absolute, or from the root of the same server.
fn resolve(uri: &str, location: &str) -> Result<String, DownloadError> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return Ok(location.to_owned());
    }
    let scheme = uri.split("://").next().unwrap_or_default();
    if location.starts_with("//") {
        return Ok(format!("{scheme}:{location}"));
    }
    if location.starts_with('/') {
        return Ok(format!("{scheme}://{}{location}", authority(uri)));
    }
    Err(DownloadError::Failed(format!("{uri} redirects to {location:?}, which is not absolute")))
}

fn authority(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or(rest)
}

fn accept(uri: &str, response: Response<Incoming>) -> Result<Download, DownloadError> {
    let status = response.status();
    if status != StatusCode::OK {
        let text = format!("{status} for {uri}");
        return Err(match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => DownloadError::NotFound(text),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                DownloadError::Denied(format!("the server answered {text}"))
            }
            _ => DownloadError::Failed(format!("the server answered {text}")),
        });
    }
    let body = response.into_body().into_data_stream();
    let body = body.map(|data| data.map_err(|error| DownloadError::Failed(chain(&error))));
    Ok(Download { body: Box::pin(body) })
}

/// An error with its causes: the outermost alone often says nothing.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_resolve() {
        let from = "https://a.example:1/x/y?q";
        for (location, expected) in [
            ("http://b/z", "http://b/z"),
            ("//b/z", "https://b/z"),
            ("/z", "https://a.example:1/z"),
        ] {
            assert_eq!(resolve(from, location).as_deref(), Ok(expected));
        }
        assert!(resolve(from, "z").is_err());
    }

    #[test]
    fn only_http_and_whole_headers_go_out() {
        assert!(request("ftp://a/b", &[]).is_err());
        assert!(request("not a uri", &[]).is_err());
        let secret = [("authorization".to_owned(), "se\ncret".to_owned())];
        let error = request("http://a/b", &secret).unwrap_err().to_string();
        assert!(error.contains("authorization") && !error.contains("se\ncret"), "{error}");
    }
}
