//! Whether a delivery comes from the forge. Nothing of the body is read for that but its bytes.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use super::forge::Kind;
use super::secrets::Secret;
use crate::model::Time;

/// How far the clock of a forge that signs the time may be from this one.
const SKEW: Duration = Duration::from_secs(5 * 60);
/// Signatures of one delivery that are looked at: by the key, and by the one before it.
const MAX_SIGNATURES: usize = 4;
/// Bytes of a header that is kept.
const MAX_HEADER: usize = 300;
/// Bytes of an HMAC with SHA-256.
const MAC: usize = 32;

/// What the headers of a delivery say.
#[derive(Clone, Debug)]
pub struct Head {
    /// The kind of event, as the forge names it.
    pub event: String,
    /// What the forge calls this delivery, and calls it again when it delivers it again.
    pub id: Option<String>,
    pub proof: Proof,
}

/// What a delivery brings to prove itself.
#[derive(Clone)]
pub enum Proof {
    /// An HMAC with SHA-256 of the body.
    Mac([u8; MAC]),
    GitLab {
        token: Option<String>,
        signed: Option<Signed>,
    },
}

/// A signature of the Standard Webhooks specification: of an id, a time and the body.
#[derive(Clone)]
pub struct Signed {
    id: String,
    /// The time in seconds since the Unix epoch, as the header has it.
    at: String,
    macs: Vec<[u8; MAC]>,
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Proof")
    }
}

/// Why a delivery is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Whether the secret is a wrong one or there was none is not said.
    #[error("the delivery is not signed with the secret of this forge")]
    Forged,
    #[error("the delivery was signed at another time than now: is a clock wrong?")]
    Stale,
}

impl Head {
    /// `header` gives the text of a header by its name. Errors: it brings nothing that could prove it.
    pub fn read(kind: Kind, header: &dyn Fn(&str) -> Option<String>) -> Result<Self, Invalid> {
        let get = |name: &str| header(name).filter(|it| it.len() <= MAX_HEADER);
        let first = |names: &[&str]| names.iter().find_map(|name| get(name));
        let (event, id, proof) = match kind {
            Kind::GitHub => (first(&["x-github-event"]), first(&["x-github-delivery"]), mac(&get)),
            Kind::Gitea => {
                let event = first(&["x-gitea-event", "x-forgejo-event", "x-github-event"]);
                let ids = ["x-gitea-delivery", "x-forgejo-delivery", "x-github-delivery"];
                (event, first(&ids), mac(&get))
            }
            Kind::GitLab => {
                let ids = ["webhook-id", "idempotency-key", "x-gitlab-event-uuid"];
                (first(&["x-gitlab-event"]), first(&ids), of_gitlab(&get))
            }
        };
        let proof = proof.ok_or(Invalid::Forged)?;
        Ok(Self { event: event.unwrap_or_default(), id, proof })
    }
}

/// `sha256=HEX`; Gitea and Forgejo write the digits alone as well.
fn mac(get: &dyn Fn(&str) -> Option<String>) -> Option<Proof> {
    let prefixed = get("x-hub-signature-256");
    let plain = || get("x-gitea-signature").or_else(|| get("x-forgejo-signature"));
    let digits = match &prefixed {
        Some(it) => it.strip_prefix("sha256=")?.to_owned(),
        None => plain()?,
    };
    // It is as long as a hash of BLAKE3, and written like one.
    let mac = blake3::Hash::from_hex(digits.as_bytes()).ok()?;
    Some(Proof::Mac(*mac.as_bytes()))
}

fn of_gitlab(get: &dyn Fn(&str) -> Option<String>) -> Option<Proof> {
    let token = get("x-gitlab-token");
    let signed = signed(get);
    (token.is_some() || signed.is_some()).then_some(Proof::GitLab { token, signed })
}

fn signed(get: &dyn Fn(&str) -> Option<String>) -> Option<Signed> {
    let (id, at) = (get("webhook-id")?, get("webhook-timestamp")?);
    let decoded = |it: &str| -> Option<[u8; MAC]> {
        STANDARD.decode(it.strip_prefix("v1,")?).ok()?.try_into().ok()
    };
    let all = get("webhook-signature")?;
    let macs: Vec<_> = all.split(' ').take(MAX_SIGNATURES).filter_map(decoded).collect();
    (!macs.is_empty()).then_some(Signed { id, at, macs })
}

/// Whether one of the secrets proves it. Every comparison takes as long for a wrong guess as for a right one.
pub fn verify(proof: &Proof, secrets: &[Secret], body: &[u8], now: Time) -> Result<(), Invalid> {
    let proven = secrets.iter().any(|secret| proves(proof, secret, body));
    match (proven, proof) {
        (false, _) => Err(Invalid::Forged),
        // The time counts where it may have been signed; who is believed by tokens alone has proven none.
        (true, Proof::GitLab { signed: Some(signed), .. }) if has_signing(secrets) => {
            timely(signed, now)
        }
        (true, _) => Ok(()),
    }
}

fn has_signing(secrets: &[Secret]) -> bool {
    secrets.iter().any(|it| matches!(it, Secret::Signing(_)))
}

fn proves(proof: &Proof, secret: &Secret, body: &[u8]) -> bool {
    match (proof, secret) {
        (Proof::Mac(mac), Secret::Text(text)) => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes());
            hmac::verify(&key, body, mac).is_ok()
        }
        (Proof::GitLab { token: Some(token), .. }, Secret::Text(text)) => {
            same(token.as_bytes(), text.as_bytes())
        }
        (Proof::GitLab { signed: Some(signed), .. }, Secret::Signing(key)) => {
            signed.is_by(key, body)
        }
        _ => false,
    }
}

impl Signed {
    fn is_by(&self, key: &[u8], body: &[u8]) -> bool {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
        for part in [self.id.as_bytes(), b".", self.at.as_bytes(), b".", body] {
            context.update(part);
        }
        let tag = context.sign();
        self.macs.iter().any(|mac| same(mac, tag.as_ref()))
    }
}

/// Hashes of BLAKE3 are compared in constant time, and tell nothing of what is hashed.
fn same(one: &[u8], other: &[u8]) -> bool {
    blake3::hash(one) == blake3::hash(other)
}

fn timely(signed: &Signed, now: Time) -> Result<(), Invalid> {
    let at = signed.at.parse::<u64>().map_err(|_| Invalid::Stale)?;
    let at = Time(at.saturating_mul(1_000));
    match now.since(at).max(at.since(now)) <= SKEW {
        true => Ok(()),
        false => Err(Invalid::Stale),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "It's a Secret to Everybody";

    fn headers(kind: Kind, all: &[(&str, &str)]) -> Result<Head, Invalid> {
        let get = |name: &str| {
            let found = all.iter().find(|(it, _)| it.eq_ignore_ascii_case(name));
            found.map(|(_, value)| (*value).to_owned())
        };
        Head::read(kind, &get)
    }

    fn texts(all: &[&str]) -> Vec<Secret> {
        all.iter().map(|it| Secret::Text((*it).to_owned())).collect()
    }

    #[test]
    fn the_example_of_githubs_documentation_is_believed_and_nothing_else() {
        let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let body = b"Hello, World!";
        let head = headers(Kind::GitHub, &[("X-Hub-Signature-256", signature)]).unwrap();
        let check = |secrets: &[Secret], body: &[u8]| verify(&head.proof, secrets, body, Time(0));
        assert_eq!(check(&texts(&[SECRET]), body), Ok(()));
        assert_eq!(
            check(&texts(&["the old one is here", SECRET]), body),
            Ok(()),
            "while they change"
        );
        assert_eq!(check(&texts(&[SECRET]), b"Hello, World?"), Err(Invalid::Forged));
        assert_eq!(check(&texts(&["another secret of ours"]), body), Err(Invalid::Forged));
        assert_eq!(check(&[], body), Err(Invalid::Forged), "no secret proves nothing");
        let signing = [Secret::Signing(SECRET.as_bytes().to_vec())];
        assert_eq!(check(&signing, body), Err(Invalid::Forged));
        // The older signature with SHA-1 does not count, and neither does an empty one.
        for odd in ["", "sha256=", "sha1=757107ea", &signature[7..], "sha256=zz"] {
            let head = headers(Kind::GitHub, &[("X-Hub-Signature-256", odd)]);
            assert_eq!(head.err(), Some(Invalid::Forged), "{odd}");
        }
        assert!(headers(Kind::GitHub, &[]).is_err());
        let plain = headers(Kind::Gitea, &[("X-Gitea-Signature", &signature[7..])]).unwrap();
        assert_eq!(verify(&plain.proof, &texts(&[SECRET]), body, Time(0)), Ok(()));
    }

    #[test]
    fn gitlabs_token_counts_whole() {
        let check = |token: &str| {
            let head = headers(Kind::GitLab, &[("X-Gitlab-Token", token)])?;
            verify(&head.proof, &texts(&[SECRET]), b"{}", Time(0))
        };
        assert_eq!(check(SECRET), Ok(()));
        for wrong in ["", "It's a Secret", "It's a Secret to Everybody ", "x"] {
            assert_eq!(check(wrong), Err(Invalid::Forged), "{wrong}");
        }
    }

    /// What GitLab sends at `at` seconds.
    fn signed_at(key: &[u8], at: &str, body: &[u8]) -> Head {
        let message = [b"delivery-1.".as_slice(), at.as_bytes(), b".", body].concat();
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &message);
        let signature = format!("v1,{} v2,x", STANDARD.encode(tag.as_ref()));
        let all = [
            ("webhook-id", "delivery-1"),
            ("webhook-timestamp", at),
            ("webhook-signature", signature.as_str()),
        ];
        headers(Kind::GitLab, &all).unwrap()
    }

    #[test]
    fn a_signed_delivery_counts_for_five_minutes() {
        let secrets = [Secret::Signing(vec![7; 32])];
        let now = Time(1_000_000_000);
        for (at, expected) in [
            ("1000000", Ok(())),
            ("999700", Ok(())),
            ("999699", Err(Invalid::Stale)),
            ("1000301", Err(Invalid::Stale)),
            ("", Err(Invalid::Stale)),
            ("-1", Err(Invalid::Stale)),
        ] {
            let head = signed_at(&[7; 32], at, b"{}");
            assert_eq!(verify(&head.proof, &secrets, b"{}", now), expected, "{at}");
            assert_eq!(verify(&head.proof, &secrets, b"[]", now), Err(Invalid::Forged));
        }
        let other = signed_at(&[8; 32], "1000000", b"{}");
        assert_eq!(verify(&other.proof, &secrets, b"{}", now), Err(Invalid::Forged));
        // A server without a signing token must not take a plain token for one because it looks like it.
        let token = headers(Kind::GitLab, &[("X-Gitlab-Token", "whsec_BwcH")]).unwrap();
        assert_eq!(verify(&token.proof, &secrets, b"{}", now), Err(Invalid::Forged));
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_seen(
            body in prop::collection::vec(any::<u8>(), 1..200),
            at in any::<usize>(),
            by in 1_u8..=255,
        ) {
            let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
            let tag = hmac::sign(&key, &body);
            let digits: String = tag.as_ref().iter().map(|it| format!("{it:02x}")).collect();
            let signature = format!("sha256={digits}");
            let head = headers(Kind::GitHub, &[("x-hub-signature-256", signature.as_str())]).unwrap();
            prop_assert_eq!(verify(&head.proof, &texts(&[SECRET]), &body, Time(0)), Ok(()));
            let mut other = body;
            let at = at % other.len();
            other[at] ^= by;
            prop_assert_eq!(verify(&head.proof, &texts(&[SECRET]), &other, Time(0)), Err(Invalid::Forged));
        }

        #[test]
        fn any_header_is_read_or_refused(name in "[ -~]{0,80}", value in "[ -~]{0,400}") {
            for kind in Kind::ALL {
                let _ = Head::read(kind, &|it| (it != name).then(|| value.clone()));
            }
        }
    }
}
