//! Which blob the record of an asset is about.

use super::names::ASSETS;
use super::stored::StoredAsset;
use crate::digest::{Digest, DigestFunction};
use crate::records::Record;

/// The blob, or the root of the directory, that an asset is.
pub fn owner(record: &Record) -> Option<Digest> {
    let function = record.key.strip_prefix(ASSETS)?.split('/').nth(1)?;
    let function = DigestFunction::ALL.into_iter().find(|known| known.to_string() == function)?;
    StoredAsset::decode_record(record.value.clone())?.digest(function)
}

#[cfg(test)]
pub fn remembered(blob: &Digest) -> (String, Vec<u8>) {
    use super::names::Names;
    use super::stored::AssetKind;
    let uris = [format!("https://example/{}", blob.hex())];
    let names = Names::new(AssetKind::Blob, "", &uris, &[], blob.function);
    let key = names.map(|names| names.key(0)).unwrap_or_default();
    (key, StoredAsset::new(blob, 0, None).encode().into())
}
