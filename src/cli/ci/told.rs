//! Reads the build events that Bazel wrote of its invocation.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use kiln_ci::events::{Build, FailedRuns, KeptEvent, Limits, Options};
use kiln_ci::verdicts::Account;
use kiln_protos::bep::BuildEvent;
use prost::Message;

use crate::cli::error::CliError;

/// Bytes of one event; Bazel writes none that is nearly as large.
const MAX_EVENT: u64 = 64 << 20;
/// Bytes that a length takes at most.
const MAX_LENGTH: usize = 10;

/// The facts about an invocation that its build events tell.
pub struct Heard {
    /// Whether it completed, and which tests failed.
    pub account: Account,
    /// The instance that its tests ran in; `None`: Bazel was told none.
    pub instance: Option<String>,
}

/// Reads the whole file of events.
pub fn heard(events: &Path, invocation: &str) -> Result<Heard, CliError> {
    let failed = |why: String| {
        let name = events.display();
        CliError::answered(format!("what Bazel wrote to {name} cannot be read: {why}"))
    };
    let file = File::open(events).map_err(|error| failed(error.to_string()))?;
    let mut source = BufReader::new(file);
    let mut build = Build::new("", invocation, Limits::default());
    let mut failed_runs = FailedRuns::default();
    while let Some(event) = next(&mut source).map_err(failed)? {
        build.apply(&KeptEvent::Bazel(Box::new(event)));
        build.take_attempts().iter().for_each(|it| failed_runs.take(&it.attempt));
    }
    let facts = build.known();
    Ok(Heard { account: Account::of(facts, &failed_runs), instance: instance(&facts.options) })
}

/// The value that counted of `--remote_instance_name`: the last one, also where rc files give it.
fn instance(options: &Options) -> Option<String> {
    const NAME: &str = "--remote_instance_name=";
    let of =
        |all: &[String]| all.iter().rev().find_map(|it| it.strip_prefix(NAME)).map(str::to_owned);
    of(&options.effective).or_else(|| of(&options.explicit)).filter(|it| !it.is_empty())
}

fn next(source: &mut impl Read) -> Result<Option<BuildEvent>, String> {
    let Some(length) = length(source)? else { return Ok(None) };
    if length > MAX_EVENT {
        return Err(format!("an event of {length} bytes"));
    }
    let mut bytes = Vec::new();
    let read = source.take(length).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 != length {
        return Err("it is cut short".to_owned());
    }
    BuildEvent::decode(bytes.as_slice()).map(Some).map_err(|error| error.to_string())
}

/// Reads a length of seven bits a byte, the lowest first; `None`: the file has ended.
fn length(source: &mut impl Read) -> Result<Option<u64>, String> {
    let mut length = 0_u64;
    for place in 0..MAX_LENGTH {
        let mut byte = [0];
        match source.read(&mut byte).map_err(|error| error.to_string())? {
            0 if place == 0 => return Ok(None),
            0 => return Err("it is cut short".to_owned()),
            _ => {}
        }
        length |= u64::from(byte[0] & 0x7f).checked_shl(7 * place as u32).unwrap_or(0);
        if byte[0] & 0x80 == 0 {
            return Ok(Some(length));
        }
    }
    Err("a length that is none".to_owned())
}

#[cfg(test)]
mod tests {
    use kiln_protos::bep;

    use super::*;

    fn written(events: &[BuildEvent]) -> Vec<u8> {
        events.iter().flat_map(Message::encode_length_delimited_to_vec).collect()
    }

    fn finished(code: i32) -> BuildEvent {
        let exit_code = Some(bep::build_finished::ExitCode { name: "X".to_owned(), code });
        let finished = bep::BuildFinished { exit_code, ..Default::default() };
        BuildEvent {
            payload: Some(bep::build_event::Payload::Finished(finished)),
            last_message: true,
            ..Default::default()
        }
    }

    fn read(bytes: &[u8]) -> Result<Account, CliError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        heard(file.path(), "id").map(|it| it.account)
    }

    #[test]
    fn a_file_of_events_says_how_it_ended() {
        assert_eq!(read(&written(&[finished(3)])).unwrap(), Account::default());
        let why = read(&written(&[finished(8)])).unwrap().incomplete;
        assert_eq!(why.as_deref(), Some("it ended with X (8)"));
        let none = read(&[]).unwrap().incomplete;
        assert_eq!(none.as_deref(), Some("its build events have not ended"));
    }

    #[test]
    fn the_instance_is_that_of_the_tests() {
        let options = |all: &[&str]| Options {
            effective: all.iter().map(|it| (*it).to_owned()).collect(),
            ..Options::default()
        };
        let all = ["--remote_instance_name=a", "--jobs=2", "--remote_instance_name=team/x"];
        assert_eq!(instance(&options(&all)).as_deref(), Some("team/x"));
        assert_eq!(instance(&options(&["--remote_instance_name="])), None);
    }

    #[test]
    fn a_file_that_is_cut_or_garbled_is_refused() {
        let whole = written(&[finished(3)]);
        for bytes in [&whole[..whole.len() - 1], &[0xff; 20], &[0xff, 0xff, 0xff, 0xff, 0x7f]] {
            assert!(read(bytes).is_err());
        }
    }
}
