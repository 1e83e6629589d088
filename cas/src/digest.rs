//! Digests: the names of all content (REAPI `Digest`, `DigestFunction`).

use std::fmt;

use kiln_protos::reapi;
use kiln_protos::reapi::digest_function::Value as WireFunction;

/// The digest functions Kiln computes; both give 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DigestFunction {
    Sha256 = 1,
    Blake3 = 9,
}

impl DigestFunction {
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Blake3];

    /// `UNKNOWN` (0) means SHA-256: clients older than REAPI 2.3, and Buck2, send none.
    pub fn from_wire(value: i32) -> Result<Self, DigestError> {
        match WireFunction::try_from(value) {
            Ok(WireFunction::Unknown | WireFunction::Sha256) => Ok(Self::Sha256),
            Ok(WireFunction::Blake3) => Ok(Self::Blake3),
            Ok(other) => Err(DigestError::UnsupportedFunction(other.as_str_name().to_owned())),
            Err(_) => Err(DigestError::UnsupportedFunction(format!("number {value}"))),
        }
    }

    pub fn to_wire(self) -> WireFunction {
        match self {
            Self::Sha256 => WireFunction::Sha256,
            Self::Blake3 => WireFunction::Blake3,
        }
    }

    /// The digest of `data`.
    pub fn digest(self, data: &[u8]) -> Digest {
        let mut hasher = self.hasher();
        hasher.update(data);
        hasher.finish()
    }

    pub fn hasher(self) -> Hasher {
        let state = match self {
            Self::Sha256 => HasherState::Sha256(sha2::Digest::new()),
            Self::Blake3 => HasherState::Blake3(Box::default()),
        };
        Hasher { state, size: 0 }
    }
}

impl fmt::Display for DigestFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "sha256",
            Self::Blake3 => "blake3",
        })
    }
}

/// Hash, size and function: names a blob exactly.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    pub hash: [u8; 32],
    /// Bytes.
    pub size: u64,
    pub function: DigestFunction,
}

impl Digest {
    pub fn from_wire(
        digest: &reapi::Digest,
        function: DigestFunction,
    ) -> Result<Self, DigestError> {
        let size = u64::try_from(digest.size_bytes)
            .map_err(|_| DigestError::NegativeSize(digest.size_bytes))?;
        Self::from_hex(digest.hash.as_bytes(), size, function)
    }

    /// Checks hash and size of a digest whose function is not known: the hashes of all functions have 32 bytes.
    pub fn check_shape(digest: &reapi::Digest) -> Result<(), DigestError> {
        decode_hex(digest.hash.as_bytes())
            .ok_or_else(|| DigestError::MalformedHash(digest.hash.clone()))?;
        u64::try_from(digest.size_bytes)
            .map(drop)
            .map_err(|_| DigestError::NegativeSize(digest.size_bytes))
    }

    /// `hex`: 64 lowercase hexadecimal digits. Errors: it is none, or cannot be the hash of so many bytes.
    pub fn from_hex(hex: &[u8], size: u64, function: DigestFunction) -> Result<Self, DigestError> {
        Self::of_any_size(hex, size, function)?.possible()
    }

    /// Returns the digest if content can have it. Errors: `Impossible`, where the size is 0 and the hash is not
    /// that of the empty blob, or the other way round.
    pub fn possible(self) -> Result<Self, DigestError> {
        match (self.size == 0) == (self.hash == empty_hash(self.function)) {
            true => Ok(self),
            false => Err(DigestError::Impossible { hash: self.hex(), size: self.size }),
        }
    }

    /// A digest of a hash whose blob may have any size: `size` stands in for a size that is not known, and is not
    /// checked against the hash. Errors: `MalformedHash`, where `hex` is not 64 lowercase hexadecimal digits.
    pub fn of_any_size(
        hex: &[u8],
        size: u64,
        function: DigestFunction,
    ) -> Result<Self, DigestError> {
        let hash = decode_hex(hex)
            .ok_or_else(|| DigestError::MalformedHash(String::from_utf8_lossy(hex).into_owned()))?;
        Ok(Self { hash, size, function })
    }

    pub fn to_wire(&self) -> reapi::Digest {
        reapi::Digest { hash: self.hex(), size_bytes: self.size as i64 }
    }

    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(64);
        for byte in self.hash {
            text.push(DIGITS[usize::from(byte >> 4)] as char);
            text.push(DIGITS[usize::from(byte & 15)] as char);
        }
        text
    }

    /// The empty blob exists always and is never stored.
    pub fn is_empty_blob(&self) -> bool {
        self.size == 0 && self.hash == empty_hash(self.function)
    }
}

fn empty_hash(function: DigestFunction) -> [u8; 32] {
    const SHA256: [u8; 32] = [
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9,
        0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52,
        0xb8, 0x55,
    ];
    const BLAKE3: [u8; 32] = [
        0xaf, 0x13, 0x49, 0xb9, 0xf5, 0xf9, 0xa1, 0xa6, 0xa0, 0x40, 0x4d, 0xea, 0x36, 0xdc, 0xc9,
        0x49, 0x9b, 0xcb, 0x25, 0xc9, 0xad, 0xc1, 0x12, 0xb7, 0xcc, 0x9a, 0x93, 0xca, 0xe4, 0x1f,
        0x32, 0x62,
    ];
    match function {
        DigestFunction::Sha256 => SHA256,
        DigestFunction::Blake3 => BLAKE3,
    }
}

/// Value of an ASCII hexadecimal digit; 0xff for everything else, uppercase included
/// (REAPI: "The hash, represented as a lowercase hexadecimal string").
const HEX_VALUE: [u8; 256] = {
    let mut table = [0xff; 256];
    let mut i = 0;
    while i < 10 {
        table[b'0' as usize + i] = i as u8;
        i += 1;
    }
    let mut i = 0;
    while i < 6 {
        table[b'a' as usize + i] = 10 + i as u8;
        i += 1;
    }
    table
};

fn decode_hex(hex: &[u8]) -> Option<[u8; 32]> {
    let hex: &[u8; 64] = hex.try_into().ok()?;
    let mut hash = [0; 32];
    let mut invalid = 0;
    for (byte, pair) in hash.iter_mut().zip(hex.chunks_exact(2)) {
        let (high, low) = (HEX_VALUE[usize::from(pair[0])], HEX_VALUE[usize::from(pair[1])]);
        invalid |= high | low;
        *byte = high << 4 | low;
    }
    (invalid & 0xf0 == 0).then_some(hash)
}

/// `{hash}/{size}`, with `blake3/` in front where the function is not SHA-256: the form of
/// ByteStream resource names and of `PreconditionFailure` subjects.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.function == DigestFunction::Blake3 {
            f.write_str("blake3/")?;
        }
        write!(f, "{}/{}", self.hex(), self.size)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Incremental hashing of a stream.
pub struct Hasher {
    state: HasherState,
    size: u64,
}

enum HasherState {
    Sha256(sha2::Sha256),
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    pub fn update(&mut self, data: &[u8]) {
        self.size += data.len() as u64;
        match &mut self.state {
            HasherState::Sha256(state) => sha2::Digest::update(state, data),
            HasherState::Blake3(state) => {
                state.update(data);
            }
        }
    }

    pub fn finish(self) -> Digest {
        let (hash, function) = match self.state {
            HasherState::Sha256(state) => {
                (sha2::Digest::finalize(state).into(), DigestFunction::Sha256)
            }
            HasherState::Blake3(state) => (*state.finalize().as_bytes(), DigestFunction::Blake3),
        };
        Digest { hash, size: self.size, function }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    #[error("digest function {0} is not supported; SHA256 and BLAKE3 are")]
    UnsupportedFunction(String),
    #[error("hash {0:?} is not 64 lowercase hexadecimal digits")]
    MalformedHash(String),
    #[error("size_bytes {0} is negative")]
    NegativeSize(i64),
    #[error(
        "no content has the hash {hash} and {size} bytes: the empty blob alone has 0 bytes, and its hash"
    )]
    Impossible { hash: String, size: u64 },
    #[error("the digest is not set")]
    Absent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_blob_is_recognised_in_both_functions() {
        for function in DigestFunction::ALL {
            assert!(function.digest(b"").is_empty_blob());
            assert!(!function.digest(b"x").is_empty_blob());
        }
    }

    #[test]
    fn a_digest_that_nothing_can_have_is_none() {
        for function in DigestFunction::ALL {
            let (empty, other) = (function.digest(b""), function.digest(b"x"));
            for (digest, size, is_one) in
                [(empty, 0, true), (empty, 5, false), (other, 1, true), (other, 0, false)]
            {
                let digest = Digest { size, ..digest };
                let text = digest.hex();
                let read = Digest::from_hex(text.as_bytes(), size, function);
                assert_eq!(read.is_ok(), is_one, "{digest}");
                assert_eq!(Digest::from_wire(&digest.to_wire(), function), read);
                assert_eq!(Digest::of_any_size(text.as_bytes(), size, function), Ok(digest));
            }
        }
    }

    #[test]
    fn hex_round_trips_and_rejects_anything_else() {
        let digest = DigestFunction::Sha256.digest(b"kiln");
        let hex = digest.hex();
        assert_eq!(Digest::from_hex(hex.as_bytes(), 4, digest.function), Ok(digest));
        for bad in [hex.to_uppercase(), hex[1..].to_owned(), format!("{}g", &hex[1..])] {
            assert!(Digest::from_hex(bad.as_bytes(), 4, digest.function).is_err(), "{bad}");
        }
    }
}
