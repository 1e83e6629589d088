//! What is set right of a call's status on its way out, whichever service made it.
//!
//! A message that no service could read is the client's doing, and INVALID_ARGUMENT says so; the gRPC library
//! answers INTERNAL, which stands for a server at fault and which Bazel tries five times. And words that repeat
//! what a client has sent may be longer than clients take: these give up the whole answer then, with a code of
//! their own, for which Bazel tries again as well.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::{Code, Status};

pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// How the library's words for it begin. `tests/builds/sdk/unreadable.rs` asks every method of the server.
const WORDS: [&str; 4] = [
    "failed to decode Protobuf message",
    "Missing request message",
    "Unexpected EOF decoding stream",
    "protocol error: received message",
];
/// Most bytes of a message, and of details, as they are sent. Of all headers together gRPC for Java takes 8 KiB.
const MAX_MESSAGE: usize = 2 << 10;
const MAX_DETAILS: usize = 5_632;

/// Corrects the headers of an answer without a body, or the trailers of another one.
pub fn correct(headers: &mut HeaderMap) {
    if headers.get(GRPC_MESSAGE).is_some_and(|message| message.len() > MAX_MESSAGE) {
        shorten(headers);
    }
    if headers.get(GRPC_DETAILS).is_some_and(|details| details.len() > MAX_DETAILS) {
        // Half of them would be none.
        headers.remove(GRPC_DETAILS);
    }
    let internal = HeaderValue::from(Code::Internal as i32);
    if headers.get(GRPC_STATUS) != Some(&internal) {
        return;
    }
    let Some(status) = Status::from_header_map(headers) else { return };
    if WORDS.iter().any(|words| status.message().starts_with(words)) {
        headers.insert(GRPC_STATUS, HeaderValue::from(Code::InvalidArgument as i32));
    }
}

/// Leaves the middle of the message out: its end says where to look, often.
fn shorten(headers: &mut HeaderMap) {
    let Some(status) = Status::from_header_map(headers) else { return };
    let details = Bytes::copy_from_slice(status.details());
    // A character may take twelve bytes on its way.
    let kept = std::iter::successors(Some(MAX_MESSAGE), |kept| Some(kept / 2));
    for kept in kept.take_while(|kept| *kept > 0) {
        let message = without_middle(status.message(), kept);
        let shorter = Status::with_details(status.code(), message, details.clone());
        let sent = shorter.add_header(headers).is_ok();
        if sent && headers.get(GRPC_MESSAGE).is_none_or(|message| message.len() <= MAX_MESSAGE) {
            return;
        }
    }
}

/// At most about `kept` bytes of `text`, three quarters of them from its start.
fn without_middle(text: &str, kept: usize) -> String {
    let end = text.floor_char_boundary(kept / 4 * 3);
    let start = text.ceil_char_boundary(text.len().saturating_sub(kept / 4)).max(end);
    match start > end {
        true => format!("{} [...] {}", &text[..end], &text[start..]),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use tonic::body::Body;

    use super::*;

    fn corrected(status: &Status) -> Status {
        let mut headers = status.clone().into_http::<Body>().into_parts().0.headers;
        correct(&mut headers);
        assert!(headers.get(GRPC_MESSAGE).is_none_or(|message| message.len() <= MAX_MESSAGE));
        Status::from_header_map(&headers).unwrap()
    }

    #[test]
    fn only_what_the_library_says_of_requests_is_corrected() {
        let undecodable = kiln_protos::reapi::Digest::decode(&[0xff][..]).unwrap_err();
        for message in [undecodable.to_string().as_str(), "Missing request message."] {
            let after = corrected(&Status::internal(message));
            assert_eq!((after.code(), after.message()), (Code::InvalidArgument, message));
            assert_eq!(corrected(&Status::unavailable(message)).code(), Code::Unavailable);
        }
        let own = Status::internal("a record: failed to decode Protobuf message");
        assert_eq!(corrected(&own).code(), Code::Internal);
        let mut none = HeaderMap::new();
        correct(&mut none);
        assert!(none.is_empty());
    }

    #[test]
    fn a_message_is_no_longer_than_clients_take() {
        for filling in ["a", "a b", "é", "\u{1f525}", "%"] {
            let message = format!("begin {} https://end", filling.repeat(50_000));
            let details = Bytes::from_static(b"details");
            let status = Status::with_details(Code::NotFound, message, details);
            let after = corrected(&status);
            assert_eq!((after.code(), after.details()), (Code::NotFound, &b"details"[..]));
            let text = after.message();
            assert!(text.starts_with("begin ") && text.ends_with(" https://end"), "{text}");
            assert!(text.contains(" [...] ") && text.len() > MAX_MESSAGE / 16, "{}", text.len());
        }
        let short = Status::not_found("é".repeat(100));
        assert_eq!(corrected(&short).message(), short.message());
        for (bytes, arrives) in [(4_000, true), (6_000, false)] {
            let details = Bytes::from(vec![7; bytes]);
            let after = corrected(&Status::with_details(Code::NotFound, "message", details));
            assert_eq!((after.message(), !after.details().is_empty()), ("message", arrives));
        }
    }
}
