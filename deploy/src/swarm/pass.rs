//! How agents know each other: the server signs that whoever shows a certificate of this fingerprint is an agent of the
//! service and may have this list of pieces. Its keys change every few minutes, so that a pass ends without anybody's clock.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::encoding::{from_hex, hex, is_hex};
use crate::oci::ContentDigest;
use crate::rollouts::machine::Millis;
use crate::rollouts::parts::Place;

/// A key signs for so long; passes by the one before it still count.
pub const KEY_LIFE: Millis = 600_000;
/// A new key signs nothing for so long: until all who verify have heard of it.
pub const SPREAD: Millis = 90_000;
/// How far the clocks of servers may be apart: a key that is so much younger than now was made by another one.
const APART: Millis = 60_000;
/// Bytes of the secret of a key.
pub const SEED: usize = 32;
/// Keys that count at once.
pub const MAX_KEYS: usize = 2;

/// Whom a pass is for, and what it opens.
#[derive(Debug, Clone, Copy)]
pub struct Bearer<'a> {
    pub place: &'a Place,
    pub list: &'a ContentDigest,
    /// The fingerprint of the bearer's certificate, in hexadecimal digits.
    pub fingerprint: &'a str,
}

impl Bearer<'_> {
    fn message(&self) -> Vec<u8> {
        let Place { service, environment } = self.place;
        format!("kiln pass 1\n{service}\n{environment}\n{}\n{}\n", self.list, self.fingerprint)
            .into_bytes()
    }
}

/// Whether this is SHA-256 in hexadecimal digits.
pub fn is_fingerprint(text: &str) -> bool {
    is_hex(text, 64)
}

/// The secrets of a server's keys, the newest first, as they are kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PassKeys {
    seeds: Vec<String>,
    /// Since when the first key is there.
    since: Millis,
}

impl PassKeys {
    /// Whether the keys still sign: the first one has not signed for long, and no clock went back.
    pub fn are_good(&self, now: Millis) -> bool {
        now.saturating_add(APART) >= self.since && now < self.since.saturating_add(KEY_LIFE)
    }

    /// The keys that follow: with a new one where the first has signed for long, or the clock went back. `None`: none is needed.
    pub fn renewed(before: Option<&Self>, seed: [u8; SEED], now: Millis) -> Option<Self> {
        if before.is_some_and(|it| it.are_good(now)) {
            return None;
        }
        let older = before.into_iter().flat_map(|it| it.seeds.iter().cloned());
        let seeds = std::iter::once(hex(&seed)).chain(older).take(MAX_KEYS).collect();
        Some(Self { seeds, since: now })
    }

    fn pairs(&self) -> impl Iterator<Item = Ed25519KeyPair> + '_ {
        let seeds = self.seeds.iter().filter_map(|it| from_hex(it));
        seeds.filter_map(|it| Ed25519KeyPair::from_seed_unchecked(&it).ok())
    }

    /// `None`: what is kept is no key.
    pub fn sign(&self, bearer: &Bearer<'_>, now: Millis) -> Option<String> {
        let is_new = now < self.since.saturating_add(SPREAD);
        let before = self.pairs().nth(1).filter(|_| is_new);
        let pair = before.or_else(|| self.pairs().next())?;
        Some(hex(pair.sign(&bearer.message()).as_ref()))
    }

    /// The public keys by which passes are verified, in hexadecimal digits.
    pub fn public(&self) -> Vec<String> {
        self.pairs().map(|it| hex(it.public_key().as_ref())).collect()
    }
}

/// Whether one of these public keys has signed this pass.
pub fn is_valid(pass: &str, bearer: &Bearer<'_>, keys: &[String]) -> bool {
    let Some(signature) = from_hex(pass).filter(|_| pass.len() == 128) else { return false };
    let message = bearer.message();
    keys.iter()
        .take(MAX_KEYS)
        .filter_map(|it| from_hex(it))
        .any(|key| UnparsedPublicKey::new(&ED25519, key).verify(&message, &signature).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_opens_one_list_of_one_service_to_one_certificate_while_its_key_counts() {
        let keys = PassKeys::renewed(None, [1; SEED], 5).unwrap();
        let place = Place { service: "api".to_owned(), environment: "prod".to_owned() };
        let list = ContentDigest::of(b"list");
        let fingerprint = "ab".repeat(32);
        let bearer = Bearer { place: &place, list: &list, fingerprint: &fingerprint };
        let pass = keys.sign(&bearer, 5).unwrap();
        assert!(is_valid(&pass, &bearer, &keys.public()));
        let other = Place { service: "api\nprod".to_owned(), ..place.clone() };
        let another = ContentDigest::of(b"another");
        let stranger = "cd".repeat(32);
        for wrong in [
            Bearer { place: &other, ..bearer },
            Bearer { list: &another, ..bearer },
            Bearer { fingerprint: &stranger, ..bearer },
        ] {
            assert!(!is_valid(&pass, &wrong, &keys.public()), "{wrong:?}");
        }
        for wrong in ["", "zz", &pass[2..], &"00".repeat(64)] {
            assert!(!is_valid(wrong, &bearer, &keys.public()), "{wrong}");
        }
        assert!(!is_valid(&pass, &bearer, &[]));

        assert!(PassKeys::renewed(Some(&keys), [2; SEED], 5 + KEY_LIFE - 1).is_none());
        let second = PassKeys::renewed(Some(&keys), [2; SEED], 5 + KEY_LIFE).unwrap();
        assert!(is_valid(&pass, &bearer, &second.public()), "the one before still counts");
        let third = PassKeys::renewed(Some(&second), [3; SEED], 5 + 2 * KEY_LIFE).unwrap();
        assert!(!is_valid(&pass, &bearer, &third.public()) && third.public().len() == MAX_KEYS);
    }

    #[test]
    fn a_new_key_signs_when_all_have_heard_of_it_and_clocks_that_differ_a_little_make_none() {
        let place = Place { service: "api".to_owned(), environment: "prod".to_owned() };
        let (list, fingerprint) = (ContentDigest::of(b"list"), "ab".repeat(32));
        let bearer = Bearer { place: &place, list: &list, fingerprint: &fingerprint };
        let first = PassKeys::renewed(None, [1; SEED], 0).unwrap();
        let second = PassKeys::renewed(Some(&first), [2; SEED], KEY_LIFE).unwrap();
        let early = second.sign(&bearer, KEY_LIFE + SPREAD - 1).unwrap();
        assert!(is_valid(&early, &bearer, &first.public()), "who knows the first key alone");
        let late = second.sign(&bearer, KEY_LIFE + SPREAD).unwrap();
        assert!(!is_valid(&late, &bearer, &first.public()));
        assert!(is_valid(&late, &bearer, &second.public()));

        let behind = |by: Millis| PassKeys::renewed(Some(&second), [3; SEED], KEY_LIFE - by);
        assert!(behind(1).is_none() && behind(APART).is_none(), "another server's clock");
        assert!(behind(APART + 1).is_some(), "a clock that went back");
    }
}
