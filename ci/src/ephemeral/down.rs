//! Takes environments down, each by one server at a time, until nothing of it is left.

use std::time::Duration;

use kiln_net::Backoff;
use kiln_net::causes::chain;

use super::machine::Preview;
use super::previews::{Kind, PreviewError, Previews, SLACK, given};
use super::steps::run_steps;

/// How long is waited after an environment could not be taken down.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(900));

impl Previews {
    /// Takes one down now, if it is to go and nobody else does. Answers it as it is then.
    pub async fn take_down(&self, name: &str) -> Result<Option<Preview>, PreviewError> {
        let Some(known) = self.kept.get(name).await? else { return Ok(None) };
        let kind = self.kind(&known.kind).ok();
        let now = self.now();
        let limit = kind.map(|it| it.down_limit).unwrap_or_default();
        let until = now.plus(limit).plus(SLACK);
        let begin = |it: &mut Preview| it.begin_down(&self.who, until, now);
        let Some((preview, begun)) = self.kept.change(name, begin).await? else { return Ok(None) };
        if begun.is_err() {
            return Ok(Some(preview));
        }
        let Some(kind) = kind else {
            return self.not_down(name, "its kind is not listed any more: list it again").await;
        };
        match self.torn_down(&preview, kind).await {
            Ok(()) => {
                let now = self.now();
                let went = self.kept.change(name, |it| it.went(&self.who, now)).await?;
                Ok(went.map(|(preview, _)| preview))
            }
            Err(why) => self.not_down(name, &why).await,
        }
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
