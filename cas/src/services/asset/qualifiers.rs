//! What the qualifiers ask of a download.

use kiln_net::http::header::HeaderMap;
use kiln_protos::asset::Qualifier;
use tonic::Status;

use super::headers::CallerHeaders;
use super::sri::Integrity;
use crate::services::bad_request::{MAX_VIOLATIONS, Violation, bad_request};

/// A header for all URIs, and for one of them, whose number follows.
pub const HTTP_HEADER: &str = "http_header:";
pub const HTTP_HEADER_URL: &str = "http_header_url:";
const CHECKSUM: &str = "checksum.sri";
/// Does not change how an asset is downloaded; it is only part of the asset's name.
const CANONICAL_ID: &str = "bazel.canonical_id";

pub struct Wanted {
    pub integrity: Option<Integrity>,
    pub headers: HeaderMap,
}

impl Wanted {
    /// `index`: of the URI. Errors: qualifiers that a download cannot honour.
    pub fn new(
        index: usize,
        qualifiers: &[&Qualifier],
        allowed: &CallerHeaders,
    ) -> Result<Self, Status> {
        let mut wanted = Self { integrity: None, headers: HeaderMap::new() };
        let mut wrong = Vec::new();
        let for_one = format!("{HTTP_HEADER_URL}{index}:");
        for Qualifier { name, value } in qualifiers {
            let header = name.strip_prefix(HTTP_HEADER).or_else(|| name.strip_prefix(&for_one));
            let result = match (name.as_str(), header) {
                (_, Some(header)) => wanted.add_header(allowed, header, value),
                (CHECKSUM, _) => Integrity::parse(value).map(|it| wanted.integrity = Some(it)),
                (CANONICAL_ID, _) => Ok(()),
                (name, _) if name.starts_with(HTTP_HEADER_URL) => Ok(()),
                _ => {
                    wrong
                        .push(Violation::new("qualifiers.name", format!("{name:?} not supported")));
                    continue;
                }
            };
            if let Err(problem) = result {
                wrong.push(Violation::new("qualifiers.value", format!("{name}: {problem}")));
            }
        }
        if wrong.is_empty() { Ok(wanted) } else { Err(refusal(wrong)) }
    }

    fn add_header(
        &mut self,
        allowed: &CallerHeaders,
        name: &str,
        value: &str,
    ) -> Result<(), String> {
        let (name, value) = allowed.header(name, value)?;
        self.headers.append(name, value);
        Ok(())
    }
}

fn refusal(wrong: Vec<Violation>) -> Status {
    let first = wrong.iter().take(MAX_VIOLATIONS);
    let said: Vec<_> = first.map(|violation| violation.description.as_str()).collect();
    let message = format!(
        "qualifiers: {}; downloads take checksum.sri, http_header:NAME, http_header_url:INDEX:NAME \
         and bazel.canonical_id",
        said.join("; ")
    );
    bad_request(message, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let qualifier =
            |name: &str, value: &str| Qualifier { name: name.into(), value: value.into() };
        let (sri, unknown) = (qualifier("checksum.sri", "md5-x"), qualifier("vcs.branch", "main"));
        let (host, other) =
            (qualifier("http_header:host", "x"), qualifier("http_header_url:1:cookie", "b"));
        let of = |index, qualifiers: &[&Qualifier]| {
            Wanted::new(index, qualifiers, &CallerHeaders::default())
        };
        let status = of(0, &[&sri, &unknown, &host, &other]).err().unwrap();
        for part in ["checksum.sri", "\"vcs.branch\" not supported", "http_header:host"] {
            assert!(status.message().contains(part), "{status}");
        }
        assert!(!status.details().is_empty());
        let long: Vec<_> =
            (0..60).map(|n| qualifier(&format!("{n}{}", "é".repeat(900)), "v")).collect();
        let status = of(0, &long.iter().collect::<Vec<_>>()).err().unwrap();
        assert!(status.message().contains("downloads take") && status.message().len() < 2_000);
        // In base64, as it is sent, it is a third longer.
        assert!((1..4_000).contains(&status.details().len()), "{}", status.details().len());
        let wanted = of(1, &[&other]).unwrap();
        assert_eq!(wanted.headers.get("cookie").unwrap(), "b");
        assert!(of(0, &[&other]).unwrap().headers.is_empty());
    }
}
