//! A client of the Build Event Service that a test can stop at any event.

use futures_util::stream::iter;
use kiln_protos::bep::build_event_id::{ConfigurationId, Id, TestResultId};
use kiln_protos::bep::{self, build_event::Payload};
use kiln_protos::bes::build_event::{BuildComponentStreamFinished, Event};
use kiln_protos::bes::publish_build_event_client::PublishBuildEventClient;
use kiln_protos::bes::{self, OrderedBuildEvent, PublishBuildToolEventStreamRequest, StreamId};
use kiln_protos::protobuf;
use prost::Message;
use tonic::Status;
use tonic::transport::Channel;

/// The events of a build in which one test ran once per event, and a last event that ends the stream.
pub struct Stream {
    pub instance: String,
    pub invocation: String,
    pub events: i64,
}

impl Stream {
    pub fn label(&self) -> String {
        format!("//{}:t", self.invocation)
    }

    fn event(&self, number: i64) -> Event {
        if number == self.events {
            return Event::ComponentStreamFinished(BuildComponentStreamFinished { r#type: 1 });
        }
        let configuration = Some(ConfigurationId { id: "cfg".into() });
        let id = TestResultId {
            label: self.label(),
            run: i32::try_from(number).unwrap(),
            shard: 1,
            attempt: 1,
            configuration,
        };
        let result = bep::TestResult {
            status: bep::TestStatus::Passed.into(),
            test_attempt_start_millis_epoch: now() + number,
            test_attempt_duration_millis: 10,
            ..Default::default()
        };
        let event = bep::BuildEvent {
            id: Some(bep::BuildEventId { id: Some(Id::TestResult(id)) }),
            payload: Some(Payload::TestResult(result)),
            ..Default::default()
        };
        let any = protobuf::Any { type_url: bes::BAZEL_EVENT.into(), value: event.encode_to_vec() };
        Event::BazelEvent(any)
    }

    fn request(&self, number: i64) -> PublishBuildToolEventStreamRequest {
        let stream_id = StreamId {
            build_id: "build".into(),
            invocation_id: self.invocation.clone(),
            component: 3,
        };
        let event = bes::BuildEvent { event_time: None, event: Some(self.event(number)) };
        PublishBuildToolEventStreamRequest {
            ordered_build_event: Some(OrderedBuildEvent {
                stream_id: Some(stream_id),
                sequence_number: number,
                event: Some(event),
            }),
            project_id: self.instance.clone(),
            ..Default::default()
        }
    }

    /// Sends the events from the number `from` on, and calls `acknowledged` with each number that the server
    /// acknowledges. It stops when `acknowledged` returns `false`. Returns the status with which the server ended the
    /// stream, if that was an error.
    pub async fn send(
        &self,
        channel: Channel,
        from: i64,
        mut acknowledged: impl FnMut(i64) -> bool,
    ) -> Result<(), Status> {
        let requests: Vec<_> = (from..=self.events).map(|it| self.request(it)).collect();
        let mut client = PublishBuildEventClient::new(channel);
        let answer = client.publish_build_tool_event_stream(iter(requests)).await;
        let mut answers = answer?.into_inner();
        loop {
            match answers.message().await? {
                Some(answer) if acknowledged(answer.sequence_number) => {}
                _ => return Ok(()),
            }
        }
    }
}

pub async fn connect(address: &str) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// Returns the time at which it was first called, in milliseconds since the Unix epoch.
fn now() -> i64 {
    static START: std::sync::LazyLock<i64> = std::sync::LazyLock::new(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        i64::try_from(now.as_millis()).unwrap()
    });
    *START
}
