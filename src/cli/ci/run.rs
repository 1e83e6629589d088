//! `kiln ci run`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use clap::Args;
use clap::builder::ValueParser;
use kiln_ci::gate::GateAnswer;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::command_line::{CommandLine, complete};
use super::told;
use crate::cli::api::Api;
use crate::cli::error::{CliError, Exit};
use crate::cli::say::say;
use crate::cli::suite::asking::{Asking, waited};
use crate::cli::suite::changed::{Changed, ChangedOptions};
use crate::cli::suite::gate::report;
use crate::cli::target::Target;
use crate::config::parse_time;
use kiln_web::json::Gate;

/// Bazel's exit code when everything was built and some test failed.
const TESTS_FAILED: u8 = 3;
/// The variable by which a merge queue names the file that is to say what failed, one name a line.
const NAMES_FAILED: &str = "KILN_QUEUE_FAILED";
/// What a merge queue is told by exit codes where Bazel's would speak against a change: nobody has decided whether a failure is
/// its fault, and nothing could be tested.
const UNDECIDED: u8 = 6;
const TEMPFAIL: u8 = 75;
/// Bazel's exit codes when it was interrupted or found another one at work, and when this machine or a service failed: no change
/// does that.
const ENVIRONMENT: [u8; 6] = [8, 9, 36, 38, 39, 45];
/// Bazel's exit codes when a host elsewhere failed, when memory was short, when remote execution failed, and when Bazel itself did.
/// A change may be why: an action of it can run nowhere.
const UNEXPLAINED: [u8; 4] = [32, 33, REMOTE, 37];
const REMOTE: u8 = 34;
/// The number that shells add to that of the signal which ended a program, for its exit code.
const SIGNALLED: u8 = 128;
const LAST_SIGNAL: u8 = 64;

/// Run `bazel test`, and let it pass where every failure is masked.
///
/// Everything that Bazel prints is passed on, and so are signals. It ends with Bazel's own exit code, but for 3
/// (some test failed): that becomes 0 where `kiln tests gate` says green, so where each failure has passed since
/// with equal inputs and everything else completed. Where the server cannot be asked the exit code stays 3.
///
/// The tests have to run on the server that is asked (--remote_executor), in its instance (--instance, else what Bazel was
/// told with --remote_instance_name); an invocation id is added. In the check of a merge queue it names the tests whose
/// failures count in the file KILN_QUEUE_FAILED, and what is nobody's fault for sure is no failure like others.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln ci run -- bazel test //...
  kiln ci run --base origin/main --wait 15m -- bazel test --config=ci //...

Exit codes:
  0  all tests passed, or all failures are masked
  n  as Bazel says; in the check of a merge queue (KILN_QUEUE_FAILED is set) 6 where nothing has decided what a failure
     comes from, and 75 where a machine or a service failed")]
pub struct Run {
    /// How long to wait for shadow runs
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = ValueParser::from(parse_time))]
    wait: Duration,

    #[command(flatten)]
    changed: ChangedOptions,

    /// The command line of Bazel
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Run {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let queue = std::env::var_os(NAMES_FAILED);
        let is_queued = queue.is_some();
        self.tested(target, queue).await.map_err(|error| to_a_queue(error, is_queued))
    }

    /// `queue`: the file in which a merge queue reads what failed; `None`: this is no check of one.
    async fn tested(self, target: &Target, queue: Option<OsString>) -> Result<Exit, CliError> {
        let directory = tempfile::tempdir().map_err(|error| CliError::of_machine(&error))?;
        let events = directory.path().join("events");
        let line = complete(&self.command, &invocation()?, &events).ok_or_else(|| {
            CliError::usage("what follows `--` is no `bazel test`")
                .hint("for example: kiln ci run -- bazel test //...")
        })?;
        // Before anything runs: a list of changes that cannot be read is known at once.
        let changed = Changed::read(&self.changed, &line.bazel).await?;
        let mut signals = Signals::listen()?;
        let status = run(&line, &mut signals).await?;
        let (code, is_queued) = (code_of(status), queue.is_some());
        if is_queued && code == REMOTE && !reaches(target).await {
            return Ok(Exit::Code(TEMPFAIL));
        }
        if code != TESTS_FAILED {
            return Ok(Exit::Code(ends(code, None, is_queued)));
        }
        // Who is told to end while it waits has Bazel's own answer, of which nobody has decided anything.
        let judged = tokio::select! {
            judged = judged(target, &line, &changed, self.wait) => judged,
            _ = signals.next() => return Ok(Exit::Code(ends(code, None, is_queued))),
        };
        let verdict = match judged {
            Ok(gate) => {
                if let Some(file) = queue {
                    name_failed(&gate, Path::new(&file));
                }
                Some(decided(&gate))
            }
            Err(error) => {
                say(&format!("kiln: no failure is masked: {}", error.message));
                None
            }
        };
        Ok(Exit::Code(ends(code, verdict, is_queued)))
    }
}

/// Whether the server answers, be it that it refuses.
async fn reaches(target: &Target) -> bool {
    let Ok(api) = Api::new(target) else { return true };
    api.get("/status").await.map_or_else(|error| !error.passing, |_| true)
}

/// What it ends with where Bazel ended with `code` and the gate said so of what failed; `None`: it was not asked, or did not answer.
/// The check of a merge queue tells apart what is the fault of a change, what nobody has decided, and what says nothing of it.
fn ends(code: u8, verdict: Option<GateAnswer>, is_queued: bool) -> u8 {
    match verdict {
        Some(GateAnswer::Green) => 0,
        Some(GateAnswer::Red) => code,
        _ if !is_queued => code,
        _ if code == TESTS_FAILED || UNEXPLAINED.contains(&code) => UNDECIDED,
        _ if ENVIRONMENT.contains(&code) || is_signalled(code) => TEMPFAIL,
        _ => code,
    }
}

fn is_signalled(code: u8) -> bool {
    (SIGNALLED + 1..=SIGNALLED + LAST_SIGNAL).contains(&code)
}

/// What the gate has found of failures. An invocation that did not complete is red at once, whatever becomes of these: it is
/// undecided unless one of them counts.
fn decided(gate: &Gate) -> GateAnswer {
    let counts = gate.failures.iter().any(|it| it.finding.answer() == GateAnswer::Red);
    if gate.incomplete.is_some() && !counts { GateAnswer::Undecided } else { gate.verdict }
}

/// The error with which it ends where it could not do its work. To a merge queue a machine that cannot says nothing of a change.
fn to_a_queue(error: CliError, is_queued: bool) -> CliError {
    let code = match error.code {
        CliError::MACHINE if is_queued => TEMPFAIL,
        code => code,
    };
    CliError { code, ..error }
}

/// Tells a merge queue, in the file that it reads, the tests whose failures count. Where an invocation did not complete nobody
/// knows what else would have failed, so none is named.
fn name_failed(gate: &Gate, file: &Path) {
    if gate.incomplete.is_some() || gate.verdict == GateAnswer::Green {
        return;
    }
    let counts = gate.failures.iter().filter(|it| !it.masked);
    let labels: BTreeSet<&str> = counts.map(|it| it.test.label.as_str()).collect();
    let names: String = labels.into_iter().flat_map(|it| [it, "\n"]).collect();
    let opened = OpenOptions::new().append(true).create(true).open(file);
    if let Err(error) = opened.and_then(|mut file| file.write_all(names.as_bytes())) {
        say(&format!("kiln: what failed cannot be named in {}: {error}", file.display()));
    }
}

/// Asks the gate about the invocation and returns its answer. The report goes to stderr, as Bazel's
/// words do.
async fn judged(
    target: &Target,
    line: &CommandLine,
    changed: &Changed,
    wait: Duration,
) -> Result<Gate, CliError> {
    let heard = told::heard(&line.events, &line.invocation)?;
    let api = Api::new(target)?;
    // Who names none means the one that the tests ran in.
    let own = target.names_instance.then_some(target.instance.as_str());
    let asking = Asking {
        api: &api,
        instance: own.or(heard.instance.as_deref()).unwrap_or_default(),
        invocation: &line.invocation,
        account: Some(heard.account),
        changed,
    };
    let gate = waited(&asking, wait).await?;
    say(report(&gate).trim_end());
    Ok(gate)
}

/// Runs the command line, with this process's own streams, until it ends by itself.
async fn run(line: &CommandLine, signals: &mut Signals) -> Result<ExitStatus, CliError> {
    let Some((program, arguments)) = line.arguments.split_first() else {
        return Err(CliError::usage("there is no command behind `--`"));
    };
    let child = Command::new(program).args(arguments).spawn().map_err(|error| {
        let program = Path::new(program).display();
        CliError::machine(format!("{program} cannot be started: {error}"))
            .hint("is it a program, and in PATH?")
    });
    let mut child = child?;
    loop {
        tokio::select! {
            ended = child.wait() => return ended.map_err(|error| CliError::of_machine(&error)),
            signal = signals.next() => pass_on(&child, signal),
        }
    }
}

/// Signals that ask for the end, which Bazel is to hear.
struct Signals([(Signal, tokio::signal::unix::Signal); 3]);

impl Signals {
    fn listen() -> Result<Self, CliError> {
        let failed = |error| CliError::machine(format!("cannot wait for signals: {error}"));
        let listen = |kind| signal(kind).map_err(failed);
        Ok(Self([
            (Signal::SIGINT, listen(SignalKind::interrupt())?),
            (Signal::SIGTERM, listen(SignalKind::terminate())?),
            (Signal::SIGHUP, listen(SignalKind::hangup())?),
        ]))
    }

    async fn next(&mut self) -> Signal {
        let [one, two, three] = &mut self.0;
        tokio::select! {
            _ = one.1.recv() => one.0,
            _ = two.1.recv() => two.0,
            _ = three.1.recv() => three.0,
        }
    }
}

/// A terminal sends Ctrl-C to all that run in it: Bazel has heard it, and would take a second one for
/// impatience.
fn pass_on(child: &Child, signal: Signal) {
    use std::io::IsTerminal;
    if signal == Signal::SIGINT && std::io::stdin().is_terminal() {
        return;
    }
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // It may have ended just now.
        let _ = kill(Pid::from_raw(id), signal);
    }
}

fn code_of(status: ExitStatus) -> u8 {
    let signalled = || i32::from(SIGNALLED) + status.signal().unwrap_or(0);
    let code = status.code().unwrap_or_else(signalled);
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// A random id, as Bazel makes them: a UUID of version 4.
fn invocation() -> Result<String, CliError> {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 16];
    let filled = ring::rand::SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| CliError::machine("no random bytes from the kernel"))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_invocation_has_an_id_of_its_own() {
        let (one, other) = (invocation().unwrap(), invocation().unwrap());
        assert_ne!(one, other);
        assert_eq!((one.len(), &one[14..15]), (36, "4"));
    }

    #[test]
    fn a_merge_queue_is_told_what_speaks_against_nobody() {
        let (green, red) = (Some(GateAnswer::Green), Some(GateAnswer::Red));
        for undecided in [Some(GateAnswer::Undecided), None] {
            assert_eq!((ends(3, undecided, true), ends(3, undecided, false)), (6, 3));
        }
        for is_queued in [true, false] {
            assert_eq!((ends(3, green, is_queued), ends(3, red, is_queued)), (0, 3));
            assert_eq!((ends(0, None, is_queued), ends(1, None, is_queued)), (0, 1));
        }
        assert_eq!((ends(34, None, true), ends(34, None, false)), (6, 34));
        for of_the_machine in [8, 39, 137] {
            let codes = [true, false].map(|is_queued| ends(of_the_machine, None, is_queued));
            assert_eq!(codes, [75, of_the_machine]);
        }
        let machine = [true, false].map(|it| to_a_queue(CliError::machine("no disk"), it).code);
        assert_eq!((machine, to_a_queue(CliError::usage("no"), true).code), ([75, 5], 2));
        assert_eq!(GateAnswer::Undecided.exit_code(), UNDECIDED);
    }

    #[test]
    fn what_did_not_complete_speaks_against_a_change_only_by_a_failure_that_counts() {
        for (finding, answer) in [("open", GateAnswer::Undecided), ("broken", GateAnswer::Red)] {
            let failure = json!({
                "label": "//:a", "finding": finding, "masked": false, "text": "", "straight": 1, "passes": 0
            });
            let gate = json!({
                "invocation": "id", "verdict": "red", "exit_code": 1, "pending": false, "told": true,
                "incomplete": "//:b was not run", "failures": [failure]
            });
            let gate: Gate = serde_json::from_value(gate).unwrap();
            assert_eq!(decided(&gate), answer);
            assert_eq!(decided(&Gate { incomplete: None, ..gate }), GateAnswer::Red);
        }
    }

    #[test]
    fn a_signal_is_an_exit_code_as_in_a_shell() {
        assert_eq!(code_of(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(code_of(ExitStatus::from_raw(15)), 143);
    }
}
