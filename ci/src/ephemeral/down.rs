//! Lets environments go and takes them down, each by one server at a time, until nothing of it is left.

use std::time::Duration;

use kiln_net::Backoff;
use kiln_net::causes::chain;

use super::kept::TRIES;
use super::machine::{Phase, Preview, Refused};
use super::previews::{Kind, PreviewError, Previews, SLACK, given};
use super::steps::run_steps;
use super::turns::Working;
use crate::storage::StorageError;

/// How long is waited after an environment could not be taken down.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(900));

impl Previews {
    /// It is to be taken down, and who brought it up does so no more.
    pub async fn give_up(&self, name: &str, why: &str) -> Result<(), StorageError> {
        let now = self.now();
        self.kept
            .change(name, |it| {
                it.let_go(why, now);
                it.release(&self.who);
            })
            .await?;
        self.wake.notify_one();
        Ok(())
    }

    /// Lets go of what a run has of a kind, or of all that it has. Answers their names.
    pub async fn let_go(
        &self,
        run: &str,
        kind: Option<&str>,
        why: &str,
    ) -> Result<Vec<String>, StorageError> {
        let is_it = |it: &Preview| it.run == run && kind.is_none_or(|kind| it.kind == kind);
        let all: Vec<_> = self.kept.all().await?.into_iter().filter(is_it).collect();
        let mut names = Vec::new();
        for it in all.into_iter().filter(|it| it.phase != Phase::Gone) {
            let now = self.now();
            self.kept.change(&it.name, |it| it.let_go(why, now)).await?;
            names.push(it.name);
        }
        self.wake.notify_one();
        Ok(names)
    }

    /// The same of one by its name. `None`: there is none.
    pub async fn let_one_go(&self, name: &str, why: &str) -> Result<Option<Preview>, StorageError> {
        let now = self.now();
        let changed = self.kept.change(name, |it| it.let_go(why, now)).await?;
        self.wake.notify_one();
        Ok(changed.map(|(preview, ())| preview))
    }

    /// Takes one down now, if it is to go and nobody else does. Answers it as it is then.
    pub async fn take_down(&self, name: &str) -> Result<Option<Preview>, PreviewError> {
        let Some(known) = self.kept.get(name).await? else { return Ok(None) };
        // What stays and what is gone is nobody's turn.
        if self.begin_down(&mut known.clone()).is_err() {
            return Ok(Some(known));
        }
        let Some(working) = self.turns.take(name).await? else { return Ok(Some(known)) };
        let taken = self.taken_down(name, &working).await;
        working.end().await;
        taken
    }

    async fn taken_down(
        &self,
        name: &str,
        working: &Working,
    ) -> Result<Option<Preview>, PreviewError> {
        let Some((preview, begun)) = self.begun(name, working).await? else { return Ok(None) };
        if !begun {
            return Ok(Some(preview));
        }
        let Ok(kind) = self.kind(&preview.kind) else {
            return self.not_down(name, "its kind is not listed any more: list it again").await;
        };
        match working.doing(Box::pin(self.torn_down(&preview, kind))).await {
            Some(Ok(())) => {
                let now = self.now();
                let went = self.kept.change(name, |it| it.went(&self.who, now)).await?;
                Ok(went.map(|(preview, _)| preview))
            }
            Some(Err(why)) => self.not_down(name, &why).await,
            // Another server says what becomes of it.
            None => Ok(self.kept.get(name).await?),
        }
    }

    fn begin_down(&self, preview: &mut Preview) -> Result<(), Refused> {
        let limit = self.kind(&preview.kind).map(|it| it.down_limit).unwrap_or_default();
        let now = self.now();
        preview.begin_down(&self.who, now.plus(limit).plus(SLACK), now)
    }

    /// Notes that it goes, and who works on it. Answers it, and whether that is this server.
    async fn begun(
        &self,
        name: &str,
        working: &Working,
    ) -> Result<Option<(Preview, bool)>, StorageError> {
        for _ in 0..TRIES {
            let Some((mut preview, version)) = self.kept.read(name).await? else { return Ok(None) };
            // Behind the reading: whoever takes it over after this changes what was read, and nothing is written over that.
            if !working.is_mine().await || self.begin_down(&mut preview).is_err() {
                return Ok(Some((preview, false)));
            }
            if self.kept.swap(&preview, version).await? {
                return Ok(Some((preview, true)));
            }
        }
        Err(StorageError::Conflict(name.to_owned()))
    }

    async fn torn_down(&self, preview: &Preview, kind: &Kind) -> Result<(), String> {
        let unlocked = self.unlocked(&preview.kind).await.map_err(|error| chain(&error))?;
        let which = self.which(preview).await.map_err(|error| chain(&error))?;
        let recipe = kind.how.recipe(&which);
        let given = given(preview, kind, which, &unlocked);
        let nobody = |_: bool, _: &[u8]| {};
        let ran = run_steps(&recipe.down, &given, kind.down_limit, &nobody).await;
        ran.map(drop).map_err(|error| chain(&error))
    }

    async fn not_down(&self, name: &str, why: &str) -> Result<Option<Preview>, PreviewError> {
        let now = self.now();
        let failed = |it: &mut Preview| {
            let pause = AGAIN.pause(it.failures.saturating_add(1));
            it.did_not_go(&self.who, why, pause, now)
        };
        let Some((preview, tell)) = self.kept.change(name, failed).await? else { return Ok(None) };
        match tell {
            true => self.tell(&preview).await,
            false => tracing::info!(preview = name, why, "an environment is not taken down yet"),
        }
        Ok(Some(preview))
    }

    /// Somebody has to look: it costs, and may be in others' way.
    async fn tell(&self, preview: &Preview) {
        let (name, why, tries) = (&preview.name, &preview.why, preview.failures);
        tracing::error!(
            preview = name,
            why,
            tries,
            "an environment is still up: it cannot be taken down, and is tried again"
        );
        if let Some(teller) = &self.teller
            && let Err(reason) = teller.stuck(preview).await
        {
            tracing::warn!(reason, preview = name, "nobody is told of an environment that stays");
        }
    }
}
