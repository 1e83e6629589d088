//! Proxies as the environment names them: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in
//! capitals or not, as curl and others read them. This machine itself is never asked for through a
//! proxy.

mod direct;

use reqwest::Proxy;
use url::Url;

use self::direct::Direct;
use crate::urls::shown;

/// The proxies in use, for a client.
#[derive(Debug)]
pub(crate) struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    direct: Direct,
}

impl Proxies {
    /// `variable`: the value of an environment variable.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        // A server that ran Kiln as a CGI script would let its clients set HTTP_PROXY.
        if variable("REQUEST_METHOD").is_some() {
            return Self { http: None, https: None, direct: Direct::read("") };
        }
        let either = |name: &'static str| {
            let given = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
            let value = given(name).or_else(|| given(&name.to_ascii_lowercase()));
            value.map(|value| (name, value))
        };
        let proxy = |name| {
            let (name, value) = either(name).or_else(|| either("ALL_PROXY"))?;
            usable(name, value.trim())
        };
        let no = either("NO_PROXY").map(|(_, value)| value).unwrap_or_default();
        Self { http: proxy("HTTP_PROXY"), https: proxy("HTTPS_PROXY"), direct: Direct::read(&no) }
    }

    pub fn from_environment() -> Self {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Names of the proxies' hosts, which are resolved as well.
    pub fn hosts(&self) -> Vec<String> {
        let proxies = [&self.http, &self.https].into_iter().flatten();
        proxies.filter_map(|url| url.host_str()).map(str::to_owned).collect()
    }

    /// What a client is to ask for the proxy of each request; `None`: there are no proxies.
    pub fn chosen(self) -> Option<Proxy> {
        let any = self.http.is_some() || self.https.is_some();
        any.then(move || Proxy::custom(move |url: &Url| self.of(url).cloned()))
    }

    /// The proxy through which `url` is asked for.
    fn of(&self, url: &Url) -> Option<&Url> {
        let proxy = match url.scheme() {
            "http" => self.http.as_ref(),
            "https" => self.https.as_ref(),
            _ => None,
        };
        proxy.filter(|_| !self.direct.covers(url))
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
            ("no_proxy", "*.lan, 10.0.0.0/8,a.example:81"),
        ]);
        assert_eq!(proxies.https.as_ref().unwrap().host_str(), Some("proxy.example"));
        assert_eq!(proxies.http.as_ref().unwrap().as_str(), "http://other.example:8080/");
        assert_eq!(proxies.hosts(), ["other.example", "proxy.example"]);
        let of = |url: &str| proxies.of(&Url::parse(url).unwrap()).and_then(Url::host_str);
        assert_eq!(of("https://a.example/"), Some("proxy.example"));
        assert_eq!(of("http://a.example/"), Some("other.example"));
        for direct in
            ["https://a.lan/", "http://10.1.2.3/", "http://a.example:81/", "http://[::1]/"]
        {
            assert_eq!(of(direct), None, "{direct}");
        }
        assert!(proxies.chosen().is_some());
        let upper = read(&[("HTTP_PROXY", "http://a"), ("http_proxy", "http://b")]);
        assert_eq!(upper.http.unwrap().host_str(), Some("a"));
        let empty = [("HTTP_PROXY", ""), ("http_proxy", "http://b"), ("NO_PROXY", " ")];
        let lower = read(&[&empty[..], &[("no_proxy", "c")]].concat());
        let of = |url: &str| lower.of(&Url::parse(url).unwrap()).and_then(Url::host_str);
        assert_eq!((of("http://a/"), of("http://c/")), (Some("b"), None));
    }

    #[test]
    fn what_cannot_be_used_is_left_out() {
        for bad in ["socks5://h:1", "http://", "", " "] {
            assert!(read(&[("HTTPS_PROXY", bad)]).chosen().is_none(), "{bad}");
        }
        let cgi = read(&[("HTTP_PROXY", "http://evil"), ("REQUEST_METHOD", "GET")]);
        assert!(cgi.chosen().is_none());
    }
}
