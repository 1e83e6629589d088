//! What is asked for without a proxy, as `NO_PROXY` lists it.

use std::net::IpAddr;

use hyper_util::client::proxy::matcher::Matcher;
use url::Url;

/// Names of this machine: a proxy elsewhere would take them for its own.
const NEVER: &str = "localhost,127.0.0.0/8,::1";
/// The matcher tells by whether it leads to some proxy.
const SOME: &str = "http://proxy.invalid";

#[derive(Debug)]
pub(super) struct Direct {
    /// Of hosts with all their ports.
    hosts: Matcher,
    ports: Vec<OnPort>,
}

/// One port of a host and of what is below it.
#[derive(Debug)]
struct OnPort {
    host: String,
    port: u16,
}

impl Direct {
    /// `list`: entries between commas or spaces.
    pub fn read(list: &str) -> Self {
        let (mut hosts, mut ports) = (Vec::new(), Vec::new());
        let entries = list.split(|it: char| it == ',' || it.is_whitespace());
        for entry in entries.filter(|entry| !entry.is_empty()) {
            match on_port(entry) {
                Some(entry) => ports.push(entry),
                None => hosts.push(on_all_ports(entry)),
            }
        }
        hosts.push(NEVER.to_owned());
        Self { hosts: Matcher::builder().all(SOME).no(hosts.join(",")).build(), ports }
    }

    pub fn covers(&self, url: &Url) -> bool {
        let of_all_ports = match url.as_str().parse::<hyper::Uri>() {
            Ok(uri) => self.hosts.intercept(&uri).is_none(),
            Err(_) => false,
        };
        of_all_ports || self.ports.iter().any(|it| it.covers(url))
    }
}

/// As the matcher reads them: `.example` for `*.example`, IPv6 without brackets, and for all hosts all addresses as
/// well, since `*` is for names alone there.
fn on_all_ports(entry: &str) -> String {
    match entry.strip_prefix("*.") {
        Some(domain) => format!(".{domain}"),
        None if entry == "*" => "*,0.0.0.0/0,::/0".to_owned(),
        None => entry.trim_start_matches('[').trim_end_matches(']').to_owned(),
    }
}

/// `HOST:PORT`, which Go and Python take as well; IPv6 in brackets.
fn on_port(entry: &str) -> Option<OnPort> {
    let (host, port) = entry.rsplit_once(':')?;
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host = address.or_else(|| (!host.contains(':')).then_some(host))?;
    let host = host.trim_start_matches('*').trim_start_matches('.').to_ascii_lowercase();
    let port = port.parse().ok()?;
    (!host.is_empty()).then_some(OnPort { host, port })
}

impl OnPort {
    fn covers(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_host = match (host.parse::<IpAddr>(), self.host.parse::<IpAddr>()) {
            (Ok(address), Ok(listed)) => address == listed,
            (Err(_), Err(_)) => {
                let before = host.strip_suffix(self.host.as_str());
                before.is_some_and(|it| it.is_empty() || it.ends_with('.'))
            }
            _ => false,
        };
        is_host && url.port_or_known_default() == Some(self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(list: &str, covered: &[&str], others: &[&str]) {
        let direct = Direct::read(list);
        for (urls, expected) in [(covered, true), (others, false)] {
            for url in urls {
                let covers = direct.covers(&Url::parse(url).unwrap());
                assert_eq!(covers, expected, "{list:?}: {url}");
            }
        }
    }

    #[test]
    fn hosts_are_listed_as_others_list_them() {
        check(
            "*.lan, 10.0.0.0/8,",
            &["http://a.lan/", "https://b.a.lan/", "http://10.1.2.3:80/"],
            &["http://a.example/", "http://11.0.0.1/"],
        );
        check(
            "a.lan b.lan,[fd00::1]",
            &["http://a.lan/", "http://x.a.lan:1/", "https://b.lan/", "http://[fd00::1]:1/"],
            &["http://c.lan/", "http://xa.lan/", "http://[fd00::2]/"],
        );
        check("*", &["http://a.example/", "http://8.8.8.8/", "http://[2001:db8::1]/"], &[]);
        check(
            "",
            &["http://localhost/", "http://127.1.2.3/", "http://[::1]:8980/"],
            &["http://a.example/", "https://8.8.8.8/"],
        );
    }

    #[test]
    fn an_entry_with_a_port_is_about_that_one_alone() {
        check(
            "a.lan:8080,.B.lan:443 *.c.lan:80,10.0.0.1:90,[fd00::1]:81",
            &[
                "http://a.lan:8080/",
                "http://x.a.lan:8080/",
                "https://b.lan/",
                "https://x.b.lan/",
                "http://x.c.lan/",
                "http://10.0.0.1:90/",
                "http://[fd00::1]:81/",
            ],
            &[
                "http://a.lan/",
                "http://a.lan:8081/",
                "http://xa.lan:8080/",
                "http://b.lan/",
                "https://x.c.lan/",
                "http://10.0.0.1/",
                "http://10.0.0.2:90/",
                "http://[fd00::1]/",
            ],
        );
        check("fd00::1,a.lan:x,:80", &["http://[fd00::1]:1/"], &["http://a.lan/", "http://b.lan/"]);
    }
}
