//! Keeps the web pages of others out.
//!
//! A browser sends what any page tells it to, also to addresses that only its own machine reaches,
//! and adds the passwords that it remembers. So what comes from a browser is taken only where one of
//! Kiln's own pages, or a link to one, can have sent it; and names that are not this server's are
//! not answered, since the owner of a name can point it to any address (DNS rebinding).
//! docs/threat-model.md tells which attacks end where.

use http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use kiln_scheduler::BaseUrl;

use super::unknown::is_grpc;
use crate::auth::failures::Reason;
use crate::auth::permissions::{Door, Permission, of_http};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
/// Suffixes of names that nobody can have from a public registry.
const PRIVATE_SUFFIXES: [&str; 4] = [".localhost", ".local", ".internal", ".home.arpa"];

/// The names by which a server may be addressed.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// The base URL that links begin with where no caller's name for the server counts.
    url: String,
    /// `HOST` or `HOST:PORT` of the base URL.
    base: Option<String>,
    /// Names of the server, in lower case and without ports.
    names: Vec<String>,
    any: bool,
    /// Whether the server speaks TLS: a browser has then checked the name by the certificate.
    tls: bool,
    /// Links for a caller begin with what it calls the server; else all with the base URL.
    follows_callers: bool,
}

/// The longest name there is, and a port (RFC 1035).
const MAX_AUTHORITY: usize = 253 + 6;

/// Why a request is not taken, for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    #[error(
        "this is a gRPC method: it takes POST with content-type application/grpc, from clients such \
         as Bazel"
    )]
    NotGrpc,
    #[error(
        "the request comes from a web page ({0}) that is not this server's: other sites' pages may \
         link to Kiln's, and do nothing else"
    )]
    OtherSite(String),
    #[error("browsers may read pages here; they may not write, nor call gRPC methods")]
    Browser,
    #[error(
        "this server is not called {0:?}; where that name is right, set server.base_url or \
         server.hosts to it"
    )]
    Name(String),
}

impl Stranger {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotGrpc => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::OtherSite(_) | Self::Browser => StatusCode::FORBIDDEN,
            Self::Name(_) => StatusCode::MISDIRECTED_REQUEST,
        }
    }

    /// The reason that counts as a failed authentication; `None`: the request is a client's mistake
    /// rather than an attack.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::NotGrpc => None,
            Self::OtherSite(_) | Self::Browser => Some(Reason::OtherSite),
            Self::Name(_) => Some(Reason::OtherName),
        }
    }
}

impl Site {
    /// `names`: what the server is called besides its addresses, `*` for anything. `tls`: whether
    /// it speaks TLS itself.
    pub fn new(base_url: &str, names: impl IntoIterator<Item = String>, tls: bool) -> Self {
        let base = base_url.parse::<Uri>().ok();
        let base = base.and_then(|url| url.authority().map(|it| it.as_str().to_ascii_lowercase()));
        let mut all: Vec<_> = names.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        all.extend(base.as_deref().map(|base| without_port(base).to_owned()));
        let any = all.iter().any(|name| name == "*");
        let url = base_url.to_owned();
        Self { url, base, names: all, any, tls, follows_callers: false }
    }

    /// For a server that does not know what it is called: its callers do.
    #[must_use]
    pub fn following_callers(mut self, follows: bool) -> Self {
        self.follows_callers = follows;
        self
    }

    /// How the sender of a request reaches the server, where links for it depend on that. The name is one
    /// that the server answers to: links for one caller may be shown to another.
    pub fn called<B>(&self, request: &Request<B>) -> Option<BaseUrl> {
        let authority = authority(request).filter(|_| self.follows_callers)?;
        let is_plain =
            (1..=MAX_AUTHORITY).contains(&authority.len()) && !authority.contains(['@', '?', '/']);
        let known = self.any || self.tls || self.is_own(without_port(authority));
        let scheme = if self.tls { "https" } else { "http" };
        (is_plain && known).then(|| BaseUrl(format!("{scheme}://{authority}").into()))
    }

    /// The base URL of addresses of this server that only the sender of the request will use.
    pub fn realm<B>(&self, request: &Request<B>) -> String {
        self.called(request).map_or_else(|| self.url.clone(), |url| url.0.to_string())
    }

    /// Whether a request may come further, as far as its headers tell where it comes from.
    /// `is_method`: whether its path is a gRPC method's.
    pub fn check<B>(&self, request: &Request<B>, is_method: bool) -> Result<(), Stranger> {
        let headers = request.headers();
        if is_method && (!is_grpc(headers) || request.method() != Method::POST) {
            return Err(Stranger::NotGrpc);
        }
        let calls = is_method || is_grpc(headers);
        if is_browser(headers) {
            self.check_origin(request)?;
            check_metadata(request)?;
            let reads = matches!(*request.method(), Method::GET | Method::HEAD);
            return if reads && !calls { Ok(()) } else { Err(Stranger::Browser) };
        }
        // Without TLS browsers speak HTTP/1 alone, and gRPC's own clients never do. Passwords that a
        // browser remembers are no sign that its user wants a call.
        match calls && request.version() < Version::HTTP_2 && has_password(headers) {
            true => Err(Stranger::Browser),
            false => Ok(()),
        }
    }

    fn check_origin<B>(&self, request: &Request<B>) -> Result<(), Stranger> {
        for origin in request.headers().get_all(ORIGIN) {
            let text = origin.to_str().unwrap_or_default().to_ascii_lowercase();
            let place = text.split_once("://").map(|(_, place)| place);
            let own = place.is_some_and(|place| {
                Some(place) == self.base.as_deref()
                    || authority(request).is_some_and(|own| own.eq_ignore_ascii_case(place))
            });
            if !own {
                return Err(Stranger::OtherSite(String::from_utf8_lossy(origin.as_bytes()).into()));
            }
        }
        Ok(())
    }

    /// Whether the server is called as the request says. For requests that carry no credentials:
    /// who has some needs no page of others to use them.
    pub fn check_name<B>(&self, request: &Request<B>) -> Result<(), Stranger> {
        // Only a browser that resolves a name anew is a danger: it has HTTP/2 over TLS alone.
        if self.any || self.tls || request.version() >= Version::HTTP_2 {
            return Ok(());
        }
        let Some(authority) = authority(request) else { return Ok(()) };
        if self.is_own(without_port(authority)) || is_harmless(request) {
            return Ok(());
        }
        Err(Stranger::Name(authority.to_owned()))
    }

    fn is_own(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        // What has no dot is a name of this network, where no stranger gives names.
        !host.contains('.')
            || address.parse::<std::net::IpAddr>().is_ok()
            || PRIVATE_SUFFIXES.iter().any(|suffix| host.ends_with(suffix))
            || self.names.contains(&host)
    }
}

/// Refuses a request that the browser itself says (`Sec-Fetch-Site`) comes from another site,
/// unless it is a plain link.
fn check_metadata<B>(request: &Request<B>) -> Result<(), Stranger> {
    let headers = request.headers();
    let Some(site) = headers.get(SEC_FETCH_SITE) else { return Ok(()) };
    let is = |name: HeaderName, value: &str| headers.get(name).is_some_and(|it| it == value);
    let link = is(SEC_FETCH_MODE, "navigate") && is(SEC_FETCH_DEST, "document");
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if site == "same-origin" || site == "none" || (link && reads) {
        return Ok(());
    }
    let site = String::from_utf8_lossy(site.as_bytes());
    Err(Stranger::OtherSite(format!("{SEC_FETCH_SITE}: {site}")))
}

/// Whether a browser has sent the request. All that browsers send to addresses of this machine has
/// the second header; to others, what does more than read has the first.
fn is_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN) || headers.contains_key(SEC_FETCH_SITE)
}

fn has_password(headers: &HeaderMap) -> bool {
    let scheme = |value: &[u8]| value.get(..6).is_some_and(|it| it.eq_ignore_ascii_case(b"basic "));
    headers.get_all(AUTHORIZATION).iter().any(|value| scheme(value.as_bytes()))
}

/// Whether a request with any name of the server is answered: probes and scrapers use whatever name
/// they were told, and what they read tells nothing of builds.
fn is_harmless<B>(request: &Request<B>) -> bool {
    let permission = of_http(request.method(), request.uri().path());
    matches!(permission, Permission::Closable(Door::Health | Door::Metrics, _))
}

/// The authority that a request names, as `HOST` or `HOST:PORT`; `None`: the request does not say.
fn authority<B>(request: &Request<B>) -> Option<&str> {
    let of_target = request.uri().authority().map(|authority| authority.as_str());
    of_target.or_else(|| request.headers().get(HOST).map(|host| host.to_str().unwrap_or("?.?")))
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const CALL: &str = "/build.bazel.remote.execution.v2.Execution/Execute";

    /// `POST` where a content type is given, else `GET`; HTTP/1.1.
    fn request(path: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::new(());
        *request.uri_mut() = path.parse().unwrap();
        request.headers_mut().insert(HOST, HeaderValue::from_static("127.0.0.1:8980"));
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        }
        if request.headers().contains_key("content-type") {
            *request.method_mut() = Method::POST;
        }
        request
    }

    fn site() -> Site {
        Site::new("http://build.example:8980", ["Lab.Example".to_owned()], false)
    }

    #[test]
    fn methods_take_grpc_from_clients_and_nothing_from_browsers() {
        let grpc = ("content-type", "application/grpc");
        let check = |headers: &[_]| site().check(&request(CALL, headers), true);
        assert_eq!(check(&[grpc]), Ok(()));
        for kind in ["application/grpc+proto", "Application/gRPC", "APPLICATION/GRPC;x=y"] {
            assert_eq!(check(&[("content-type", kind)]), Ok(()), "{kind}");
        }
        for other in
            ["text/plain", "application/grpc-web", "application/grpcx", "multipart/form-data"]
        {
            assert_eq!(check(&[("content-type", other)]), Err(Stranger::NotGrpc), "{other}");
        }
        assert_eq!(check(&[]), Err(Stranger::NotGrpc), "GET");
        let own = ("origin", "http://127.0.0.1:8980");
        assert_eq!(check(&[grpc, own]), Err(Stranger::Browser));
        assert_eq!(check(&[grpc, ("sec-fetch-site", "same-origin")]), Err(Stranger::Browser));
        let password = ("authorization", "basic bWU6eA==");
        assert_eq!(check(&[grpc, password]), Err(Stranger::Browser));
        let mut over_h2 = request(CALL, &[grpc, password]);
        *over_h2.version_mut() = Version::HTTP_2;
        assert_eq!(site().check(&over_h2, true), Ok(()));
    }

    #[test]
    fn other_sites_may_link_to_pages_and_nothing_else() {
        let foreign = |headers: &[_]| {
            let result = site().check(&request("/builds", headers), false);
            matches!(result, Err(Stranger::OtherSite(_)))
        };
        for origin in ["http://evil.example", "null", "http://127.0.0.1:3000", "https://x", ""] {
            assert!(foreign(&[("origin", origin)]), "{origin}");
        }
        for own in ["http://127.0.0.1:8980", "https://BUILD.example:8980"] {
            assert!(!foreign(&[("origin", own)]), "{own}");
        }
        let of = |site, mode, dest| {
            foreign(&[("sec-fetch-site", site), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)])
        };
        assert!(!of("none", "navigate", "document"));
        assert!(!of("same-origin", "no-cors", "style"));
        assert!(!of("cross-site", "navigate", "document"), "a link");
        assert!(of("cross-site", "no-cors", "image"));
        assert!(of("same-site", "cors", "empty"), "another port of this machine");
        assert!(of("cross-site", "navigate", "iframe"));
    }

    #[test]
    fn browsers_write_nothing() {
        let path = format!("/cas/{}", "ab".repeat(32));
        let put = |headers: &[_]| {
            let mut request = request(&path, headers);
            *request.method_mut() = Method::PUT;
            site().check(&request, false)
        };
        assert_eq!(put(&[("authorization", "Basic bWU6eA==")]), Ok(()), "Bazel, curl");
        assert_eq!(put(&[("origin", "http://127.0.0.1:8980")]), Err(Stranger::Browser));
        assert_eq!(put(&[("sec-fetch-site", "none")]), Err(Stranger::Browser));
    }

    #[test]
    fn links_begin_with_what_a_caller_calls_the_server_if_that_is_its_name() {
        let called = |site: Site, host: &str| {
            let site = site.following_callers(true);
            site.called(&request("/", &[("host", host)])).map(|url| url.0.to_string())
        };
        for own in ["10.1.2.3:8980", "[fd00::1]:8980", "kiln:8980", "lab.example", "127.0.0.1:1"] {
            assert_eq!(called(site(), own), Some(format!("http://{own}")));
        }
        for other in ["evil.example", "evil@10.1.2.3", "10.1.2.3:8980/x", "10.1.2.3?", ""] {
            assert_eq!(called(site(), other), None, "{other}");
        }
        assert_eq!(called(site(), &format!("{}:1", "a".repeat(300))), None);
        let secure = Site::new("https://a.b", [], true);
        assert_eq!(called(secure, "build.example:1"), Some("https://build.example:1".into()));
        let by_target = Request::builder().uri("http://10.0.0.1:5/x").version(Version::HTTP_2);
        let by_target = by_target.body(()).unwrap();
        let url = site().following_callers(true).called(&by_target).unwrap();
        assert_eq!(&*url.0, "http://10.0.0.1:5");
        assert!(site().called(&by_target).is_none(), "all are told the base URL");
    }

    #[test]
    fn names_that_strangers_can_own_have_to_be_known() {
        let name = |path: &str, host: &str| site().check_name(&request(path, &[("host", host)]));
        for own in [
            "127.0.0.1",
            "10.1.2.3:8980",
            "[::1]:8980",
            "localhost:1",
            "kiln:8980",
            "a.localhost",
            "laptop.local",
            "build.example",
            "LAB.example:1",
            "build.example.:8980",
        ] {
            assert_eq!(name("/", own), Ok(()), "{own}");
        }
        for other in
            ["evil.example", "evil.example:8980", "1.2.3.4.evil.example", "x.build.example"]
        {
            assert_eq!(name("/", other), Err(Stranger::Name(other.to_owned())));
            assert_eq!(name("/readyz", other), Ok(()));
        }
        let foreign = request("/", &[("host", "evil.example")]);
        assert_eq!(Site::new("http://a.b", ["*".to_owned()], false).check_name(&foreign), Ok(()));
        assert_eq!(Site::new("https://a.b", [], true).check_name(&foreign), Ok(()));
    }
}
