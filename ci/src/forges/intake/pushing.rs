//! A push, which is left with pipelines that may wait for it.

use std::time::Duration;

use kiln_net::causes::chain;

use super::{Accepted, Door, Intake, Rejected, ignored};
use crate::forges::decide::Ignored;
use crate::forges::event::Malformed;
use crate::forges::forge::Kind;
use crate::forges::known::{Names, WINDOW};
use crate::forges::pushes::{Push, read_push};
use crate::model::Time;
use crate::pipelines::control::{Pushed, is_awaited, leave_push};

/// How far the time in a body may be ahead. What is known is kept for an hour longer than deliveries count: the other half
/// of it is for clocks of frontends.
const AHEAD: Duration = Duration::from_secs(30 * 60);

impl Intake {
    /// Leaves a push for whoever drives pipelines, once. One that no pipeline waits for takes no room among those that wait.
    pub(super) async fn pushed(
        &self,
        door: &Door,
        names: &Names,
        body: &[u8],
    ) -> Result<Accepted, Rejected> {
        let now = self.clock.now();
        let kind = door.forge.kind;
        let Some(push) = read_push(kind, body)? else {
            return Ok(ignored(door, &Ignored::NoBranch));
        };
        // GitLab signs the time of the delivery, and who sends its secret token may say whatever it likes.
        if kind != Kind::GitLab {
            timely(&push, now)?;
        }
        let pushed = Pushed {
            forge: door.forge.name.as_str().to_owned(),
            repository: push.repository,
            branch: push.branch.to_string(),
            commit: push.commit.to_string(),
            by: push.by,
        };
        if !is_awaited(&pushed, &self.pipelines.pipelines()) {
            let Pushed { repository, branch, .. } = pushed;
            return Ok(ignored(door, &Ignored::NoPipeline(repository, branch)));
        }
        if door.known.knows(names, now).await? {
            return Ok(Accepted::Known);
        }
        // A delivery asks for this alone: one write says that it was left, and with that acted on.
        let once = door.known.once(names, now);
        match leave_push(self.records.as_ref(), &pushed, now, once).await {
            Ok(true) => Ok(Accepted::Asked("pipelines that wait for this push begin".to_owned())),
            Ok(false) => Ok(Accepted::Known),
            Err(error) => Err(Rejected::Unavailable(chain(&error))),
        }
    }
}

/// What is forgotten by now may be a copy. What is of a time yet to come could be sent again when that has come.
fn timely(push: &Push, now: Time) -> Result<(), Rejected> {
    let malformed = |why: &str| Malformed { event: "push".to_owned(), why: why.to_owned() };
    let at = push.at.ok_or_else(|| malformed("it does not say when it happened"))?;
    if at.since(now) > AHEAD {
        return Err(malformed("the time that it says is yet to come").into());
    }
    match now.since(at) <= WINDOW {
        true => Ok(()),
        false => Err(Rejected::Late(WINDOW)),
    }
}
