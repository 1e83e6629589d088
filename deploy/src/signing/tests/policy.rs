//! Keys in time: validity, rotation, revocation.

use super::super::{Evidence, KeyRefused, KeyRing, KeyRingError, Scheme, TrustedKey};
use super::key;
use crate::timestamp::Timestamp;

const NOW_SECONDS: i64 = 2_000_000_000;

fn now() -> Timestamp {
    at(NOW_SECONDS)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix(seconds)
}

fn trusted(from: Option<i64>, until: Option<i64>, revoked: Option<i64>) -> TrustedKey {
    let (_, ring) = key(Scheme::Ed25519);
    TrustedKey {
        not_before: from.map(at),
        not_after: until.map(at),
        revoked_from: revoked.map(at),
        ..ring.keys()[0].clone()
    }
}

#[test]
fn a_key_signs_from_its_first_moment_until_its_last() {
    let key = trusted(Some(100), Some(200), None);
    let accepts = |signed| key.accepts(Evidence::Claimed(at(signed)), now());
    assert!(matches!(accepts(99), Err(KeyRefused::TooEarly { .. })));
    assert_eq!(accepts(100), Ok(()));
    assert_eq!(accepts(199), Ok(()));
    assert!(matches!(accepts(200), Err(KeyRefused::TooLate { .. })));
    assert!(matches!(key.accepts(Evidence::None, now()), Err(KeyRefused::NoTime { .. })));
}

#[test]
fn what_is_to_be_signed_in_the_future_was_not_signed() {
    let key = trusted(None, None, None);
    assert_eq!(key.accepts(Evidence::Claimed(now().plus(300)), now()), Ok(()));
    let future = key.accepts(Evidence::Claimed(now().plus(301)), now());
    assert!(matches!(future, Err(KeyRefused::Future { .. })));
    assert_eq!(key.accepts(Evidence::None, now()), Ok(()));
}

#[test]
fn a_revoked_key_counts_for_what_others_recorded_before() {
    let key = trusted(None, None, Some(1000));
    assert_eq!(key.accepts(Evidence::Recorded(at(999)), now()), Ok(()));
    assert!(matches!(
        key.accepts(Evidence::Recorded(at(1000)), now()),
        Err(KeyRefused::Revoked { .. })
    ));
    // A thief writes an earlier time into what he signs.
    for evidence in [Evidence::Claimed(at(999)), Evidence::None] {
        assert!(matches!(
            key.accepts(evidence, now()),
            Err(KeyRefused::RevokedWithoutRecord { .. })
        ));
    }
}

#[test]
fn a_record_does_not_make_up_for_validity() {
    let key = trusted(Some(100), None, Some(1000));
    let early = key.accepts(Evidence::Recorded(at(50)), now());
    assert!(matches!(early, Err(KeyRefused::TooEarly { .. })));
}

#[test]
fn two_keys_overlap_while_one_follows_the_other() {
    let (old, new) = (trusted(None, Some(200), None), trusted(Some(100), None, None));
    for (signed, by_old, by_new) in [(50, true, false), (150, true, true), (250, false, true)] {
        let evidence = Evidence::Claimed(at(signed));
        assert_eq!(old.accepts(evidence, now()).is_ok(), by_old);
        assert_eq!(new.accepts(evidence, now()).is_ok(), by_new);
    }
}

fn policy(entries: &[(&str, &TrustedKey, &str)]) -> String {
    let entries: Vec<_> = entries
        .iter()
        .map(|(name, key, more)| {
            let pem = serde_json::to_string(&key.key.to_pem().unwrap()).unwrap();
            format!(r#"{{"name":"{name}","publicKey":{pem}{more}}}"#)
        })
        .collect();
    format!(r#"{{"keys":[{}]}}"#, entries.join(","))
}

#[test]
fn a_policy_is_read_from_a_key_or_from_json() {
    let one = trusted(None, None, None);
    let ring = KeyRing::read("release.pub", &one.key.to_pem().unwrap()).unwrap();
    assert_eq!(ring.keys()[0].name, "release.pub");
    let times = r#","notBefore":"2026-01-01T00:00:00Z","revokedFrom":"2026-06-01T00:00:00Z""#;
    let ring = KeyRing::read("", &policy(&[("a", &one, times)])).unwrap();
    assert_eq!(ring.keys()[0].not_before, Some(at(1_767_225_600)));
    assert!(ring.keys()[0].revoked_from.is_some());
}

#[test]
fn a_policy_that_could_be_read_in_two_ways_is_refused() {
    let (one, two) = (trusted(None, None, None), trusted(None, None, None));
    let read = |entries: &[(&str, &TrustedKey, &str)]| KeyRing::read("", &policy(entries));
    assert!(read(&[("a", &one, ""), ("b", &two, "")]).is_ok());
    assert!(matches!(read(&[("a", &one, ""), ("a", &two, "")]), Err(KeyRingError::Twice(_))));
    assert!(matches!(read(&[("a", &one, ""), ("b", &one, "")]), Err(KeyRingError::Same(..))));
    assert!(matches!(read(&[]), Err(KeyRingError::Count(0))));
    assert!(matches!(read(&[("a", &one, r#","expires":"never""#)]), Err(KeyRingError::Json(_))));
    let empty = r#","notBefore":"2026-01-01T00:00:00Z","notAfter":"2026-01-01T00:00:00Z""#;
    assert!(matches!(read(&[("a", &one, empty)]), Err(KeyRingError::Empty(_))));
}
