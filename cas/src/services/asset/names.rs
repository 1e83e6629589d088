//! The names of an asset: kind, instance, URIs and qualifiers, and the keys of records that follow from them.

use kiln_protos::asset::Qualifier;
use tonic::Status;

use super::qualifiers::{HTTP_HEADER, HTTP_HEADER_URL};
use super::stored::AssetKind;
use crate::digest::DigestFunction;

/// What the keys of assets begin with.
pub const ASSETS: &str = "asset/";
/// Most URIs, and most qualifiers, in one request.
const MAX_URIS: usize = 64;
/// URIs and qualifiers of one request.
pub const MAX_NAMES: usize = 2 * MAX_URIS;
/// Longest URI in bytes.
const MAX_URI: usize = 8192;

pub struct Names<'a> {
    pub kind: AssetKind,
    pub instance: &'a str,
    pub uris: &'a [String],
    /// Sorted.
    pub qualifiers: Vec<&'a Qualifier>,
    pub function: DigestFunction,
}

impl<'a> Names<'a> {
    pub fn new(
        kind: AssetKind,
        instance: &'a str,
        uris: &'a [String],
        qualifiers: &'a [Qualifier],
        function: DigestFunction,
    ) -> Result<Self, Status> {
        if uris.is_empty() || uris.len() > MAX_URIS {
            let count = uris.len();
            return Err(Status::invalid_argument(format!(
                "uris: {count} given, between 1 and {MAX_URIS} are possible"
            )));
        }
        if let Some(i) = uris.iter().position(|uri| uri.is_empty() || uri.len() > MAX_URI) {
            return Err(Status::invalid_argument(format!(
                "uris[{i}]: it has to have 1 to {MAX_URI} bytes"
            )));
        }
        let mut qualifiers: Vec<&Qualifier> = qualifiers.iter().collect();
        qualifiers.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = qualifiers.windows(2).find(|pair| pair[0].name == pair[1].name) {
            let name = &pair[0].name;
            return Err(Status::invalid_argument(format!("qualifiers: {name:?} occurs twice")));
        }
        if qualifiers.len() > MAX_URIS {
            return Err(Status::invalid_argument(format!("qualifiers: more than {MAX_URIS}")));
        }
        Ok(Self { kind, instance, uris, qualifiers, function })
    }

    /// The key of the record of `uris[index]`: of the URI and the qualifiers that concern it.
    pub fn key(&self, index: usize) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut part = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        part(self.instance);
        part(&self.uris[index]);
        for (name, value) in self.qualifiers_of(index) {
            part(&name);
            part(value);
        }
        format!("{ASSETS}{}/{}/{}", self.kind.name(), self.function, hasher.finalize().to_hex())
    }

    /// A header for one URI counts for that one only, like a header for all of them.
    fn qualifiers_of(&self, index: usize) -> Vec<(String, &'a str)> {
        let for_one = format!("{HTTP_HEADER_URL}{index}:");
        let concerns = |Qualifier { name, value }: &'a Qualifier| {
            if let Some(header) = name.strip_prefix(&for_one) {
                return Some((format!("{HTTP_HEADER}{header}"), value.as_str()));
            }
            (!name.starts_with(HTTP_HEADER_URL)).then(|| (name.clone(), value.as_str()))
        };
        let mut found: Vec<_> =
            self.qualifiers.iter().filter_map(|qualifier| concerns(qualifier)).collect();
        found.sort();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_for_one_uri_is_no_part_of_the_others_names() {
        let uris = ["http://a/".to_owned(), "http://b/".to_owned()];
        let key = |uris: &[String], qualifiers: &[(&str, &str)], index: usize| {
            let qualifiers: Vec<Qualifier> = qualifiers
                .iter()
                .map(|(name, value)| Qualifier { name: (*name).into(), value: (*value).into() })
                .collect();
            let names = Names::new(AssetKind::Blob, "", uris, &qualifiers, DigestFunction::Sha256);
            names.unwrap().key(index)
        };
        let for_first = [("http_header_url:0:a", "x")];
        assert_eq!(key(&uris, &for_first, 1), key(&uris, &[], 1));
        assert_ne!(key(&uris, &for_first, 0), key(&uris, &[], 0));
        assert_eq!(key(&uris, &for_first, 0), key(&uris[..1], &[("http_header:a", "x")], 0));
        assert_ne!(key(&uris, &[], 0), key(&uris, &[], 1));
    }
}
