//! Single requests to registries, with their time limits.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kiln_net::counts::duration;
use kiln_net::http::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use kiln_net::http::{Client, Options, RequestBuilder, Response, client, described};
use kiln_net::tls::client_config_with;
use kiln_net::urls::{self, literal_address, shown};
use kiln_net::{Reach, Url, causes, reach};

use crate::images::config::{ImagesConfig, Timing};
use crate::images::problem::Problem;

/// Idle connections kept to one registry: its blobs are fetched a few at a time.
const IDLE_CONNECTIONS: usize = 4;

pub struct Http {
    client: Client,
    hosts: Arc<Hosts>,
    timing: Timing,
}

/// The hosts that the configuration names, each as `HOST` or `HOST:PORT` in lowercase.
struct Hosts {
    insecure: Vec<String>,
    /// Registries whose images the configuration allows.
    named: Vec<String>,
}

impl Hosts {
    fn new(config: &ImagesConfig) -> Self {
        let insecure = config.insecure.iter().map(|host| host.to_ascii_lowercase()).collect();
        let named = config.allow.hosts().map(str::to_ascii_lowercase).collect();
        Self { insecure, named }
    }

    /// Clients name registries, and registries say where their blobs are: neither may lead this
    /// machine to itself or to its link by a name that the operator did not list.
    fn reach_of(&self, host: &str) -> Reach {
        if self.lists(host) { Reach::Anywhere } else { reach::of_name(host, Reach::Network) }
    }

    /// Whether the URL itself says that it leads to this machine or its link, and nobody listed it.
    fn leads_home(&self, url: &Url) -> bool {
        let here = match literal_address(url) {
            Some(address) => !Reach::Network.includes(address),
            None => urls::is_loopback(url),
        };
        here && !self.lists(host(url))
    }

    /// Whether the operator listed `host`, which has no port.
    fn lists(&self, host: &str) -> bool {
        let mut listed = self.insecure.iter().chain(&self.named);
        listed.any(|listed| without_port(listed).eq_ignore_ascii_case(host))
    }

    fn may_be_plain(&self, url: &Url) -> bool {
        let (host, authority) = (host(url), url.authority());
        urls::is_loopback(url)
            || self
                .insecure
                .iter()
                .any(|listed| listed == authority || listed.trim_matches(['[', ']']) == host)
    }
}

/// A host without the brackets of an IPv6 address.
fn host(url: &Url) -> &str {
    url.host_str().unwrap_or_default().trim_matches(['[', ']'])
}

/// The host of `listed`, which is `HOST` or `HOST:PORT`.
fn without_port(listed: &str) -> &str {
    let host = match listed.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => listed,
    };
    host.trim_matches(['[', ']'])
}

impl Http {
    /// Trusts the system's authorities and those of the configuration.
    pub fn new(config: &ImagesConfig) -> Result<Self, Problem> {
        let local = |error: &dyn std::fmt::Display| Problem::Local(error.to_string());
        let tls = client_config_with(config.ca.as_deref()).map_err(|error| local(&error))?;
        let hosts = Arc::new(Hosts::new(config));
        let timing = config.timing.clone();
        let client = client(Options {
            idle_connections: IDLE_CONNECTIONS,
            reach: Some({
                let hosts = hosts.clone();
                Arc::new(move |name: &str| hosts.reach_of(name))
            }),
            ..Options::new(tls, timing.connect)
        });
        Ok(Self { client: client.map_err(|error| local(&error))?, hosts, timing })
    }

    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// A place that `registry` sends us to. Refuses what would travel in the clear, and this machine
    /// where the registry is not on it as well.
    pub fn allowed(&self, url: Url, registry: &Url) -> Result<Url, Problem> {
        if self.hosts.leads_home(&url) && host(&url) != host(registry) {
            return Err(self.home(&url));
        }
        if url.scheme() == "https" || self.hosts.may_be_plain(&url) {
            return Ok(url);
        }
        Err(Problem::Final(format!(
            "the registry sends us to {}, which is not https; if that network is trusted, add \
             its host to images.insecure",
            shown(&url)
        )))
    }

    fn home(&self, url: &Url) -> Problem {
        let host = host(url);
        Problem::Final(format!(
            "{} leads to the worker itself or its link; if images may come from there, add \
             {host} to images.allow",
            shown(url)
        ))
    }

    /// The address of a registry: `http` only where it is allowed and where nobody answers the
    /// first word of TLS. `authority`: `HOST` or `HOST:PORT`.
    pub async fn registry(&self, authority: &str) -> Result<Url, Problem> {
        let read = |scheme: &str| {
            let url = urls::parse(&format!("{scheme}://{authority}/v2/"));
            url.map_err(|error| Problem::Final(error.to_string()))
        };
        let (secure, plain) = (read("https")?, read("http")?);
        if self.hosts.leads_home(&secure) && !urls::is_loopback(&secure) {
            return Err(self.home(&secure));
        }
        if !self.hosts.may_be_plain(&plain) {
            return Ok(secure);
        }
        let probe = self.client.get(secure.clone()).send();
        Ok(match tokio::time::timeout(self.timing.connect, probe).await {
            Ok(Err(error)) if error.is_connect() => plain,
            Err(_) => plain,
            Ok(_) => secure,
        })
    }

    pub async fn get(
        &self,
        url: &Url,
        accept: Option<&str>,
        authorization: Option<HeaderValue>,
    ) -> Result<Response, Problem> {
        let request = self.request(url, accept, authorization).send();
        match tokio::time::timeout(self.timing.answer, request).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if is_distrust(&error) => Err(Problem::Final(format!(
                "{}: {}; name the authority that signed its certificate in images.ca",
                shown(url),
                described(error)
            ))),
            Ok(Err(error)) => {
                Err(Problem::passing(format!("{}: {}", shown(url), described(error))))
            }
            Err(_) => {
                let (url, waited) = (shown(url), duration(self.timing.answer));
                Err(Problem::passing(format!("{url} did not answer within {waited}")))
            }
        }
    }

    fn request(
        &self,
        url: &Url,
        accept: Option<&str>,
        authorization: Option<HeaderValue>,
    ) -> RequestBuilder {
        let mut request = self.client.get(url.clone());
        if let Some(accept) = accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request
    }

    /// The next piece of an answer; `None`: that was all of it.
    pub async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>, Problem> {
        match tokio::time::timeout(self.timing.idle, response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => {
                Err(Problem::passing(format!("the answer broke off: {}", described(error))))
            }
            Err(_) => {
                let waited = duration(self.timing.idle);
                Err(Problem::passing(format!("nothing came for {waited}")))
            }
        }
    }

    /// A whole answer of at most `limit` bytes.
    pub async fn collect(&self, mut response: Response, limit: u64) -> Result<Bytes, Problem> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.chunk(&mut response).await? {
            if (all.len() + chunk.len()) as u64 > limit {
                return Err(Problem::Final(format!("the answer has more than {limit} bytes")));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }
}

/// Whether the server's certificate was refused.
fn is_distrust(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(causes::find(error), Some(rustls::Error::InvalidCertificate(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::AllowList;

    fn http(insecure: &[&str], allow: &[&str]) -> Http {
        let owned = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let allow = AllowList::new(&owned(allow)).unwrap();
        let insecure = owned(insecure);
        Http::new(&ImagesConfig { insecure, allow, ..ImagesConfig::default() }).unwrap()
    }

    fn url(text: &str) -> Url {
        urls::parse(text).unwrap()
    }

    #[test]
    fn plain_http_is_for_loopback_and_what_is_listed() {
        let http = http(&["Registry.lan:5000", "other.lan"], &["*"]);
        let local = url("http://127.0.0.1:5000/v2/");
        for plain in ["http://127.0.0.1:1", "http://registry.lan:5000", "http://other.lan:1"] {
            assert!(http.allowed(url(plain), &local).is_ok(), "{plain}");
        }
        for open in ["http://registry.lan", "http://example.com", "http://127.0.0.1.example"] {
            let problem = http.allowed(url(open), &local).unwrap_err().to_string();
            assert!(problem.contains("images.insecure"), "{problem}");
        }
        assert!(http.allowed(url("https://example.com/"), &local).is_ok());
    }

    #[tokio::test]
    async fn a_registry_elsewhere_does_not_lead_here() {
        let http = http(&["[::1]:1"], &["*", "10.0.0.1", "127.0.0.2:5000"]);
        let far = url("https://registry.example/v2/");
        for near in ["https://10.0.0.9/", "https://127.0.0.2:5000/", "http://[::1]:1/"] {
            assert!(http.allowed(url(near), &far).is_ok(), "{near}");
        }
        for own in [
            "https://127.0.0.1/",
            "http://localhost:1/",
            "https://169.254.169.254/",
            "https://[::ffff:127.0.0.1]/",
        ] {
            let problem = http.allowed(url(own), &far).unwrap_err().to_string();
            assert!(problem.contains("images.allow"), "{problem}");
        }
        assert_eq!(http.hosts.reach_of("any.example"), Reach::Network);
        let problem = http.registry("169.254.169.254").await.unwrap_err().to_string();
        assert!(problem.contains("images.allow"), "{problem}");
    }
}
