//! The calls of Fetch and Push: entries of their messages are counted and charged before these are decoded.

use std::sync::Arc;

use http::{Request, Response};
use kiln_protos::asset::{
    FetchBlobRequest, FetchDirectoryRequest, PushBlobRequest, PushDirectoryRequest,
};
use tonic::Status;
use tonic::body::Body;

use super::names::MAX_NAMES;
use super::service::AssetService;
use crate::budget::Charge;
use crate::counted::{Counted, LEAF, Shape, counted, many};
use crate::services::rpc::{Handler, MAX_MESSAGE, decode_single, method_of, reply, unknown_method};
use crate::services::wire::{Encoded, MAX_DIGESTS, RequestBody};

/// URIs and qualifiers.
const FETCH: Shape = Shape(&[many(4, &LEAF), many(5, &LEAF)]);
/// URIs, qualifiers, and what the asset refers to.
const PUSH: Shape = Shape(&[many(2, &LEAF), many(3, &LEAF), many(6, &LEAF), many(7, &LEAF)]);

counted! {
    FetchBlobRequest: FETCH, MAX_NAMES;
    FetchDirectoryRequest: FETCH, MAX_NAMES;
    PushBlobRequest: PUSH, MAX_DIGESTS;
    PushDirectoryRequest: PUSH, MAX_DIGESTS;
}

/// The Fetch service.
pub struct FetchCalls(pub Arc<AssetService>);

/// The Push service.
pub struct PushCalls(pub Arc<AssetService>);

impl Handler for FetchCalls {
    const NAME: &'static str = "build.bazel.remote.asset.v1.Fetch";

    async fn handle<B: RequestBody>(
        self: Arc<Self>,
        request: Request<B>,
    ) -> Result<Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        let caller = parts.extensions;
        match method_of(&parts.uri) {
            "FetchBlob" => {
                let (request, charge) =
                    decode_single(&caller, body, "FetchBlobRequest", MAX_MESSAGE).await?;
                Ok(answer(&Box::pin(self.0.fetch_blob(&caller, request)).await?, charge))
            }
            "FetchDirectory" => {
                let (request, charge) =
                    decode_single(&caller, body, "FetchDirectoryRequest", MAX_MESSAGE).await?;
                Ok(answer(&Box::pin(self.0.fetch_directory(&caller, request)).await?, charge))
            }
            other => Err(unknown_method(Self::NAME, other)),
        }
    }
}

impl Handler for PushCalls {
    const NAME: &'static str = "build.bazel.remote.asset.v1.Push";

    async fn handle<B: RequestBody>(
        self: Arc<Self>,
        request: Request<B>,
    ) -> Result<Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        let caller = parts.extensions;
        match method_of(&parts.uri) {
            "PushBlob" => {
                let (request, charge) =
                    decode_single(&caller, body, "PushBlobRequest", MAX_MESSAGE).await?;
                Ok(answer(&Box::pin(self.0.push_blob(&caller, request)).await?, charge))
            }
            "PushDirectory" => {
                let (request, charge) =
                    decode_single(&caller, body, "PushDirectoryRequest", MAX_MESSAGE).await?;
                Ok(answer(&Box::pin(self.0.push_directory(&caller, request)).await?, charge))
            }
            other => Err(unknown_method(Self::NAME, other)),
        }
    }
}

/// `charge`: that of the request, which an answer may repeat.
fn answer(response: &impl prost::Message, charge: Charge) -> Response<Body> {
    reply(Encoded::message(response).charged(charge))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Extensions;
    use http_body_util::Full;

    use super::*;
    use crate::budget::{Budget, MIN_BUDGET};
    use crate::counted::{CountError, count};

    /// `count` empty entries in field `tag`: two bytes each.
    fn empty(tag: u8, count: usize) -> Vec<u8> {
        [tag << 3 | 2, 0].repeat(count)
    }

    #[test]
    fn uris_and_qualifiers_are_counted_together() {
        let message = |more| [empty(4, 64), empty(5, MAX_NAMES - 64 + more)].concat();
        assert_eq!(count::<FetchBlobRequest>(&message(0)), Ok(MAX_NAMES));
        let too_many = Err(CountError::TooMany { limit: MAX_NAMES });
        assert_eq!(count::<FetchBlobRequest>(&message(1)), too_many);
        assert_eq!(count::<FetchDirectoryRequest>(&message(1)), too_many);
    }

    #[tokio::test]
    async fn what_a_message_refers_to_is_charged_before_it_is_decoded() {
        let budget = Budget::new(MIN_BUDGET);
        for tag in [2, 3, 6, 7] {
            let message = empty(tag, 1_000_000);
            let length = u32::try_from(message.len()).unwrap().to_be_bytes();
            let body = [&[0][..], &length[..], &message[..]].concat();
            let mut caller = Extensions::new();
            caller.insert(budget.share(None));
            let body = Full::new(Bytes::from(body));
            let refused =
                decode_single::<PushBlobRequest, _>(&caller, body, "PushBlobRequest", MAX_MESSAGE)
                    .await;
            let refused = refused.err().unwrap();
            assert!(refused.message().contains("bytes of memory"), "{refused}");
        }
        assert_eq!(budget.snapshot().used_bytes, 0);
    }
}
