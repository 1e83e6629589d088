//! Reads messages and text out of the store, with a limit on each.

use bytes::Bytes;
use kiln_cas::counted::{self, Counted};
use kiln_cas::{ActionKey, Digest, DigestError, DigestFunction, StoreError};
use kiln_protos::reapi;
use prost::Message;

use super::error::WebError;
use super::state::WebState;

/// Largest `Action`, `Command` or `Directory` that is decoded for a page.
pub const MAX_MESSAGE: u64 = 4 << 20;
/// Largest `Tree` that is decoded for a page.
pub const MAX_TREE: u64 = 32 << 20;
/// Bytes of stdout and stderr that a page shows.
pub const MAX_TEXT: u64 = 64 << 10;

/// More bytes than these are worked on elsewhere than on the thread that serves connections.
const WORTH_A_TRIP: usize = 64 << 10;

/// Does `work`, which is about `bytes` bytes.
pub async fn off_thread<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    if bytes <= WORTH_A_TRIP {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| StoreError::failed("decode a message", error))
}

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
    Digest::from_hex(hash.as_bytes(), size, function).map_err(|error| match error {
        // It may be as long as an address.
        DigestError::MalformedHash(_) => {
            WebError::invalid("the hash in the address is not 64 hexadecimal digits", hint)
        }
        error => WebError::invalid(error.to_string(), hint),
    })
}

/// A digest of a message, as `function` says; `None` where it is absent or malformed.
pub fn digest(wire: Option<&reapi::Digest>, function: DigestFunction) -> Option<Digest> {
    Digest::from_wire(wire?, function).ok()
}

/// What is not UTF-8 is replaced. `is_cut`: the first line is not whole and left out, if it is
/// not the only one.
pub fn text_from(data: &[u8], is_cut: bool) -> String {
    let text = String::from_utf8_lossy(data);
    match text.split_once('\n') {
        Some((_, rest)) if is_cut && !rest.is_empty() => rest.to_owned(),
        _ => text.into_owned(),
    }
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

    /// A message of at most `limit` bytes. Its entries are counted before it is decoded.
    pub async fn message<M: Counted + 'static>(
        &self,
        digest: &Digest,
        limit: u64,
    ) -> Result<M, StoreError> {
        let data = self.bytes(digest, limit).await?;
        off_thread(data.len(), move || counted::decode(data)).await?.map_err(|error| {
            StoreError::invalid(format!("blob {digest} is not the message it should be: {error}"))
        })
    }

    /// The end of a blob as text, at most [`MAX_TEXT`] bytes.
    pub async fn end_of_text(&self, digest: &Digest) -> Result<String, StoreError> {
        if digest.is_empty_blob() {
            return Ok(String::new());
        }
        let begin = digest.size.saturating_sub(MAX_TEXT);
        let data = self.blobs.read(digest, begin, None).await?.collect(MAX_TEXT).await?;
        Ok(text_from(&data, begin > 0))
    }

    /// A whole blob as text; `None`: it is too large, cannot be read or is no text.
    pub async fn whole_text(&self, digest: &Digest, limit: u64) -> Option<String> {
        let data = self.bytes(digest, limit).await.ok()?;
        let text = String::from_utf8(data.to_vec()).ok()?;
        (!text.contains('\0')).then_some(text)
    }

    /// What the action cache holds. A result that cannot be read counts as none.
    pub async fn cached(&self, instance: &str, action: &Digest) -> Option<reapi::ActionResult> {
        let key = ActionKey { instance: instance.into(), action: *action };
        let found = self.actions.get(&key).await.ok()??;
        reapi::ActionResult::decode(found).ok()
    }
}
