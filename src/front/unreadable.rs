//! Calls whose message no service could read. That is the client's doing, and INVALID_ARGUMENT says so; the
//! gRPC library answers INTERNAL, which stands for a server at fault and which Bazel tries five times.

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::{Code, Status};

pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// How the library's words for it begin. `tests/sdk/unreadable.rs` asks every method of the server.
const WORDS: [&str; 4] = [
    "failed to decode Protobuf message",
    "Missing request message",
    "Unexpected EOF decoding stream",
    "protocol error: received message",
];

/// Corrects the code in the headers of an answer without a body, or in the trailers of another one.
pub fn correct(headers: &mut HeaderMap) {
    let internal = Code::Internal as i32;
    if headers
        .get(GRPC_STATUS)
        .is_none_or(|code| code.as_bytes() != internal.to_string().as_bytes())
    {
        return;
    }
    let Some(status) = Status::from_header_map(headers) else { return };
    if WORDS.iter().any(|words| status.message().starts_with(words)) {
        headers.insert(GRPC_STATUS, HeaderValue::from(Code::InvalidArgument as i32));
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use tonic::body::Body;

    use super::*;

    fn corrected(status: &Status) -> Code {
        let mut headers = status.clone().into_http::<Body>().into_parts().0.headers;
        correct(&mut headers);
        let after = Status::from_header_map(&headers).unwrap();
        assert_eq!(after.message(), status.message());
        after.code()
    }

    #[test]
    fn only_what_the_library_says_of_requests_is_corrected() {
        let undecodable = kiln_protos::reapi::Digest::decode(&[0xff][..]).unwrap_err();
        for message in [undecodable.to_string().as_str(), "Missing request message."] {
            assert_eq!(corrected(&Status::internal(message)), Code::InvalidArgument);
            assert_eq!(corrected(&Status::unavailable(message)), Code::Unavailable);
        }
        let own = Status::internal("a record: failed to decode Protobuf message");
        assert_eq!(corrected(&own), Code::Internal);
        let mut none = HeaderMap::new();
        correct(&mut none);
        assert!(none.is_empty());
    }
}
