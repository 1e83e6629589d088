//! Whether there is room for one more rollout: in the server, and at its place.

use super::Control;
use super::asked::Start;
use super::error::ControlError;
use super::fit::Fit;
use super::store::{MAX_ACTIVE, MAX_WATCHED};

impl Control {
    /// Errors: no further rollout can be driven. Those that have ended are watched for a day, and keep nobody from
    /// beginning until there are very many.
    pub(super) async fn has_room(&self) -> Result<(), ControlError> {
        let watched = self.store.active().await?;
        if watched.len() < MAX_ACTIVE {
            return Ok(());
        }
        let heads = self.store.heads(&watched).await?;
        let run = heads.iter().flatten().filter(|head| !head.ended).count();
        if run < MAX_ACTIVE && watched.len() + MAX_ACTIVE < MAX_WATCHED {
            return Ok(());
        }
        let ended = watched.len() - run;
        Err(ControlError::Refused(format!(
            "{run} rollouts run and {ended} ended within a day, which is as many as are driven"
        )))
    }

    /// Sees to it that only one rollout goes forward at a place.
    pub(super) async fn make_room(
        &self,
        newest: &str,
        ask: &Start,
        fit: &Fit,
    ) -> Result<(), ControlError> {
        if self.store.head(newest).await?.is_none_or(|(head, _)| head.ended) {
            return Ok(());
        }
        if !ask.supersede && !self.gives_way(newest, ask, fit).await? {
            let (place, id) = (ask.environment.clone(), newest.to_owned());
            return Err(ControlError::Busy { place, id });
        }
        // While it runs, what serves now may not be what serves when it has returned.
        if fit.sets.is_some() {
            return Err(ControlError::Refused(format!(
                "of two sets it is known which one serves when {newest} has ended: abort it, and start then"
            )));
        }
        self.supersede(newest, &format!("{}, by {}", ask.release, ask.by)).await
    }

    /// Whether a rollout that runs gives way to a newer release because the declaration of that says so. A drill does not,
    /// and none begins so.
    async fn gives_way(&self, newest: &str, ask: &Start, fit: &Fit) -> Result<bool, ControlError> {
        if !fit.declared.driving.supersede || ask.drill {
            return Ok(false);
        }
        let runs = self.store.rollout(newest).await?;
        // Where nobody knows when one of them was made, none is newer.
        let is_newer = runs.made.zip(fit.made).is_some_and(|(before, made)| made > before);
        Ok(runs.drill.is_none() && is_newer)
    }
}
