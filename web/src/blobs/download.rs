//! Stored bytes. They never act as a page: text and pictures are shown in a sandbox that runs and
//! loads nothing, everything else is an attachment of unknown type.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
};
use kiln_cas::{Digest, StoreError};
use serde::Deserialize;

use crate::content::parse_digest;
use crate::error::WebError;
use crate::format::encode;
use crate::state::WebState;

/// Longest file name that is proposed, in characters.
const MAX_FILE_NAME: usize = 120;
/// First bytes of a blob by which its type is told.
const SAMPLE: u64 = 4 << 10;
/// Largest blob that is shown and not downloaded, in bytes.
const MAX_SHOWN: u64 = 16 << 20;
const UNKNOWN: &str = "application/octet-stream";

#[derive(Deserialize)]
pub struct Download {
    /// File name to propose.
    name: Option<String>,
    /// Set: a download even of what could be shown.
    download: Option<String>,
}

pub async fn download(
    State(state): State<WebState>,
    Path((function, hash, size)): Path<(String, String, String)>,
    Query(download): Query<Download>,
) -> Result<Response, WebError> {
    let digest = parse_digest(&function, &hash, &size)?;
    let shown = digest.size <= MAX_SHOWN && download.download.is_none();
    let kind = if shown { kind(&beginning(&state, &digest).await?) } else { UNKNOWN };
    let body = if digest.is_empty_blob() {
        Body::empty()
    } else {
        Body::from_stream(state.blobs.read(&digest, 0, None).await?.into_stream().map(|chunk| {
            // After the first byte the only way to report an error is to end the body early.
            chunk.inspect_err(|error| tracing::warn!(%error, "a download ended early"))
        }))
    };
    let name = download.name.unwrap_or_else(|| digest.hex());
    let how = if kind == UNKNOWN { "attachment" } else { "inline" };
    Response::builder()
        .header(CONTENT_TYPE, kind)
        .header(CONTENT_LENGTH, digest.size)
        .header(CONTENT_DISPOSITION, disposition(how, &name))
        // What is shown is in an origin of its own, without script, and reaches nothing.
        .header(CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'")
        .header(CACHE_CONTROL, "private, immutable, max-age=86400")
        .header(ETAG, format!("\"{digest}\""))
        .body(body)
        .map_err(|error| WebError::invalid(error.to_string(), "Correct the address."))
}

async fn beginning(state: &WebState, digest: &Digest) -> Result<Bytes, StoreError> {
    if digest.is_empty_blob() {
        return Ok(Bytes::new());
    }
    state.blobs.read(digest, 0, Some(SAMPLE)).await?.collect(SAMPLE).await
}

/// Told by the bytes alone: names are what a stranger chose. HTML, SVG and scripts are text.
fn kind(beginning: &[u8]) -> &'static str {
    const PICTURES: [(&[u8], &str); 4] = [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF8", "image/gif"),
        (b"RIFF", "image/webp"),
    ];
    for (magic, kind) in PICTURES {
        if beginning.starts_with(magic)
            && (kind != "image/webp" || beginning.get(8..12) == Some(b"WEBP"))
        {
            return kind;
        }
    }
    let is_text = match std::str::from_utf8(beginning) {
        Ok(_) => true,
        // The sample may end within a character.
        Err(error) => error.error_len().is_none() && beginning.len() as u64 == SAMPLE,
    };
    let is_binary = |byte: &u8| *byte < 0x20 && !b"\t\n\r\x0c\x1b".contains(byte);
    if is_text && !beginning.iter().any(is_binary) { "text/plain; charset=utf-8" } else { UNKNOWN }
}

/// RFC 6266: an ASCII name, and the true one in RFC 8187 form.
fn disposition(how: &str, name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control()).take(MAX_FILE_NAME).collect();
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.+".contains(c) { c } else { '_' };
    let ascii: String = name.chars().map(safe).collect();
    let ascii = if ascii.is_empty() { "blob".to_owned() } else { ascii };
    format!("{how}; filename=\"{ascii}\"; filename*=UTF-8''{}", encode(&name, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_and_pictures_are_shown_and_markup_is_text() {
        for (bytes, expected) in [
            (&b"<script>alert(1)</script>"[..], "text/plain; charset=utf-8"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "text/plain; charset=utf-8"),
            (b"\x1b[31mred\x1b[0m\n", "text/plain; charset=utf-8"),
            (b"", "text/plain; charset=utf-8"),
            (b"\x89PNG\r\n\x1a\n....", "image/png"),
            (b"RIFF....WEBPVP8 ", "image/webp"),
            (b"RIFF\x24\x08\0\0WAVEfmt ", UNKNOWN),
            (b"\x7fELF\x02\x01", UNKNOWN),
            (b"%PDF-1.7\x00", UNKNOWN),
            (b"ends within \xc3", UNKNOWN),
        ] {
            assert_eq!(kind(bytes), expected, "{bytes:?}");
        }
        let mut long = vec![b'a'; SAMPLE as usize - 1];
        long.push(0xc3);
        assert_eq!(kind(&long), "text/plain; charset=utf-8");
    }

    #[test]
    fn a_name_cannot_break_out_of_its_header() {
        let header = disposition("attachment", "dir/a\"; x=\r\nSet-Cookie: ä.txt");
        assert_eq!(
            header,
            "attachment; filename=\"a___x_Set-Cookie___.txt\"; \
             filename*=UTF-8''a%22%3B%20x%3DSet-Cookie%3A%20%C3%A4.txt"
        );
    }
}
