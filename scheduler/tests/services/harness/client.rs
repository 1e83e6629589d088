//! A client of an operation.

use futures_util::StreamExt;
use kiln_protos::longrunning::{Operation, operation};
use kiln_protos::reapi::{self, execution_stage::Value as Stage};
use prost::Message;
use tonic::{Status, Streaming};

/// One stream of an operation's updates, each checked against what clients rely on.
pub struct Client {
    pub stream: Streaming<Operation>,
}

/// The fields of one update of an operation.
#[derive(Debug)]
pub struct Update {
    pub name: String,
    pub stage: Stage,
    pub metadata: reapi::ExecuteOperationMetadata,
    pub response: Option<reapi::ExecuteResponse>,
}

pub fn understand(operation: Operation) -> Update {
    assert!(!operation.name.is_empty(), "every update is named");
    let any = operation.metadata.expect("every update has metadata");
    assert!(any.type_url.ends_with("/build.bazel.remote.execution.v2.ExecuteOperationMetadata"));
    let metadata = reapi::ExecuteOperationMetadata::decode(any.value.as_slice()).unwrap();
    assert!(metadata.action_digest.is_some());
    let response = match operation.result {
        None => None,
        Some(operation::Result::Error(error)) => panic!("Operation.error is set: {error:?}"),
        Some(operation::Result::Response(any)) => {
            assert!(any.type_url.ends_with("/build.bazel.remote.execution.v2.ExecuteResponse"));
            Some(reapi::ExecuteResponse::decode(any.value.as_slice()).unwrap())
        }
    };
    assert_eq!(operation.done, response.is_some());
    assert_eq!(operation.done, metadata.stage() == Stage::Completed);
    Update { name: operation.name, stage: metadata.stage(), metadata, response }
}

impl Client {
    /// Returns the next update or the error that ends the stream, and `None` once the stream has ended.
    pub async fn next(&mut self) -> Option<Result<Update, Status>> {
        let update = self.stream.next().await?;
        Some(update.map(understand))
    }

    pub async fn update(&mut self) -> Update {
        self.next().await.expect("the stream goes on").unwrap()
    }

    pub async fn until(&mut self, stage: Stage) -> Update {
        loop {
            let update = self.update().await;
            if update.stage == stage {
                return update;
            }
            assert!(update.response.is_none(), "ended early: {update:?}");
        }
    }

    /// The answer, after which the stream must end.
    pub async fn response(&mut self) -> reapi::ExecuteResponse {
        let update = self.until(Stage::Completed).await;
        assert!(self.next().await.is_none(), "the stream goes on after the end");
        update.response.unwrap()
    }

    pub async fn status(&mut self) -> kiln_protos::rpc::Status {
        self.response().await.status.unwrap_or_default()
    }
}
