//! Which URIs may be downloaded.

/// URIs that begin with one of some prefixes.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    prefixes: Vec<String>,
}

impl Allowed {
    pub fn new(prefixes: Vec<String>) -> Self {
        Self { prefixes: prefixes.into_iter().filter(|prefix| !prefix.is_empty()).collect() }
    }

    /// Nothing may be downloaded.
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// A prefix ends where a part of the URI ends: `https://host` allows neither
    /// `https://host.other` nor `https://host@other`.
    pub fn allows(&self, uri: &str) -> bool {
        if leaves_its_directory(uri) {
            return false;
        }
        self.prefixes.iter().any(|prefix| {
            uri.strip_prefix(prefix.as_str()).is_some_and(|rest| {
                prefix.ends_with('/') || rest.is_empty() || rest.starts_with(['/', '?'])
            })
        })
    }
}

/// A server may resolve `..`, also when it is escaped.
fn leaves_its_directory(uri: &str) -> bool {
    let path = uri.split(['?', '#']).next().unwrap_or(uri).to_ascii_lowercase();
    path.replace("%2e", ".").replace("%2f", "/").split(['/', '\\']).any(|part| part == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_at_parts() {
        let allowed = Allowed::new(vec!["https://good.example".into(), "http://a.b/c/".into()]);
        for uri in ["https://good.example", "https://good.example/x", "http://a.b/c/d?e"] {
            assert!(allowed.allows(uri), "{uri}");
        }
        for uri in [
            "https://good.example.evil/x",
            "https://good.example@evil/x",
            "https://good.example:81/x",
            "http://good.example/x",
            "http://a.b/c/../d",
            "http://a.b/c/%2E%2e/d",
            "http://a.b/c/..%2Fd",
            "http://a.b/d",
        ] {
            assert!(!allowed.allows(uri), "{uri}");
        }
        assert!(!Allowed::new(vec![String::new()]).allows("http://any"), "empty allows nothing");
    }
}
