//! Finds the build that another one is most likely to be compared with.

use kiln_ci::events::Noted;
use kiln_scheduler::journal::{BuildSummary, Page};

use crate::error::WebError;
use crate::state::WebState;

/// Builds before it that are looked through.
const MAX_LOOKED_AT: usize = 200;

/// The last one before it that was called alike: the same command for the same patterns. Of one that told nothing, the
/// last one of the same tool.
pub async fn previous(
    state: &WebState,
    build: &BuildSummary,
    told: Option<&Noted>,
) -> Option<String> {
    match look(state, build, told).await {
        Ok(previous) => previous,
        Err(error) => {
            // A page says everything else without it.
            tracing::warn!(error = error.message, "it is not known which build came before");
            None
        }
    }
}

async fn look(
    state: &WebState,
    build: &BuildSummary,
    told: Option<&Noted>,
) -> Result<Option<String>, WebError> {
    if let Some(noted) = told {
        let own = &noted.summary;
        let before = state.tests.streams.builds(Some(&noted.place), MAX_LOOKED_AT).await?;
        let alike = before.into_iter().map(|it| it.summary).find(|it| {
            it.stream.instance == own.stream.instance
                && it.command == own.command
                && it.patterns == own.patterns
        });
        return Ok(alike.map(|it| it.stream.invocation));
    }
    if build.first_seq == 0 {
        return Ok(None);
    }
    let page = Page { before: Some(build.first_seq), limit: MAX_LOOKED_AT };
    let alike = state
        .journal
        .builds(page)
        .await?
        .into_iter()
        .find(|it| it.instance_name == build.instance_name && it.tool_name == build.tool_name);
    Ok(alike.map(|it| it.invocation_id))
}
