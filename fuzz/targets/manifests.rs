//! What is pushed to a registry: names, manifests and layers. They are read within their limits or refused; no
//! name that is taken leads anywhere, and no layer that is taken leads out.
#![no_main]

use kiln_deploy::oci::{
    ContentDigest, Document, INDEX_TYPE, LayerLimits, MANIFEST_TYPE, Reference, Repository, Tag, check_layer,
};
use libfuzzer_sys::fuzz_target;

fn names(text: &str) {
    if let Ok(name) = text.parse::<Repository>() {
        assert!(!name.as_str().contains("..") && !name.as_str().starts_with('/'));
        assert!(name.as_str().split('/').all(|part| !part.is_empty()));
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert!(!tag.as_str().contains(['/', ':']) && tag.as_str() != "..");
    }
    if let Ok(digest) = text.parse::<ContentDigest>() {
        assert_eq!(digest.to_string(), text);
        assert!(digest.fallback_tag().parse::<Tag>().is_ok());
    }
    let _ = text.parse::<Reference>();
}

// The first byte says what the rest is.
fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    match kind % 3 {
        0 => names(std::str::from_utf8(rest).unwrap_or_default()),
        1 => {
            let manifest = Document::read(MANIFEST_TYPE, rest);
            let index = Document::read(INDEX_TYPE, rest);
            assert!(manifest.is_err() || index.is_err(), "it is one of them");
            for document in [manifest, index].into_iter().flatten() {
                assert!(document.names().count() < rest.len());
            }
        }
        _ => {
            let limits = LayerLimits { entries: 100, bytes: 1 << 20 };
            if let Ok(entries) = check_layer(rest, limits) {
                assert!(entries <= limits.entries);
            }
        }
    }
});
