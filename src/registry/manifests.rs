//! Manifests: pushed, pulled and deleted.

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures_util::StreamExt;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, LOCATION};
use http::{HeaderMap, Method, StatusCode};
use kiln_cas::access::Right;
use kiln_cas::budget::Charge;
use kiln_deploy::oci::{MAX_DOCUMENT_BYTES, Reference, Tag};
use kiln_deploy::registry::Code;
use kiln_deploy::registry::store::{Found, Push, RegistryError};

use super::answers::Failure;
use super::blobs::{CONTENT_DIGEST, empty, insert, unchanged};
use super::requests::{Request, known, not_allowed, tag_of};

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAGS: HeaderName = HeaderName::from_static("oci-tag");
/// Bytes of memory that a manifest may take once it is read, for each of its own bytes.
const READ: u64 = 8;
/// Tags that one push may write.
const MAX_TAGS: usize = 16;

pub async fn answer(
    request: &Request<'_>,
    reference: Option<&Reference>,
) -> Result<Response, Failure> {
    match request.parts.method {
        Method::GET | Method::HEAD => {
            request.check(Right::Read)?;
            let nothing = || RegistryError::NoManifest("what the address ends in".into()).into();
            get(request, &known(reference, nothing)?).await
        }
        Method::PUT => {
            request.check_publish()?;
            put(request, &known(reference, no_reference)?).await
        }
        Method::DELETE => {
            request.check_delete()?;
            match known(reference, no_reference)? {
                Reference::Tag(tag) => {
                    request.registry().delete_tag(request.repository, &tag).await?
                }
                Reference::Digest(digest) => {
                    request.registry().delete_manifest(request.repository, &digest).await?;
                }
            }
            Ok(empty(StatusCode::ACCEPTED))
        }
        _ => Err(not_allowed()),
    }
}

fn no_reference() -> Failure {
    let message = "the address ends in no tag, and in no digest by SHA-256 or SHA-512";
    Failure::new(StatusCode::BAD_REQUEST, Code::DigestInvalid, message)
}

async fn get(request: &Request<'_>, reference: &Reference) -> Result<Response, Failure> {
    let found = request.registry().find_manifest(request.repository, reference).await?;
    if !accepts(request.headers(), &found.media_type) {
        let message = format!(
            "the manifest is of type {}, which the request does not accept",
            found.media_type
        );
        return Err(Failure::new(StatusCode::NOT_FOUND, Code::ManifestUnknown, message));
    }
    if request.has(&found.digest) {
        return Ok(unchanged(&found.digest));
    }
    let body = match request.is_head() {
        true => Body::empty(),
        false => {
            let charge = request.charge(found.size).await?;
            let data = request.registry().read_manifest(&found).await?;
            let whole = futures_util::stream::iter([Ok::<_, std::io::Error>(data)]);
            Body::from_stream(whole.inspect(move |_| _ = &charge))
        }
    };
    let mut response = Response::new(body);
    describe(response.headers_mut(), &found);
    Ok(response)
}

fn describe(headers: &mut HeaderMap, found: &Found) {
    insert(headers, CONTENT_TYPE, found.media_type.clone());
    insert(headers, CONTENT_LENGTH, found.size.to_string());
    insert(headers, CONTENT_DIGEST, found.digest.to_string());
    insert(headers, ETAG, tag_of(&found.digest));
}

/// Whether a client takes this type. Who says nothing takes all.
fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let mut ranges = headers.get_all(ACCEPT).iter().filter_map(|it| it.to_str().ok()).peekable();
    if ranges.peek().is_none() {
        return true;
    }
    let (kind, _) = media_type.split_once('/').unwrap_or((media_type, ""));
    ranges.flat_map(|it| it.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused = parts.any(|it| matches!(it, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        let all = name == "*/*" || name.strip_suffix("/*").is_some_and(|it| it == kind);
        !refused && (all || name.eq_ignore_ascii_case(media_type))
    })
}

async fn put(request: &Request<'_>, reference: &Reference) -> Result<Response, Failure> {
    let mut charge = Charge::of(&request.parts.extensions);
    let data = body(request, &mut charge).await?;
    let tags = tags(request)?;
    let media_type = request.headers().get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let media_type = media_type.map(|it| it.split(';').next().unwrap_or(it).trim());
    let push = Push {
        repository: request.repository,
        reference,
        tags: &tags,
        media_type: media_type.unwrap_or_default(),
        data,
    };
    let pushed = request.registry().push_manifest(&request.store(), push).await?;
    let mut response = empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    let place = match reference {
        Reference::Tag(tag) => tag.to_string(),
        Reference::Digest(digest) => digest.to_string(),
    };
    insert(headers, LOCATION, format!("/v2/{}/manifests/{place}", request.repository));
    insert(headers, CONTENT_DIGEST, pushed.digest.to_string());
    if let Some(subject) = pushed.subject {
        insert(headers, SUBJECT, subject.to_string());
    }
    if !tags.is_empty() {
        let names: Vec<_> = tags.iter().map(Tag::as_str).collect();
        insert(headers, TAGS, names.join(", "));
    }
    Ok(response)
}

/// Tags that a manifest gets that is pushed by its digest.
fn tags(request: &Request<'_>) -> Result<Vec<Tag>, Failure> {
    let refused =
        |message: String| Failure::new(StatusCode::BAD_REQUEST, Code::ManifestInvalid, message);
    let tags = request.parameters.all("tag").map(|it| it.parse::<Tag>());
    let mut tags: Vec<Tag> = tags.collect::<Result<_, _>>().map_err(|e| refused(e.to_string()))?;
    tags.sort_unstable();
    tags.dedup();
    match tags.len() > MAX_TAGS {
        true => Err(refused(format!("a push writes at most {MAX_TAGS} tags"))),
        false => Ok(tags),
    }
}

/// Reads the body of a push. One that says that it is too large is refused before it is read.
async fn body(request: &Request<'_>, charge: &mut Charge) -> Result<Bytes, Failure> {
    let limit = MAX_DOCUMENT_BYTES as u64;
    let large = || {
        let message = format!("a manifest of more than {limit} bytes is not taken");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, Code::ManifestInvalid, message)
    };
    if request.length().is_some_and(|length| length > limit) {
        return Err(large());
    }
    let mut all = Vec::new();
    let mut stream = request.body.body();
    while let Some(data) = stream.next().await {
        let data = data.map_err(RegistryError::from)?;
        let held = (all.len() + data.len()) as u64;
        if held > limit {
            return Err(large());
        }
        charge.grow_to(held * READ).await?;
        all.extend_from_slice(&data);
    }
    Ok(all.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_what_it_accepts() {
        let accepts = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT, value.parse().unwrap());
            }
            super::accepts(&headers, "application/vnd.oci.image.index.v1+json")
        };
        assert!(accepts(&[]) && accepts(&["*/*"]) && accepts(&["text/html", "application/*"]));
        assert!(accepts(&["a/b, application/vnd.oci.image.index.v1+json;q=0.5"]));
        assert!(!accepts(&["application/vnd.oci.image.manifest.v1+json"]));
        assert!(!accepts(&["application/vnd.oci.image.index.v1+json; q=0"]));
    }
}
