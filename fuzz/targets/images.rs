//! Names of container images, and the manifests and configurations that registries send.
#![no_main]

use std::path::Component;

use kiln_executor::images::{AllowList, ImageReference, ImageSource, manifest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(manifest::Document::Index(choices)) = manifest::read(data) {
        let _ = manifest::choose(&choices);
    }
    if let Ok(environment) = manifest::environment(data) {
        assert!(environment.iter().all(|(name, _)| !name.is_empty() && !name.contains(['=', '\0'])));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = AllowList::new(&[text.to_owned()]);
    let Ok(reference) = text.parse::<ImageReference>() else { return };
    assert_eq!(reference.to_string().parse(), Ok(reference.clone()));
    assert_eq!(reference.digest.len(), 64);
    match &reference.source {
        ImageSource::Layout(path) => {
            assert!(path.is_absolute());
            assert!(path.components().skip(1).all(|part| matches!(part, Component::Normal(_))));
        }
        ImageSource::Registry { host, repository } => {
            assert!(!host.contains(['/', '@', '?', '#']), "{host}");
            let clean = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
            assert!(repository.bytes().all(clean) && !repository.contains(".."), "{repository}");
        }
    }
});
