//! Messages become what Kiln keeps of them, once, here.

use std::time::Duration;

use kiln_protos::{bep, bes, protobuf};
use prost::Message;
use serde::{Deserialize, Serialize};

use super::facts::FileRef;
use super::{redact, uri};
use crate::attempts::{BlobName, name};
use crate::model::Time;

/// The stream that an event belongs to. A build tool has one of its own, and so has whoever starts it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamKey {
    pub instance: String,
    pub build: String,
    pub invocation: String,
    /// Who sends the stream, as the protocol numbers it: 1 controller, 2 worker, 3 tool.
    pub component: i32,
}

/// What is kept of one event of a stream: the part that Kiln reads, without secrets.
#[derive(Clone, Debug, PartialEq)]
pub enum KeptEvent {
    /// An event of Bazel's build event protocol.
    Bazel(Box<bep::BuildEvent>),
    /// Lifecycle events, console output and events of other tools are numbered as all are; of these the
    /// kind alone is kept.
    Other,
    /// The last event of its stream.
    Finished,
    /// An event that is not kept, since its stream has more than it may.
    Cut,
}

/// Bytes of an event that says how its build ended, which is kept when others are not.
const MAX_ENDING: usize = 64 << 10;

impl KeptEvent {
    /// What of it is kept where its stream has more than it may.
    pub(super) fn cut(self) -> Self {
        use bep::build_event::Payload;
        let Self::Bazel(mut event) = self else { return self };
        let says_end = matches!(event.payload, Some(Payload::Finished(_)));
        if !says_end || event.encoded_len() > MAX_ENDING {
            event.payload = None;
        }
        match event.last_message || event.payload.is_some() {
            true => {
                event.children.clear();
                Self::Bazel(event)
            }
            false => Self::Cut,
        }
    }
}

/// An event with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Ordered {
    pub stream: StreamKey,
    pub number: i64,
    pub entry: KeptEvent,
    /// Bytes of the message in which the event came.
    pub bytes: usize,
}

/// Decodes an event from a message; `None` when the message names no stream. What cannot be read within it is kept as
/// [`KeptEvent::Other`]: an event of a newer Bazel must not end a stream.
pub fn decode(instance: &str, message: bes::OrderedBuildEvent) -> Option<Ordered> {
    let stream = message.stream_id?;
    let stream = StreamKey {
        instance: name(instance),
        build: name(&stream.build_id),
        invocation: name(&stream.invocation_id),
        component: stream.component,
    };
    let event = message.event.and_then(|event| event.event);
    let bytes = event.as_ref().map_or(0, size);
    let number = message.sequence_number;
    Some(Ordered { stream, number, entry: event.map_or(KeptEvent::Other, entry), bytes })
}

fn size(event: &bes::build_event::Event) -> usize {
    match event {
        bes::build_event::Event::BazelEvent(any) => any.value.len() + any.type_url.len(),
        other => other.encoded_len(),
    }
}

fn entry(event: bes::build_event::Event) -> KeptEvent {
    match event {
        bes::build_event::Event::BazelEvent(any) => match bep::BuildEvent::decode(&any.value[..]) {
            Ok(event) => KeptEvent::Bazel(Box::new(without_secrets(event))),
            Err(_) => KeptEvent::Other,
        },
        bes::build_event::Event::ComponentStreamFinished(_) => KeptEvent::Finished,
        _ => KeptEvent::Other,
    }
}

/// Takes out what must not be kept.
pub(super) fn without_secrets(mut event: bep::BuildEvent) -> bep::BuildEvent {
    use bep::build_event::Payload;
    match &mut event.payload {
        Some(Payload::UnstructuredCommandLine(line)) => line.args = redact::arguments(&line.args),
        Some(Payload::OptionsParsed(options)) => {
            for list in [
                &mut options.startup_options,
                &mut options.explicit_startup_options,
                &mut options.cmd_line,
                &mut options.explicit_cmd_line,
            ] {
                *list = redact::arguments(list);
            }
        }
        Some(Payload::Started(started)) => {
            let options = redact_text(&started.options_description);
            started.options_description = options;
        }
        Some(Payload::WorkspaceStatus(status)) => {
            for item in &mut status.item {
                item.value = value(&item.key, &item.value);
            }
        }
        Some(Payload::BuildMetadata(metadata)) => {
            for (key, text) in &mut metadata.metadata {
                *text = value(key, text);
            }
        }
        _ => {}
    }
    event
}

fn value(key: &str, text: &str) -> String {
    if redact::is_secret(key) { redact::REDACTED.to_owned() } else { redact::without_user(text) }
}

/// Flags in one text, as Bazel describes its options.
fn redact_text(text: &str) -> String {
    let words = text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    redact::arguments(&words).join(" ")
}

/// Times and durations are there in one of two forms; the newer one is better where both are.
pub(super) fn time(newer: Option<&protobuf::Timestamp>, millis: i64) -> Option<Time> {
    let newer = newer.map(|it| {
        let millis =
            it.seconds.saturating_mul(1000).saturating_add(i64::from(it.nanos) / 1_000_000);
        u64::try_from(millis).unwrap_or(0)
    });
    let time = newer.unwrap_or_else(|| u64::try_from(millis).unwrap_or(0));
    (time > 0).then_some(Time(time))
}

pub(super) fn duration(newer: Option<&protobuf::Duration>, millis: i64) -> Option<Duration> {
    let newer = newer.map(|it| (u64::try_from(it.seconds), u32::try_from(it.nanos)));
    match newer {
        Some((Ok(seconds), Ok(nanos))) if nanos < 1_000_000_000 => {
            Some(Duration::new(seconds, nanos))
        }
        Some(_) => None,
        None => u64::try_from(millis).ok().filter(|it| *it > 0).map(Duration::from_millis),
    }
}

pub(super) fn file(file: &bep::File) -> FileRef {
    let uri = match &file.file {
        Some(bep::file::File::Uri(uri)) => uri.as_str(),
        _ => "",
    };
    let link = match &file.file {
        // What is cut short leads elsewhere.
        Some(bep::file::File::SymlinkTargetPath(target)) if name(target) == *target => {
            Some(target.clone())
        }
        _ => None,
    };
    let digest = || {
        let size = u64::try_from(file.length).ok()?;
        let hash = file.digest.to_ascii_lowercase();
        (hash.len() >= 32 && hash.bytes().all(|it| it.is_ascii_hexdigit()))
            .then_some(BlobName { hash, size })
    };
    let mut path: Vec<&str> = file.path_prefix.iter().map(String::as_str).collect();
    path.push(&file.name);
    FileRef {
        name: name(&path.join("/")),
        uri: redact::without_user(&name(uri)),
        blob: uri::blob_of(uri).or_else(digest),
        link,
    }
}

#[cfg(test)]
mod tests {
    use kiln_protos::bes::build_event::Event;

    use super::*;

    fn ordered(event: Option<Event>) -> bes::OrderedBuildEvent {
        bes::OrderedBuildEvent {
            stream_id: Some(bes::StreamId {
                build_id: "b".into(),
                invocation_id: "i".into(),
                component: 3,
            }),
            sequence_number: 4,
            event: Some(bes::BuildEvent { event_time: None, event }),
        }
    }

    fn bazel(value: Vec<u8>) -> Option<Event> {
        Some(Event::BazelEvent(protobuf::Any { type_url: bes::BAZEL_EVENT.into(), value }))
    }

    fn entry_of(event: Option<Event>) -> KeptEvent {
        decode("main", ordered(event)).unwrap().entry
    }

    #[test]
    fn what_cannot_be_read_is_no_reason_to_end_a_stream() {
        assert_eq!(entry_of(None), KeptEvent::Other);
        assert_eq!(entry_of(bazel(vec![0xff; 9])), KeptEvent::Other);
        // A payload with a number that is not known here.
        let newer = bazel(vec![0xfa, 0x7f, 0x02, 0x08, 0x01]);
        assert_eq!(entry_of(newer), KeptEvent::Bazel(Box::default()));
        let none = bes::OrderedBuildEvent { stream_id: None, ..ordered(None) };
        assert_eq!(decode("main", none), None);
    }

    #[test]
    fn the_last_event_is_known() {
        let finished = bes::build_event::BuildComponentStreamFinished { r#type: 1 };
        assert_eq!(entry_of(Some(Event::ComponentStreamFinished(finished))), KeptEvent::Finished);
    }

    #[test]
    fn secrets_are_gone_before_anything_else_sees_the_event() {
        let args =
            ["test", "--client_env=TOKEN=abc", "--bes_header=a=b"].map(str::to_owned).to_vec();
        let line = bep::UnstructuredCommandLine { args };
        let payload = Some(bep::build_event::Payload::UnstructuredCommandLine(line));
        let event = bep::BuildEvent { payload, ..Default::default() };
        let KeptEvent::Bazel(kept) = entry_of(bazel(event.encode_to_vec())) else { unreachable!() };
        let kept = kept.encode_to_vec();
        for secret in ["abc", "a=b"] {
            assert!(!kept.windows(secret.len()).any(|it| it == secret.as_bytes()), "{secret}");
        }
    }

    #[test]
    fn times_come_in_two_forms() {
        let stamp = protobuf::Timestamp { seconds: 5, nanos: 250_000_000 };
        assert_eq!(time(Some(&stamp), 7), Some(Time(5250)));
        assert_eq!(time(None, 7), Some(Time(7)));
        assert_eq!(time(None, 0), None);
        assert_eq!(time(Some(&protobuf::Timestamp { seconds: i64::MIN, nanos: -1 }), 7), None);
        let it = protobuf::Duration { seconds: 1, nanos: 500_000_000 };
        assert_eq!(duration(Some(&it), 9), Some(Duration::from_millis(1500)));
        assert_eq!(duration(None, 9), Some(Duration::from_millis(9)));
        assert_eq!(duration(None, -9), None);
        assert_eq!(duration(Some(&protobuf::Duration { seconds: -1, nanos: 0 }), 9), None);
    }
}
