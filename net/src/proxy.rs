//! Proxies as the environment names them: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in
//! capitals or not, as curl and others read them. This machine itself is never asked for through a
//! proxy.

use reqwest::{NoProxy, Proxy};
use url::Url;

use crate::urls::shown;

/// Names of this machine: a proxy elsewhere would take them for its own.
const NEVER: &str = "localhost,127.0.0.0/8,::1";

/// The proxies in use, for a client.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    /// Hosts that are asked without a proxy, as `NO_PROXY` lists them.
    no: String,
}

impl Proxies {
    /// `variable`: the value of an environment variable.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        // A server that ran Kiln as a CGI script would let its clients set HTTP_PROXY.
        if variable("REQUEST_METHOD").is_some() {
            return Self::default();
        }
        let either = |name: &'static str| {
            let value = variable(name).or_else(|| variable(&name.to_ascii_lowercase()));
            value.filter(|value| !value.trim().is_empty()).map(|value| (name, value))
        };
        let proxy = |name| {
            let (name, value) = either(name).or_else(|| either("ALL_PROXY"))?;
            usable(name, value.trim())
        };
        let no = either("NO_PROXY").map(|(_, value)| value).unwrap_or_default();
        Self { http: proxy("HTTP_PROXY"), https: proxy("HTTPS_PROXY"), no: exceptions(&no) }
    }

    pub fn from_environment() -> Self {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Names of the proxies' hosts, which are resolved as well.
    pub fn hosts(&self) -> Vec<String> {
        let proxies = [&self.http, &self.https].into_iter().flatten();
        proxies.filter_map(|url| url.host_str()).map(str::to_owned).collect()
    }

    pub fn list(&self) -> reqwest::Result<Vec<Proxy>> {
        let no = NoProxy::from_string(&self.no);
        let http = self.http.clone().map(Proxy::http);
        let https = self.https.clone().map(Proxy::https);
        let proxies = http.into_iter().chain(https);
        proxies.map(|proxy| proxy.map(|proxy| proxy.no_proxy(no.clone()))).collect()
    }
}

/// The proxy of a variable; without a scheme http is meant.
fn usable(name: &str, value: &str) -> Option<Url> {
    let url = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    match Url::parse(&url) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            tracing::debug!(variable = name, proxy = %shown(&without_user(&url)), "using a proxy");
            Some(url)
        }
        // The value may hold a password: it is not repeated.
        _ => {
            tracing::warn!(
                variable = name,
                "the proxy is not used: only http:// and https:// proxies are supported"
            );
            None
        }
    }
}

fn without_user(url: &Url) -> Url {
    let mut url = url.clone();
    // The only error is that there is no host, which was looked at.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

/// As the client reads them: separated by commas, `.example` for `*.example`, IPv6 without brackets, and for all
/// hosts all addresses as well, since `*` is for names alone there.
fn exceptions(no: &str) -> String {
    let entries = no.split(|it: char| it == ',' || it.is_whitespace());
    let entries = entries.filter(|entry| !entry.is_empty());
    let plain = |entry: &str| match entry.strip_prefix("*.") {
        Some(domain) => format!(".{domain}"),
        None if entry == "*" => "*,0.0.0.0/0,::/0".to_owned(),
        None => entry.trim_start_matches('[').trim_end_matches(']').to_owned(),
    };
    entries.map(plain).chain([NEVER.to_owned()]).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Proxies {
        Proxies::read(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn variables_are_read_as_others_read_them() {
        let proxies = read(&[
            ("https_proxy", "http://u:p@proxy.example:3128"),
            ("ALL_PROXY", "other.example:8080"),
            ("no_proxy", "*.lan, 10.0.0.0/8,"),
        ]);
        assert_eq!(proxies.https.as_ref().unwrap().host_str(), Some("proxy.example"));
        assert_eq!(proxies.http.as_ref().unwrap().as_str(), "http://other.example:8080/");
        assert_eq!(proxies.no, format!(".lan,10.0.0.0/8,{NEVER}"));
        assert_eq!(proxies.hosts(), ["other.example", "proxy.example"]);
        assert_eq!(proxies.list().unwrap().len(), 2);
        let exceptions = |no: &str| read(&[("NO_PROXY", no)]).no;
        assert_eq!(exceptions("a.lan b.lan,[fd00::1]"), format!("a.lan,b.lan,fd00::1,{NEVER}"));
        assert_eq!(exceptions("*"), format!("*,0.0.0.0/0,::/0,{NEVER}"));
        let upper = read(&[("HTTP_PROXY", "http://a"), ("http_proxy", "http://b")]);
        assert_eq!(upper.http.unwrap().host_str(), Some("a"));
    }

    #[test]
    fn what_cannot_be_used_is_left_out() {
        for bad in ["socks5://h:1", "http://", "", " "] {
            assert!(read(&[("HTTPS_PROXY", bad)]).list().unwrap().is_empty(), "{bad}");
        }
        let cgi = read(&[("HTTP_PROXY", "http://evil"), ("REQUEST_METHOD", "GET")]);
        assert!(cgi.list().unwrap().is_empty());
    }
}
