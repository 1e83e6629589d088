//! Downloads of stored bytes. They never act as a page: always an attachment of unknown type.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use futures_util::StreamExt;
use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
};
use serde::Deserialize;

use super::WebState;
use super::content::parse_digest;
use super::error::WebError;
use super::format::encode;

/// Longest file name that is proposed, in characters.
const MAX_FILE_NAME: usize = 120;

#[derive(Deserialize)]
pub struct Download {
    /// File name to propose.
    name: Option<String>,
}

pub async fn download(
    State(state): State<WebState>,
    Path((function, hash, size)): Path<(String, String, String)>,
    Query(download): Query<Download>,
) -> Result<Response, WebError> {
    let digest = parse_digest(&function, &hash, &size)?;
    let body = if digest.is_empty_blob() {
        Body::empty()
    } else {
        Body::from_stream(state.blobs.read(&digest, 0, None).await?.into_stream().map(|chunk| {
            // After the first byte the only way to report an error is to end the body early.
            chunk.inspect_err(|error| tracing::warn!(%error, "a download ended early"))
        }))
    };
    let name = download.name.unwrap_or_else(|| digest.hex());
    Response::builder()
        .header(CONTENT_TYPE, "application/octet-stream")
        .header(CONTENT_LENGTH, digest.size)
        .header(CONTENT_DISPOSITION, disposition(&name))
        .header(CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'")
        .header(CACHE_CONTROL, "private, immutable, max-age=86400")
        .header(ETAG, format!("\"{digest}\""))
        .body(body)
        .map_err(|error| WebError::invalid(error.to_string(), "Correct the address."))
}

/// RFC 6266: an ASCII name, and the true one in RFC 8187 form.
fn disposition(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control()).take(MAX_FILE_NAME).collect();
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.+".contains(c) { c } else { '_' };
    let ascii: String = name.chars().map(safe).collect();
    let ascii = if ascii.is_empty() { "blob".to_owned() } else { ascii };
    format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{}", encode(&name, false))
}

#[cfg(test)]
mod tests {
    use super::disposition;

    #[test]
    fn a_name_cannot_break_out_of_its_header() {
        let header = disposition("dir/a\"; x=\r\nSet-Cookie: ä.txt");
        assert_eq!(
            header,
            "attachment; filename=\"a___x_Set-Cookie___.txt\"; \
             filename*=UTF-8''a%22%3B%20x%3DSet-Cookie%3A%20%C3%A4.txt"
        );
    }
}
