//! `kiln tests next`.

use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Args, ValueEnum, ValueHint};
use kiln_ci::shards;
use kiln_net::Backoff;
use tokio::time::Instant;

use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::say::say;
use crate::cli::target::Target;
use crate::cli::text;
use crate::config::parse_time;
use kiln_web::format;
use kiln_web::json::{PlanNext, PlanTurn};

/// The exit code when nothing is left for this runner. No error has this code.
const NOTHING_LEFT: u8 = 7;
/// How often it is asked whether something is given out again.
const EVERY: Duration = Duration::from_secs(2);
/// How often a server that cannot be reached or cannot answer now is asked, and what is waited in between.
const TRIES: u32 = 5;
const AGAIN: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(4));
/// Variables that CI systems set anew when a job is run again.
const ATTEMPTS: [&str; 5] = [
    "GITHUB_RUN_ATTEMPT",
    "BUILDKITE_RETRY_COUNT",
    "CI_JOB_ID",
    "CIRCLE_WORKFLOW_JOB_ID",
    "SYSTEM_JOBATTEMPT",
];

/// Take the next piece of a plan that was put on the server
///
/// `kiln tests shards … --keep ID` puts it there. Runners take pieces until nothing is left; who asks has done with
/// the piece that it got before. A job that is run again under the same --runner with another --attempt gets exactly
/// the pieces that it had, and then what nobody has had.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln tests shards --durations .test_durations --shards 40 --keep \"$RUN_ID\"   # once, or by each runner
  failed=0
  while words=$(kiln tests next --plan \"$RUN_ID\" --runner \"$NODE\" --format pytest)
        code=$?; [ $code = 0 ]; do
    eval \"pytest $words\" || failed=1
  done
  if [ $code = 7 ]; then exit $failed; else exit $code; fi

Exit codes:
  0  there is a piece, and it was printed
  7  nothing is left for this runner
  others are errors: not all tests may have run")]
pub struct Next {
    /// What the plan was put there as
    #[arg(long, value_name = "ID", value_hint = ValueHint::Other)]
    plan: String,
    /// This runner: a name that stays the same when its job is run again, such as the index of its node
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    runner: String,
    /// What tells a job that is run again from the one before: any text that is new then [default: what
    /// GITHUB_RUN_ATTEMPT, BUILDKITE_RETRY_COUNT, CI_JOB_ID, CIRCLE_WORKFLOW_JOB_ID or SYSTEM_JOBATTEMPT says]
    #[arg(long, value_name = "TEXT", value_hint = ValueHint::Other)]
    attempt: Option<String>,
    /// How long to wait for pieces of others that may be given out again
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = ValueParser::from(parse_time))]
    wait: Duration,
    /// What to print [default: a name a line]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// For programs
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

/// In whose words a piece is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Bazel,
    Pytest,
    Gtest,
    Junit,
    Nextest,
}

impl From<Format> for shards::Format {
    fn from(it: Format) -> Self {
        match it {
            Format::Bazel => Self::Bazel,
            Format::Pytest => Self::Pytest,
            Format::Gtest => Self::Googletest,
            Format::Junit => Self::Junit,
            Format::Nextest => Self::Nextest,
        }
    }
}

impl Next {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let attempt = match &self.attempt {
            Some(attempt) => attempt.clone(),
            None => attempt()?,
        };
        let api = Api::new(target)?;
        let until = Instant::now() + self.wait.min(Duration::from_secs(24 * 3600));
        loop {
            let turn = PlanTurn {
                instance: target.instance.clone(),
                plan: self.plan.clone(),
                runner: self.runner.clone(),
                attempt: attempt.clone(),
                request: random()?,
            };
            let next = ask(&api, &turn).await?;
            let waits = next.state == "wait" && Instant::now() < until;
            if !waits {
                return self.print(&next);
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    fn print(&self, next: &PlanNext) -> Result<Exit, CliError> {
        let has_piece = next.state == "piece";
        if self.json {
            let json = serde_json::to_string(next);
            let json = json.map_err(|error| CliError::machine(error.to_string()))?;
            text::print(&format!("{json}\n"))?;
        } else if has_piece {
            let hint = "--json takes every name";
            let words = match self.format {
                None => match next.tests.iter().find(|it| it.contains(['\n', '\r'])) {
                    None => next.tests.join("\n"),
                    Some(odd) => {
                        let message = format!("{odd:?} has a line break, and each line is a name");
                        return Err(CliError::usage(message).hint(hint));
                    }
                },
                Some(format) => shards::arguments(format.into(), &next.tests)
                    .map_err(|error| CliError::usage(error.to_string()).hint(hint))?,
            };
            text::write_out(format!("{words}\n").as_bytes())?;
        }
        say(&told(next));
        Ok(if has_piece { Exit::Done } else { Exit::Code(NOTHING_LEFT) })
    }
}

/// Asks for the next piece, again while the server cannot answer: the same request gets the same
/// answer, so that no piece is lost with an answer that was.
async fn ask(api: &Api, turn: &PlanTurn) -> Result<PlanNext, CliError> {
    let mut tried = 1;
    loop {
        match api.post("/tests/plans/next", turn).await {
            Ok(answer) => return api::read(answer),
            Err(error) if error.passing && tried < TRIES => {
                say(&format!("warning: {}", error.message))
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(AGAIN.pause(tried)).await;
        tried += 1;
    }
}

/// The line for people on stderr about the piece that was given, or that nothing is left.
fn told(next: &PlanNext) -> String {
    let all = next.open + next.taken + next.done;
    let Some(piece) = next.piece else {
        return format!(
            "nothing is left of {all} pieces: {} done, {} going on",
            next.done, next.taken
        );
    };
    let seconds = next.expected_s.unwrap_or(0.0);
    let expected = match seconds > 0.0 {
        true => format!(", about {}", format::duration((seconds * 1e9) as u64)),
        false => String::new(),
    };
    let tests = format::counted(next.tests.len() as u64, "test");
    let why = match (&next.instead_of, next.is_repeat) {
        (Some(other), _) => format!("; runner {other} had it and was not heard of again"),
        (None, true) => "; an earlier attempt of this runner had it".to_owned(),
        (None, false) => String::new(),
    };
    format!("piece {piece} of {all}: {tests}{expected}{why}")
}

/// What the CI system says of the attempt. Errors: it says nothing, and a job that is run again would be taken for one
/// that goes on, be given other tests, and turn green without what failed.
fn attempt() -> Result<String, CliError> {
    let said =
        ATTEMPTS.iter().filter_map(|name| std::env::var(name).ok().filter(|it| !it.is_empty()));
    let said: Vec<_> = said.collect();
    if said.is_empty() {
        let message = "nothing tells this job from the same one when it is run again";
        let hint =
            "give --attempt any text that is new then, or none (\"\") where no job is run again";
        return Err(CliError::usage(message).hint(hint));
    }
    Ok(said.join("/"))
}

fn random() -> Result<u64, CliError> {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 8];
    let filled = ring::rand::SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| CliError::machine("no random bytes from the kernel"))?;
    // Numbers in JSON are exact up to here for every reader.
    Ok(u64::from_le_bytes(bytes) >> 11)
}
