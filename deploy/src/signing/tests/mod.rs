//! Signatures from both sides: what is written is read again, and what others write, or what somebody
//! changed, gets the verdict that it should.

mod documents;
mod keys;
mod policy;
mod vectors;

use super::{KeyRing, Scheme, Signer as _, SigningKey};

/// A new key, and the ring in which it is trusted at any time.
fn key(scheme: Scheme) -> (SigningKey, KeyRing) {
    let (key, _) = SigningKey::generate(scheme).expect("a key can be made");
    let ring = KeyRing::single("test", key.public_key().clone());
    (key, ring)
}
