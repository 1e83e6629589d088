//! Whether what was signed about a release still counts. A key may be revoked in the middle, so it is asked again and again,
//! beside the rounds: a slow store holds up none of them.

use std::time::Duration;

use kiln_net::causes::chain;
use kiln_net::counts::duration;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Control;
use super::kept::Rollout;
use crate::rollouts::machine::Millis;
use crate::rollouts::parts::Unverified;

/// How often it is asked.
const EACH: Millis = 60_000;
/// How long it may take until somebody has answered, together with the wait for room.
const LIMIT: Duration = Duration::from_secs(60);
/// How many questions in a row nobody answers when the rollout is held: a restart of a store is over by then.
const UNANSWERED: u32 = 2;

/// What is known of the signatures of a release.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Trust {
    /// Nobody has said anything yet.
    #[default]
    Unknown,
    /// A trusted key has signed what has this name now.
    Confirmed,
    Lost(Unverified),
}

/// What is known of the signatures of one release while somebody drives its rollout.
#[derive(Default)]
pub struct Checking {
    begun: Millis,
    running: Option<Running>,
    trust: Trust,
    /// Questions in a row that nobody has answered.
    unanswered: u32,
}

/// A question that goes on for as long as this is there. Its answer: what is known then; errors: why nobody has said
/// anything, in words.
struct Running {
    task: JoinHandle<()>,
    answer: oneshot::Receiver<Result<Trust, String>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    fn begin(control: &Control, rollout: &Rollout) -> Self {
        let (answered, answer) = oneshot::channel();
        let (releases, room) = (control.parts.releases.clone(), control.checks.clone());
        let (release, environment) = (rollout.release.clone(), rollout.place.environment.clone());
        let task = tokio::spawn(async move {
            let verify = async {
                // Nobody closes it.
                let _room = room.acquire_owned().await;
                // Where the release stands is for promotion to say.
                releases.verify(&release, &environment, false).await
            };
            let said = match timeout(LIMIT, verify).await {
                Ok(Ok(verified)) => Ok(verified.map_or_else(Trust::Lost, |_| Trust::Confirmed)),
                Ok(Err(error)) => Err(chain(&*error)),
                Err(_) => Err(format!("no answer within {}", duration(LIMIT))),
            };
            // Whoever asked may be gone.
            let _ = answered.send(said);
        });
        Self { task, answer }
    }
}

impl Checking {
    /// Returns what is known, and asks anew where that was long ago.
    pub fn trust(&mut self, control: &Control, rollout: &Rollout, now: Millis) -> &Trust {
        match self.running.as_mut().map(|it| it.answer.try_recv()) {
            Some(Err(TryRecvError::Empty)) => return &self.trust,
            Some(Ok(said)) => self.take(said, rollout),
            Some(Err(TryRecvError::Closed)) => self.take(Err("it broke off".to_owned()), rollout),
            None => {}
        }
        self.running = None;
        if now >= self.begun.saturating_add(EACH) {
            self.begun = now;
            self.running = Some(Running::begin(control, rollout));
        }
        &self.trust
    }

    /// Takes in what was said. What nobody answers changes nothing at first, and what was found out holds until somebody says
    /// something else.
    fn take(&mut self, said: Result<Trust, String>, rollout: &Rollout) {
        match said {
            Ok(trust) => (self.trust, self.unanswered) = (trust, 0),
            Err(error) => {
                let (id, text) = (&rollout.id, "it is not known whether the release is signed");
                tracing::warn!(rollout = id, error, "{text}");
                self.unanswered = self.unanswered.saturating_add(1);
                if self.unanswered >= UNANSWERED && !matches!(self.trust, Trust::Lost(_)) {
                    let release = &rollout.release;
                    let why = format!("nobody can say whether {release} is still signed: {error}");
                    self.trust = Trust::Lost(Unverified::Unconfirmed(why));
                }
            }
        }
    }
}
