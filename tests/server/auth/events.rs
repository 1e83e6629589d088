//! Which callers may send build events.

use futures_util::stream::iter;
use kiln_protos::bes::publish_build_event_client::PublishBuildEventClient;
use kiln_protos::bes::{
    OrderedBuildEvent, PublishBuildToolEventStreamRequest, PublishLifecycleEventRequest, StreamId,
};
use tonic::{Code, Status};

use crate::auth::roles::{bearer, guarded};
use crate::support::reapi::Client;

fn stream_id(invocation: &str) -> Option<StreamId> {
    Some(StreamId { build_id: "b".into(), invocation_id: invocation.into(), component: 3 })
}

/// Sends the first event of a stream in the instance `main`. Returns the sequence number that the server
/// acknowledges, or the server's error.
async fn publish(client: &Client, invocation: &str) -> Result<i64, Status> {
    let stream_id = stream_id(invocation);
    let event = OrderedBuildEvent { stream_id, sequence_number: 1, event: None };
    let request = PublishBuildToolEventStreamRequest {
        ordered_build_event: Some(event),
        project_id: "main".into(),
        ..Default::default()
    };
    let mut service = PublishBuildEventClient::new(client.channel.clone());
    let answer = service.publish_build_tool_event_stream(iter([request])).await?;
    let acknowledged = answer.into_inner().message().await?;
    Ok(acknowledged.map_or(0, |it| it.sequence_number))
}

async fn announce(client: &Client) -> Result<(), Status> {
    let stream_id = stream_id("i");
    let event = OrderedBuildEvent { stream_id, sequence_number: 1, event: None };
    let request = PublishLifecycleEventRequest {
        build_event: Some(event),
        project_id: "main".into(),
        ..Default::default()
    };
    let mut service = PublishBuildEventClient::new(client.channel.clone());
    service.publish_lifecycle_event(request).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_reads_writes_no_history() {
    let house = guarded(&[]);
    for token in ["tok-reader", "tok-elsewhere"] {
        let client = house.caller(bearer(token)).await;
        let refused = publish(&client, "i").await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{token}");
        assert_eq!(announce(&client).await.unwrap_err().code(), Code::PermissionDenied, "{token}");
    }
    for token in ["tok-laptop", "tok-ci"] {
        let client = house.caller(bearer(token)).await;
        assert_eq!(publish(&client, token).await.unwrap(), 1, "{token}");
        announce(&client).await.unwrap();
    }
    // Only the caller who began a stream may send its events.
    let other = house.caller(bearer("tok-ci")).await;
    let refused = publish(&other, "tok-laptop").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}
