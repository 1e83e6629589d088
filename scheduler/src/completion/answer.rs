//! The answer to a client: an `ExecuteResponse` around a result that is encoded already.

use bytes::Bytes;
use kiln_protos::{events, reapi};
use prost::Message;

use crate::job::{Finished, UnixNanos, unix_nanos};

/// Protobuf field of `ExecuteResponse.result`.
const RESULT: u32 = 1;

/// `rest`: all fields but the result.
pub(super) fn encode(result: Option<&Bytes>, rest: &reapi::ExecuteResponse) -> Bytes {
    debug_assert!(rest.result.is_none(), "it would be there twice");
    let rest = rest.encode_to_vec();
    let Some(result) = result else { return rest.into() };
    let mut response = Vec::with_capacity(result.len() + rest.len() + 16);
    prost::encoding::bytes::encode(RESULT, result, &mut response);
    response.extend_from_slice(&rest);
    response.into()
}

/// An action-cache hit as an answer.
pub(crate) fn cached(result: Bytes, received_at: UnixNanos, message: &str) -> Finished {
    let rest = reapi::ExecuteResponse {
        cached_result: true,
        message: message.to_owned(),
        ..Default::default()
    };
    let timeline =
        events::Timeline { received: received_at, finished: unix_nanos(), ..Default::default() };
    Finished { response: encode(Some(&result), &rest), result, timeline, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_whole_message_would_be() {
        let result = reapi::ActionResult { exit_code: 3, ..Default::default() };
        let rest = reapi::ExecuteResponse { message: "why".to_owned(), ..Default::default() };
        for result in [None, Some(result), Some(reapi::ActionResult::default())] {
            let encoded = result.as_ref().map(|result| Bytes::from(result.encode_to_vec()));
            let whole = reapi::ExecuteResponse { result, ..rest.clone() };
            assert_eq!(encode(encoded.as_ref(), &rest), whole.encode_to_vec());
        }
        let hit = cached(Bytes::from_static(&[32, 7]), 5, "");
        let hit = reapi::ExecuteResponse::decode(hit.response).unwrap();
        assert_eq!((hit.result.unwrap().exit_code, hit.cached_result), (7, true));
    }
}
