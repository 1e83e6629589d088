//! Runs the programs of a recipe, one after the other.

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kiln_net::process::{OutputListener, ProcessError, bare, run_told, words};
use tokio::process::Command;
use tokio::time::Instant;

use super::recipe::{Step, Which};
use crate::stages::{Forms, Secret, masked};

/// Bytes of what a step prints that are kept, from the end on.
const MAX_PRINTED: usize = 1 << 20;
const MAX_SAID: usize = 64 << 10;
/// Characters of what a failed step said that are repeated.
const SHOWN: usize = 400;

/// What all steps of an environment are given.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    pub which: Which<'a>,
    pub kind: &'a str,
    /// Variables that they see of the server's environment.
    pub env: &'a [String],
    pub secrets: &'a BTreeMap<String, Secret>,
    /// What is not to be seen of these.
    pub forms: &'a Forms,
}

#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("{program} ended with {status}: {said}")]
    Failed { program: String, status: ExitStatus, said: String },
}

#[derive(Default)]
struct Heard {
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Heard {
    fn push(&mut self, stderr: bool, data: &[u8]) {
        let (stream, most) = match stderr {
            true => (&mut self.err, MAX_SAID),
            false => (&mut self.out, MAX_PRINTED),
        };
        stream.extend_from_slice(data);
        if stream.len() > 2 * most {
            stream.drain(..stream.len() - most);
        }
    }
}

fn command(step: &Step, given: &Given<'_>) -> Command {
    let mut command = bare(&step.argv, given.env);
    command
        .env("KILN_PREVIEW", given.which.name)
        .env("KILN_PREVIEW_PREFIX", given.which.prefix)
        .env("KILN_PREVIEW_KIND", given.kind)
        .env("KILN_PREVIEW_EXPIRES", (given.which.expires.0 / 1_000).to_string())
        .env("KILN_RUN", given.which.run);
    command.envs(given.secrets.iter().map(|(name, secret)| (name, secret.reveal())));
    command
}

/// Answers what the last of them printed on standard output. `limit`: for all of them.
pub async fn run_steps(
    steps: &[Step],
    given: &Given<'_>,
    limit: Duration,
    told: &OutputListener<'_>,
) -> Result<String, StepError> {
    let end = Instant::now() + limit;
    let mut printed = Vec::new();
    for step in steps {
        let heard = Mutex::new(Heard::default());
        let hears = |stderr: bool, data: &[u8]| {
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(stderr, data);
            told(stderr, data);
        };
        let left = end.saturating_duration_since(Instant::now());
        let input = step.stdin.as_deref().map(str::as_bytes);
        let status = run_told(command(step, given), input, left, &hears).await?;
        let heard = heard.into_inner().unwrap_or_else(PoisonError::into_inner);
        if !status.success() {
            let said = if heard.err.is_empty() { &heard.out } else { &heard.err };
            let said = words(&masked(said, given.forms), SHOWN).replace('\n', " ");
            let program = step.argv.first().cloned().unwrap_or_default();
            return Err(StepError::Failed { program, status, said });
        }
        printed = heard.out;
    }
    Ok(String::from_utf8_lossy(&printed).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Time;

    #[tokio::test]
    async fn steps_run_in_order_until_one_fails() {
        let (secrets, forms) = (BTreeMap::new(), Forms::of([&b"s3cret-word"[..]]).unwrap());
        let which = Which { name: "kiln-a-1", prefix: "kiln-a-", run: "r", expires: Time(9_000) };
        let given = Given { which, kind: "k", env: &[], secrets: &secrets, forms: &forms };
        let nobody = |_: bool, _: &[u8]| {};
        let minute = Duration::from_secs(60);
        let steps = [
            Step::new(["sh", "-c", "echo first"]),
            Step::new(["cat"]).reading("read".to_owned()),
            Step::new(["sh", "-c", "echo $KILN_PREVIEW $KILN_PREVIEW_EXPIRES $KILN_RUN"]),
        ];
        let printed = run_steps(&steps, &given, minute, &nobody).await.unwrap();
        assert_eq!(printed, "kiln-a-1 9 r\n");
        let bad = [Step::new(["sh", "-c", "echo why s3cret-word >&2; exit 4"]), steps[0].clone()];
        let error = run_steps(&bad, &given, minute, &nobody).await.unwrap_err().to_string();
        assert_eq!(error, "sh ended with exit status: 4: why ***");
        let slow = [Step::new(["sleep", "0.2"]), Step::new(["sleep", "600"])];
        let ran = run_steps(&slow, &given, Duration::from_millis(400), &nobody).await;
        assert!(matches!(ran, Err(StepError::Process(ProcessError::Slow { .. }))), "{ran:?}");
    }
}
