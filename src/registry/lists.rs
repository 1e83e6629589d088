//! Lists, in pages: tags, and what refers to a manifest.

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, HeaderName, LINK};
use http::{HeaderValue, Method, StatusCode};
use kiln_cas::access::Right;
use kiln_deploy::oci::{ContentDigest, INDEX_TYPE};
use kiln_deploy::registry::{Code, MAX_TAGS_PAGE};
use kiln_net::urls::component;
use serde_json::json;

use super::answers::Failure;
use super::blobs::insert;
use super::requests::{Request, no_digest, not_allowed};

const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");
const ARTIFACT_TYPE: &str = "artifactType";
/// Memory that a list takes while it is made, in bytes.
const HELD: u64 = 4 << 20;

pub async fn tags(request: &Request<'_>) -> Result<Response, Failure> {
    reads(request)?;
    let limit = match request.parameters.get("n").map(str::parse::<usize>) {
        None => MAX_TAGS_PAGE,
        Some(Ok(limit)) => limit,
        Some(Err(_)) => {
            let message = "n is the number of tags that are wanted";
            return Err(Failure::new(StatusCode::BAD_REQUEST, Code::Unsupported, message));
        }
    };
    let _held = request.charge(HELD).await?;
    let last = request.parameters.get("last");
    let page = request.registry().tags(request.repository, last, limit).await?;
    let document = json!({ "name": request.repository.as_str(), "tags": page.items });
    let mut response = Response::new(body(request, document.to_string().into_bytes()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(next) = page.next {
        let next = format!("n={limit}&last={}", component(&next));
        let name = request.repository;
        insert(headers, LINK, format!("</v2/{name}/tags/list?{next}>; rel=\"next\""));
    }
    Ok(response)
}

pub async fn referrers(
    request: &Request<'_>,
    subject: Option<&ContentDigest>,
) -> Result<Response, Failure> {
    reads(request)?;
    let subject = subject.ok_or_else(no_digest)?;
    let wanted = request.parameters.get(ARTIFACT_TYPE).filter(|it| !it.is_empty());
    let last = request.parameters.digest("last")?;
    let _held = request.charge(HELD).await?;
    let (registry, repository) = (request.registry(), request.repository);
    let page = registry.referrers(repository, subject, wanted, last.as_ref()).await?;
    let document = page.items.write().map_err(|error| {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown, error.to_string())
    })?;
    let mut response = Response::new(body(request, document));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(INDEX_TYPE));
    let mut query = String::new();
    if let Some(wanted) = wanted {
        headers.insert(FILTERS, HeaderValue::from_static(ARTIFACT_TYPE));
        query = format!("{ARTIFACT_TYPE}={}&", component(wanted));
    }
    if let Some(next) = page.next {
        let place = format!("/v2/{repository}/referrers/{subject}?{query}last={next}");
        insert(headers, LINK, format!("<{place}>; rel=\"next\""));
    }
    Ok(response)
}

fn reads(request: &Request<'_>) -> Result<(), Failure> {
    match request.parts.method {
        Method::GET | Method::HEAD => request.check(Right::Read),
        _ => Err(not_allowed()),
    }
}

fn body(request: &Request<'_>, document: Vec<u8>) -> Body {
    if request.is_head() { Body::empty() } else { document.into() }
}
