//! Single requests to registries, with their time limits.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, USER_AGENT};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::images::problem::Problem;
use crate::remote::client_config_with;

/// Idle connections kept to one registry: its blobs are fetched a few at a time.
const IDLE_CONNECTIONS: usize = 4;

/// How long a registry may take, and how often it is asked.
#[derive(Debug, Clone)]
pub struct Timing {
    pub connect: Duration,
    /// From the request to the head of its answer.
    pub answer: Duration,
    /// Between two pieces of an answer.
    pub idle: Duration,
    /// Of one pull, from beginning to end.
    pub pull: Duration,
    /// Attempts at one request.
    pub attempts: u32,
    /// Before the second attempt; doubled with each further one.
    pub first_pause: Duration,
    pub longest_pause: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            pull: Duration::from_secs(3600),
            attempts: 5,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(15),
        }
    }
}

/// An absolute address, http or https.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url(Uri);

impl Url {
    pub fn new(text: &str) -> Result<Self, Problem> {
        let malformed = || Problem::Final(format!("{text:?} is not an http or https address"));
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        if known && plain { Ok(Self(uri)) } else { Err(malformed()) }
    }

    pub fn join(&self, path: &str) -> Result<Self, Problem> {
        Self::new(&format!("{}{path}", self.0))
    }

    /// Where a `Location` header leads.
    pub fn follow(&self, target: &str) -> Result<Self, Problem> {
        if !target.starts_with('/') || target.starts_with("//") {
            return Self::new(target);
        }
        Self::new(&format!("{}://{}{target}", self.scheme(), self.authority()))
    }

    fn scheme(&self) -> &str {
        self.0.scheme_str().unwrap_or_default()
    }

    fn authority(&self) -> &str {
        self.0.authority().map_or("", |authority| authority.as_str())
    }

    pub fn same_origin(&self, other: &Self) -> bool {
        self.scheme() == other.scheme() && self.authority().eq_ignore_ascii_case(other.authority())
    }
}

impl fmt::Display for Url {
    /// Without its query: signed addresses of storage services are as good as passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.authority(), self.0.path())
    }
}

type HttpClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

pub struct Http {
    client: HttpClient,
    /// `HOST` or `HOST:PORT`, lowercase.
    insecure: Vec<String>,
    timing: Timing,
}

impl Http {
    /// Trusts the system's authorities and those in `ca`.
    pub fn new(insecure: &[String], ca: Option<&Path>, timing: Timing) -> Result<Self, Problem> {
        let tls = client_config_with(ca).map_err(|error| Problem::Local(error.to_string()))?;
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(timing.connect));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_max_idle_per_host(IDLE_CONNECTIONS);
        let insecure = insecure.iter().map(|host| host.to_ascii_lowercase()).collect();
        Ok(Self { client: client.build(connector), insecure, timing })
    }

    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// Refuses what would travel in the clear.
    pub fn allowed(&self, url: Url) -> Result<Url, Problem> {
        if url.scheme() == "https" || self.may_be_plain(url.authority()) {
            return Ok(url);
        }
        Err(Problem::Final(format!(
            "the registry sends us to {url}, which is not https; if that network is trusted, add \
             its host to images.insecure"
        )))
    }

    fn may_be_plain(&self, authority: &str) -> bool {
        let authority = authority.to_ascii_lowercase();
        let host = authority.parse().map_or(String::new(), |it: http::uri::Authority| {
            it.host().trim_matches(['[', ']']).to_owned()
        });
        let loopback = host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        loopback || self.insecure.iter().any(|listed| *listed == authority || *listed == host)
    }

    /// `http` only where it is allowed and where nobody answers the first word of TLS.
    pub async fn scheme(&self, authority: &str) -> &'static str {
        if !self.may_be_plain(authority) {
            return "https";
        }
        let Ok(url) = Url::new(&format!("https://{authority}/v2/")) else { return "https" };
        let probe = self.client.request(request(&url, None, None));
        match tokio::time::timeout(self.timing.connect, probe).await {
            Ok(Err(error)) if error.is_connect() => "http",
            Err(_) => "http",
            Ok(_) => "https",
        }
    }

    pub async fn get(
        &self,
        url: &Url,
        accept: Option<&str>,
        authorization: Option<HeaderValue>,
    ) -> Result<Response<Incoming>, Problem> {
        let request = self.client.request(request(url, accept, authorization));
        match tokio::time::timeout(self.timing.answer, request).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if is_distrust(&error) => Err(Problem::Final(format!(
                "{url}: {}; name the authority that signed its certificate in images.ca",
                chain(&error)
            ))),
            Ok(Err(error)) => Err(Problem::passing(format!("{url}: {}", chain(&error)))),
            Err(_) => {
                let waited = self.timing.answer;
                Err(Problem::passing(format!("{url} did not answer within {waited:?}")))
            }
        }
    }

    /// The next piece of an answer; `None`: that was all of it.
    pub async fn chunk(&self, body: &mut Incoming) -> Result<Option<Bytes>, Problem> {
        loop {
            match tokio::time::timeout(self.timing.idle, body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => {
                    // Trailers say nothing here.
                    let Ok(data) = frame.into_data() else { continue };
                    return Ok(Some(data));
                }
                Ok(Some(Err(error))) => {
                    let text = format!("the answer broke off: {}", chain(&error));
                    return Err(Problem::passing(text));
                }
                Err(_) => {
                    let waited = self.timing.idle;
                    return Err(Problem::passing(format!("nothing came for {waited:?}")));
                }
            }
        }
    }

    /// A whole answer of at most `limit` bytes.
    pub async fn collect(
        &self,
        response: Response<Incoming>,
        limit: u64,
    ) -> Result<Bytes, Problem> {
        let mut body = response.into_body();
        let mut all = BytesMut::new();
        while let Some(chunk) = self.chunk(&mut body).await? {
            if (all.len() + chunk.len()) as u64 > limit {
                return Err(Problem::Final(format!("the answer has more than {limit} bytes")));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }
}

fn request(
    url: &Url,
    accept: Option<&str>,
    authorization: Option<HeaderValue>,
) -> Request<Empty<Bytes>> {
    const AGENT: &str = concat!("kiln/", env!("CARGO_PKG_VERSION"));
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = url.0.clone();
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    if let Some(accept) = accept.and_then(|accept| HeaderValue::from_str(accept).ok()) {
        headers.insert(ACCEPT, accept);
    }
    if let Some(authorization) = authorization {
        headers.insert(AUTHORIZATION, authorization);
    }
    request
}

/// Whether the server's certificate was refused.
fn is_distrust(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<std::io::Error>();
        let inner = io.and_then(|io| io.get_ref()?.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::InvalidCertificate(_)) = inner {
            return true;
        }
        next = error.source();
    }
    false
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_followed_relative_to_their_origin() {
        let from = Url::new("https://registry.example:5000/v2/a/blobs/x").unwrap();
        let to = |target: &str| from.follow(target).map(|url| url.to_string());
        assert_eq!(to("/v2/b").unwrap(), "https://registry.example:5000/v2/b");
        assert_eq!(to("http://other/x?secret=1").unwrap(), "http://other/x", "no query is shown");
        for bad in ["", "b", "//other/x", "ftp://other/x", "https://user:pass@other/"] {
            assert!(to(bad).is_err(), "{bad}");
        }
        let same = |other: &str| Url::new(other).unwrap().same_origin(&from);
        assert!(same("https://REGISTRY.example:5000/x"));
        assert!(!same("http://registry.example:5000/x") && !same("https://registry.example/x"));
    }

    #[test]
    fn plain_http_is_for_loopback_and_what_is_listed() {
        let insecure = ["Registry.lan:5000".to_owned(), "other.lan".to_owned()];
        let http = Http::new(&insecure, None, Timing::default()).unwrap();
        let plain =
            ["localhost", "127.0.0.1:5000", "[::1]:5000", "registry.lan:5000", "other.lan:1"];
        assert!(plain.iter().all(|host| http.may_be_plain(host)));
        assert!(
            !["registry.lan", "example.com", "127.0.0.1.example"]
                .iter()
                .any(|host| http.may_be_plain(host))
        );
        assert!(http.allowed(Url::new("http://example.com/").unwrap()).is_err());
        assert!(http.allowed(Url::new("https://example.com/").unwrap()).is_ok());
    }
}
