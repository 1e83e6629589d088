//! Where a Redis server listens.

use std::fmt;

/// The port of `redis://host`.
const DEFAULT_PORT: u16 = 6379;

/// Host name or IP address, without brackets, and TCP port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Address {
    /// `host`, `host:port`, `[v6]` or `[v6]:port`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None => match text.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') => (host, Some(port)),
                Some(_) => return None,
                None => (text, None),
            },
        };
        let port = port.map_or(Ok(DEFAULT_PORT), str::parse).ok()?;
        (!host.is_empty()).then(|| Self { host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_as_they_are_read() {
        for (text, shown) in [
            ("host", "host:6379"),
            ("host:1", "host:1"),
            ("[::1]", "[::1]:6379"),
            ("[::1]:7000", "[::1]:7000"),
        ] {
            assert_eq!(Address::parse(text).map(|it| it.to_string()).as_deref(), Some(shown));
        }
        for wrong in ["", ":1", "::1", "[::1", "[::1]7", "host:port", "host:99999", "[]:1"] {
            assert_eq!(Address::parse(wrong), None, "{wrong}");
        }
    }
}
