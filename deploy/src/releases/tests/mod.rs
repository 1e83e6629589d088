//! Releases that were exported: verified whole, and refused with the first link that is broken.

pub(crate) mod made;
mod verified;
mod written;

use super::{ReleaseName, ReleaseNameError};

#[test]
fn a_name_is_a_repository_with_a_version() {
    let name: ReleaseName = "team/app:1.4.2".parse().unwrap();
    assert_eq!((name.repository.as_str(), name.version.as_str()), ("team/app", "1.4.2"));
    assert_eq!(name.to_string(), "team/app:1.4.2");
    assert!(matches!("team/app".parse::<ReleaseName>(), Err(ReleaseNameError::NoVersion(_))));
    for wrong in ["Team/app:1", "app:", ":1", "app:a/b", "app:1:2", ""] {
        assert!(wrong.parse::<ReleaseName>().is_err(), "{wrong}");
    }
}
