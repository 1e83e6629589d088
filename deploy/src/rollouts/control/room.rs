//! Whether there is room for one more rollout: in the server, and at its place.

use super::Control;
use super::asked::Start;
use super::error::ControlError;
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

    /// Sees to it that only one rollout goes forward at a place. `beside`: it is of two sets of targets.
    pub(super) async fn make_room(
        &self,
        newest: &str,
        ask: &Start,
        beside: bool,
    ) -> Result<(), ControlError> {
        let ended = self.store.head(newest).await?.is_none_or(|(head, _)| head.ended);
        match (ended, ask.supersede) {
            (true, _) => Ok(()),
            // While it runs, what serves now may not be what serves when it has returned.
            (false, true) if beside => Err(ControlError::Refused(format!(
                "of two sets it is known which one serves when {newest} has ended: abort it, and start then"
            ))),
            (false, true) => {
                self.supersede(newest, &format!("{}, by {}", ask.release, ask.by)).await
            }
            (false, false) => {
                Err(ControlError::Busy { place: ask.environment.clone(), id: newest.to_owned() })
            }
        }
    }
}
