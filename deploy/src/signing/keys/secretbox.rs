//! Private keys as cosign encrypts them: scrypt makes a key of the passphrase, and NaCl's secretbox
//! (XSalsa20 with Poly1305) is opened with it.

use constant_time_eq::constant_time_eq;
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit as _;
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit as _, StreamCipher as _};
use serde::Deserialize;

use super::error::KeyError;
use crate::encoding::Base64;
use crate::json;

/// A private key has a few hundred bytes.
const MAX_BYTES: usize = 16 << 10;
/// Bytes that scrypt may use: cosign uses 64 MiB.
const MAX_SCRYPT_BYTES: u64 = 256 << 20;
const MAX_PARALLEL: u32 = 16;
/// Bytes of Poly1305's tag, which stands before the ciphertext.
const TAG_BYTES: usize = 16;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: Base64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kdf {
    name: String,
    params: Params,
    salt: Base64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cipher {
    name: String,
    nonce: Base64,
}

/// The PKCS#8 key in `body`.
pub(super) fn open(body: &[u8], passphrase: &str) -> Result<Vec<u8>, KeyError> {
    let sealed: Sealed = json::read(body, MAX_BYTES)?;
    if sealed.kdf.name != "scrypt" {
        return Err(KeyError::Encryption(sealed.kdf.name));
    }
    if sealed.cipher.name != "nacl/secretbox" {
        return Err(KeyError::Encryption(sealed.cipher.name));
    }
    let params = sealed.kdf.params.checked()?;
    let mut key = [0; 32];
    scrypt::scrypt(passphrase.as_bytes(), &sealed.kdf.salt.0, &params, &mut key)
        .map_err(|it| KeyError::Encryption(it.to_string()))?;
    open_box(&key, &sealed.cipher.nonce.0, &sealed.ciphertext.0)
}

impl Params {
    fn checked(&self) -> Result<scrypt::Params, KeyError> {
        let wrong = || KeyError::Encryption("scrypt with these parameters".to_owned());
        let bytes = self.n.checked_mul(u64::from(self.r).saturating_mul(128)).ok_or_else(wrong)?;
        if !self.n.is_power_of_two() || bytes > MAX_SCRYPT_BYTES || self.p > MAX_PARALLEL {
            return Err(wrong());
        }
        // A power of two has a logarithm below 64.
        scrypt::Params::new(self.n.trailing_zeros() as u8, self.r, self.p).map_err(|_| wrong())
    }
}

fn open_box(key: &[u8; 32], nonce: &[u8], sealed: &[u8]) -> Result<Vec<u8>, KeyError> {
    let nonce: [u8; 24] = nonce.try_into().map_err(|_| KeyError::Passphrase)?;
    let (tag, ciphertext) = sealed.split_at_checked(TAG_BYTES).ok_or(KeyError::Passphrase)?;
    let mut cipher = XSalsa20::new(key.into(), &nonce.into());
    // The first 32 bytes of the stream are the key of the authenticator.
    let mut authenticator = [0; 32];
    cipher.apply_keystream(&mut authenticator);
    let expected = Poly1305::new(&authenticator.into()).compute_unpadded(ciphertext);
    if !constant_time_eq(&expected, tag) {
        return Err(KeyError::Passphrase);
    }
    let mut plain = ciphertext.to_owned();
    cipher.apply_keystream(&mut plain);
    Ok(plain)
}
