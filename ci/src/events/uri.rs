//! Reads the addresses under which build events name files.

use crate::attempts::BlobName;

/// The blob that a `bytestream://HOST[/INSTANCE]/blobs/[FUNCTION/]HASH/SIZE` names.
pub fn blob_of(uri: &str) -> Option<BlobName> {
    let rest = uri.strip_prefix("bytestream://")?;
    let (_, resource) = rest.split_once('/')?;
    let resource = format!("/{resource}");
    let at = resource.rfind("/blobs/").or_else(|| resource.rfind("/compressed-blobs/"))?;
    let mut parts = resource[at..].split('/').skip(2).collect::<Vec<_>>();
    let size = parts.pop()?.parse().ok()?;
    let hash = parts.pop()?;
    let is_hash = (32..=128).contains(&hash.len()) && hash.bytes().all(|it| it.is_ascii_hexdigit());
    (is_hash && parts.len() <= 1).then(|| BlobName { hash: hash.to_ascii_lowercase(), size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_are_found_in_the_uris_of_all_clients() {
        let hash = "ab".repeat(32);
        for uri in [
            format!("bytestream://localhost:8980/blobs/{hash}/7"),
            format!("bytestream://localhost:8980/a/b/blobs/{hash}/7"),
            format!("bytestream://localhost/main/blobs/blake3/{hash}/7"),
            format!("bytestream://localhost/blobs/blobs/{}/7", hash.to_uppercase()),
        ] {
            assert_eq!(blob_of(&uri), Some(BlobName { hash: hash.clone(), size: 7 }), "{uri}");
        }
        for uri in [
            format!("file:///blobs/{hash}/7"),
            format!("bytestream://localhost/blobs/{hash}"),
            format!("bytestream://localhost/blobs/{hash}/x"),
            "bytestream://localhost/blobs/xyz/7".to_owned(),
            format!("bytestream://localhost/blobs/a/b/{hash}/7"),
            String::new(),
        ] {
            assert_eq!(blob_of(&uri), None, "{uri}");
        }
    }
}
