//! Reads messages and text out of the store, with a limit on each.

use bytes::Bytes;
use kiln_cas::{ActionKey, Digest, DigestFunction, StoreError};
use kiln_protos::reapi;
use prost::Message;

use super::WebState;
use super::error::WebError;

/// Largest `Action`, `Command` or `Directory` that is decoded for a page.
pub const MAX_MESSAGE: u64 = 4 << 20;
/// Largest `Tree` that is decoded for a page.
pub const MAX_TREE: u64 = 32 << 20;
/// Bytes of stdout and stderr that a page shows.
pub const MAX_TEXT: u64 = 64 << 10;

/// `{function}/{hash}/{size}` of an address.
pub fn parse_digest(function: &str, hash: &str, size: &str) -> Result<Digest, WebError> {
    let hint = "An address names a blob as sha256/HASH/SIZE or blake3/HASH/SIZE.";
    let function = match function {
        "sha256" => DigestFunction::Sha256,
        "blake3" => DigestFunction::Blake3,
        _ => {
            let message =
                format!("digest function {:?} is not known", super::format::short(function, 40));
            return Err(WebError::invalid(message, hint));
        }
    };
    let size = size
        .parse()
        .map_err(|_| WebError::invalid("the size in the address is not a number", hint))?;
    Digest::from_hex(hash.as_bytes(), size, function).map_err(|_| {
        WebError::invalid("the hash in the address is not 64 hexadecimal digits", hint)
    })
}

/// A digest of a message, as `function` says; `None` where it is absent or malformed.
pub fn digest(wire: Option<&reapi::Digest>, function: DigestFunction) -> Option<Digest> {
    Digest::from_wire(wire?, function).ok()
}

impl WebState {
    /// A whole blob of at most `limit` bytes.
    pub async fn bytes(&self, digest: &Digest, limit: u64) -> Result<Bytes, StoreError> {
        if digest.is_empty_blob() {
            return Ok(Bytes::new());
        }
        if digest.size > limit {
            return Err(StoreError::TooLarge { size: digest.size, limit });
        }
        self.blobs.read(digest, 0, None).await?.collect(limit).await
    }

    pub async fn message<M: Message + Default>(
        &self,
        digest: &Digest,
        limit: u64,
    ) -> Result<M, StoreError> {
        let data = self.bytes(digest, limit).await?;
        M::decode(data).map_err(|error| {
            StoreError::Invalid(format!("blob {digest} is not the message it should be: {error}"))
        })
    }

    /// The beginning of a blob as text; what is not UTF-8 is replaced.
    pub async fn text(&self, digest: &Digest) -> Result<String, StoreError> {
        if digest.is_empty_blob() {
            return Ok(String::new());
        }
        let data = self.blobs.read(digest, 0, Some(MAX_TEXT)).await?.collect(MAX_TEXT).await?;
        Ok(String::from_utf8_lossy(&data).into_owned())
    }

    /// What the action cache holds. A result that cannot be read counts as none.
    pub async fn cached(&self, instance: &str, action: &Digest) -> Option<reapi::ActionResult> {
        let key = ActionKey { instance: instance.into(), action: *action };
        let found = self.actions.get(&key).await.ok()??;
        reapi::ActionResult::decode(found).ok()
    }
}
