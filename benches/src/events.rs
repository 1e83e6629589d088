//! `kiln-events`: build events from several streams at once, until each is acknowledged.

use std::time::{Duration, Instant};

use clap::Parser;
use futures_util::future::try_join_all;
use kiln_protos::bep::build_event_id::{ConfigurationId, Id, TargetCompletedId, TestResultId};
use kiln_protos::bep::{self, build_event::Payload};
use kiln_protos::bes::build_event::{BuildComponentStreamFinished, Event};
use kiln_protos::bes::publish_build_event_client::PublishBuildEventClient;
use kiln_protos::bes::{self, OrderedBuildEvent, PublishBuildToolEventStreamRequest, StreamId};
use kiln_protos::protobuf;
use prost::Message;
use tonic::transport::Channel;

use crate::load::process::CpuClock;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Measure how fast servers take build events in, each acknowledged one by one.
#[derive(Debug, Parser)]
#[command(name = "kiln-events", version)]
pub struct Options {
    /// A server, as NAME=URL; ratios are to the first one
    #[arg(long, value_name = "NAME=URL", required = true)]
    target: Vec<String>,
    /// Its process, as NAME=PID: the processor time that it uses is measured, too
    #[arg(long, value_name = "NAME=PID")]
    pid: Vec<String>,
    /// Streams at once, each over a connection of its own
    #[arg(long, default_value_t = 8)]
    streams: usize,
    /// Events of each
    #[arg(long, default_value_t = 20_000)]
    events: i64,
    /// Rounds, in which the servers take turns
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// Measure nothing: tell the server of so many commits, an hour apart, at each of which `--events` tests ran
    #[arg(long, value_name = "N")]
    commits: Option<i64>,
}

struct Target {
    name: String,
    url: String,
    pid: Option<u32>,
    /// Events a second in each round; `costs` has the seconds of processor time per event.
    rates: Vec<f64>,
    costs: Vec<f64>,
}

impl Options {
    fn targets(&self) -> Result<Vec<Target>, AnyError> {
        let pair = |text: &str| {
            let pair =
                text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
            pair.ok_or_else(|| format!("{text:?} is not NAME=VALUE"))
        };
        let pids = self.pid.iter().map(|it| pair(it)).collect::<Result<Vec<_>, _>>()?;
        let mut targets = Vec::new();
        for text in &self.target {
            let (name, url) = pair(text)?;
            let pid = pids.iter().find(|it| it.0 == name).map(|it| it.1.parse()).transpose()?;
            targets.push(Target { name, url, pid, rates: Vec::new(), costs: Vec::new() });
        }
        Ok(targets)
    }
}

/// Measures and prints a table.
pub async fn run(options: &Options) -> Result<(), AnyError> {
    let mut targets = options.targets()?;
    if let Some(commits) = options.commits {
        for target in &targets {
            tell_commits(&target.url, options, commits).await?;
        }
        return Ok(());
    }
    let unique = std::process::id();
    for round in 0..options.repeat {
        // A B, B A, …: what changes meanwhile meets all alike.
        if round > 0 {
            targets.reverse();
        }
        for target in &mut targets {
            let clock = target.pid.map(CpuClock::of_process).transpose()?;
            let took = publish(&target.url, options, &format!("{unique}-{round}")).await?;
            let events = options.streams as f64 * options.events as f64;
            target.rates.push(events / took.as_secs_f64());
            if let Some(clock) = clock {
                target.costs.push(clock.elapsed()?.as_secs_f64() / events);
            }
        }
    }
    let first = options.targets()?.first().map(|it| it.name.clone());
    targets.sort_by_key(|it| Some(&it.name) != first.as_ref());
    print(&targets);
    Ok(())
}

/// Sends one stream of build events for each of `commits` commits, as many at once as the options
/// say.
async fn tell_commits(url: &str, options: &Options, commits: i64) -> Result<(), AnyError> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let now = i64::try_from(now.as_millis())?;
    let all: Vec<i64> = (0..commits).collect();
    for some in all.chunks(options.streams.max(1)) {
        let told = some.iter().map(async |commit| {
            let began = now - (commits - commit) * 3_600_000;
            let invocation = format!("commit-{commit}");
            let last = options.events + 2;
            let event = |number: i64| match number {
                1 => Some(commit_of(*commit)),
                _ if number == last => None,
                _ => Some(test_of(number - 2, *commit, began)),
            };
            let events: Vec<_> = (1..=last)
                .map(|number| ordered(&invocation, number, event(number).as_ref()))
                .collect();
            let channel = Channel::from_shared(url.to_owned())?.connect().await?;
            acknowledged(PublishBuildEventClient::new(channel), events, last).await
        });
        try_join_all(told).await?;
    }
    Ok(())
}

fn commit_of(commit: i64) -> bep::BuildEvent {
    let metadata = [("COMMIT_SHA".to_owned(), format!("{commit:040x}"))];
    let payload = Payload::BuildMetadata(bep::BuildMetadata { metadata: metadata.into() });
    bep::BuildEvent { payload: Some(payload), ..Default::default() }
}

/// The result of test `number` at a commit; one in a hundred fails. `began`: when the tests of this
/// commit began, in milliseconds since 1970.
fn test_of(number: i64, commit: i64, began: i64) -> bep::BuildEvent {
    let label = format!("//package/of/{}:test_{number}", number / 50);
    let configuration = Some(ConfigurationId { id: "0123456789abcdef".into() });
    let id = TestResultId { label, run: 1, shard: 1, attempt: 1, configuration };
    let failed = (number * 31 + commit * 17) % 100 == 0;
    let status = if failed { bep::TestStatus::Failed } else { bep::TestStatus::Passed };
    let result = bep::TestResult {
        status: status.into(),
        test_attempt_start_millis_epoch: began + number,
        test_attempt_duration_millis: 100 + number % 1_000,
        ..Default::default()
    };
    bep::BuildEvent {
        id: Some(bep::BuildEventId { id: Some(Id::TestResult(id)) }),
        payload: Some(Payload::TestResult(result)),
        ..Default::default()
    }
}

/// Sends all streams at once, and answers the time from the first event sent to the last one
/// acknowledged.
async fn publish(url: &str, options: &Options, unique: &str) -> Result<Duration, AnyError> {
    let mut ready = Vec::new();
    for stream in 0..options.streams {
        let channel = Channel::from_shared(url.to_owned())?.connect().await?;
        let invocation = format!("{unique}-{stream}");
        let events: Vec<_> = (1..=options.events)
            .map(|number| request(&invocation, number, options.events))
            .collect();
        ready.push((PublishBuildEventClient::new(channel), events));
    }
    let start = Instant::now();
    let streams =
        ready.into_iter().map(|(client, events)| acknowledged(client, events, options.events));
    try_join_all(streams).await?;
    Ok(start.elapsed())
}

/// Sends a stream, and waits until its last event is acknowledged.
async fn acknowledged(
    mut client: PublishBuildEventClient<Channel>,
    events: Vec<PublishBuildToolEventStreamRequest>,
    last: i64,
) -> Result<(), AnyError> {
    let answers = client.publish_build_tool_event_stream(tokio_stream::iter(events)).await;
    let mut answers = answers?.into_inner();
    while let Some(answer) = answers.message().await? {
        if answer.sequence_number == last {
            return Ok(());
        }
    }
    Err("a stream ended before its last event was acknowledged".into())
}

/// The request with event `number` of a stream of `last`: targets that were built, and every other
/// time a test that passed, as in a build of many tests.
fn request(invocation: &str, number: i64, last: i64) -> PublishBuildToolEventStreamRequest {
    let event = (number != last).then(|| bazel_event(number));
    ordered(invocation, number, event.as_ref())
}

/// The request that carries event `number`; `None` as its event makes it the end of the stream.
fn ordered(
    invocation: &str,
    number: i64,
    event: Option<&bep::BuildEvent>,
) -> PublishBuildToolEventStreamRequest {
    let event = match event {
        None => Event::ComponentStreamFinished(BuildComponentStreamFinished { r#type: 1 }),
        Some(event) => Event::BazelEvent(protobuf::Any {
            type_url: bes::BAZEL_EVENT.into(),
            value: event.encode_to_vec(),
        }),
    };
    let stream_id =
        StreamId { build_id: "build".into(), invocation_id: invocation.to_owned(), component: 3 };
    PublishBuildToolEventStreamRequest {
        ordered_build_event: Some(OrderedBuildEvent {
            stream_id: Some(stream_id),
            sequence_number: number,
            event: Some(bes::BuildEvent { event_time: None, event: Some(event) }),
        }),
        ..Default::default()
    }
}

fn bazel_event(number: i64) -> bep::BuildEvent {
    let label = format!("//some/package/of/a/repository:target_{}", number / 2);
    let configuration = Some(ConfigurationId { id: "0123456789abcdef".into() });
    let (id, payload) = if number % 2 == 0 {
        let id = TargetCompletedId { label, configuration, ..Default::default() };
        let payload = bep::TargetComplete { success: true, ..Default::default() };
        (Id::TargetCompleted(id), Payload::Completed(payload))
    } else {
        let id = TestResultId { label, run: 1, shard: 1, attempt: 1, configuration };
        let result = bep::TestResult {
            status: bep::TestStatus::Passed.into(),
            test_attempt_start_millis_epoch: 1_790_000_000_000 + number,
            test_attempt_duration_millis: 10,
            ..Default::default()
        };
        (Id::TestResult(id), Payload::TestResult(result))
    };
    bep::BuildEvent {
        id: Some(bep::BuildEventId { id: Some(id) }),
        payload: Some(payload),
        ..Default::default()
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

fn print(targets: &[Target]) {
    let floor = targets.first().and_then(|it| median(&it.rates));
    println!("{:<12} {:>12} {:>8} {:>14}", "server", "events/s", "ratio", "CPU us/event");
    for target in targets {
        let rate = median(&target.rates);
        let ratio = rate.zip(floor).map_or(0.0, |(rate, floor)| rate / floor);
        let cost = median(&target.costs).map_or("-".to_owned(), |it| format!("{:.2}", it * 1e6));
        println!("{:<12} {:>12.0} {ratio:>8.2} {cost:>14}", target.name, rate.unwrap_or(0.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_what_bazel_sends() {
        let sent = request("i", 3, 9).ordered_build_event.expect("an event");
        assert_eq!(sent.sequence_number, 3);
        let Some(Event::BazelEvent(any)) = sent.event.and_then(|it| it.event) else {
            unreachable!("no event of Bazel")
        };
        let event = bep::BuildEvent::decode(&*any.value).expect("it is one");
        assert!(matches!(event.payload, Some(Payload::TestResult(_))));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
    }
}
