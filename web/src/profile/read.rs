//! Reads the profile that Bazel writes: trace events as JSON, compressed.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use flate2::read::GzDecoder;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Bytes that are read of what comes out of the compression.
const MAX_BYTES: u64 = 512 << 20;
/// Spans that are kept: of more, the longest.
pub const MAX_SPANS: usize = 4000;
/// Threads whose names are kept.
const MAX_THREADS: usize = 1000;
/// Characters of a name.
const MAX_NAME: usize = 200;

/// Something that took time.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub thread: i64,
    pub name: String,
    pub category: String,
    /// Microseconds since the build began.
    pub start: f64,
    pub took: f64,
}

#[derive(Debug, Default, PartialEq)]
pub struct Profile {
    pub threads: BTreeMap<i64, String>,
    /// Spans by their start; of those that began at once, the longest first.
    pub spans: Vec<Span>,
    /// Shorter ones that are left out.
    pub left_out: u64,
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "traceEvents", deserialize_with = "events")]
    events: Profile,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    ph: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    cat: String,
    #[serde(default)]
    ts: f64,
    #[serde(default)]
    dur: f64,
    #[serde(default)]
    tid: i64,
    args: Option<Arguments>,
}

#[derive(Deserialize)]
struct Arguments {
    name: Option<serde_json::Value>,
}

/// Errors: it is no profile, or too large.
pub fn read(compressed: &[u8]) -> Result<Profile, serde_json::Error> {
    let plain: Box<dyn Read> = match compressed.starts_with(&[0x1f, 0x8b]) {
        true => Box::new(GzDecoder::new(compressed)),
        false => Box::new(compressed),
    };
    let file: File = serde_json::from_reader(std::io::BufReader::new(plain.take(MAX_BYTES)))?;
    let mut profile = file.events;
    profile.keep_longest();
    let order = |a: &Span, b: &Span| a.start.total_cmp(&b.start).then(b.took.total_cmp(&a.took));
    profile.spans.sort_by(order);
    Ok(profile)
}

fn events<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Profile, D::Error> {
    struct Events;
    impl<'de> Visitor<'de> for Events {
        type Value = Profile;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("a list of trace events")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Profile, A::Error> {
            let mut profile = Profile::default();
            while let Some(event) = all.next_element::<Event>()? {
                profile.take(event);
            }
            Ok(profile)
        }
    }
    deserializer.deserialize_seq(Events)
}

impl Profile {
    fn take(&mut self, event: Event) {
        let cut = |text: &str| text.chars().take(MAX_NAME).collect::<String>();
        let is_number = event.ts.is_finite() && event.dur.is_finite() && event.dur >= 0.0;
        if event.ph == "M" && event.name == "thread_name" && self.threads.len() < MAX_THREADS {
            let name = event.args.and_then(|it| it.name);
            let name = name.as_ref().and_then(|it| it.as_str()).unwrap_or_default();
            self.threads.insert(event.tid, cut(name));
        } else if event.ph == "X" && is_number {
            self.spans.push(Span {
                thread: event.tid,
                name: cut(&event.name),
                category: cut(&event.cat),
                start: event.ts,
                took: event.dur,
            });
            if self.spans.len() >= 4 * MAX_SPANS {
                self.keep_longest();
            }
        }
    }

    fn keep_longest(&mut self) {
        let over = self.spans.len().saturating_sub(MAX_SPANS);
        if over > 0 {
            self.spans.sort_by(|a, b| b.took.total_cmp(&a.took));
            self.spans.truncate(MAX_SPANS);
            self.left_out += over as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn compressed(json: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(json.as_bytes()).expect("it is written");
        encoder.finish().expect("it ends")
    }

    #[test]
    fn spans_and_threads_are_read_and_the_rest_is_not() {
        let json = r#"{"otherData":{"build_id":"x"},"traceEvents":[
            {"name":"thread_name","ph":"M","pid":1,"tid":7,"args":{"name":"skyframe-evaluator-1"}},
            {"name":"action count","ph":"C","ts":1,"args":{"action":"1"}},
            {"cat":"action processing","name":"Compiling <a>","ph":"X","ts":2000,"dur":500,"pid":1,"tid":7,"args":{"mnemonic":"X"}},
            {"cat":"general information","name":"Launch","ph":"X","ts":-5.5,"dur":9000,"tid":7}]}"#;
        for bytes in [compressed(json), json.as_bytes().to_vec()] {
            let profile = read(&bytes).expect("a profile");
            assert_eq!(profile.threads[&7], "skyframe-evaluator-1");
            let names: Vec<_> = profile.spans.iter().map(|it| it.name.as_str()).collect();
            assert_eq!(names, ["Launch", "Compiling <a>"]);
        }
        for odd in ["", "{}", "[1]", r#"{"traceEvents":7}"#, r#"{"traceEvents":[{"ph":"X""#] {
            assert!(read(odd.as_bytes()).is_err(), "{odd}");
        }
    }

    #[test]
    fn of_many_spans_the_longest_stay() {
        let event =
            |took: usize| format!(r#"{{"ph":"X","name":"s","ts":{took},"dur":{took},"tid":1}}"#);
        let events: Vec<String> = (0..MAX_SPANS * 5).map(event).collect();
        let json = format!(r#"{{"traceEvents":[{}]}}"#, events.join(","));
        let profile = read(json.as_bytes()).expect("a profile");
        assert_eq!(profile.spans.len(), MAX_SPANS);
        assert_eq!(profile.left_out as usize, MAX_SPANS * 4);
        assert!(profile.spans.iter().all(|it| it.took as usize >= MAX_SPANS * 4));
    }
}
