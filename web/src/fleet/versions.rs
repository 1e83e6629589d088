//! Versions by their digests, and the releases that are them.

use std::collections::{BTreeMap, BTreeSet};

use kiln_deploy::catalog::CatalogEntry;
use kiln_deploy::fleet::Listed;
use kiln_deploy::oci::ContentDigest;

use crate::error::WebError;
use crate::state::WebState;

/// The instance whose releases hosts run: that of the environments, where there are any.
pub fn instance(state: &WebState) -> String {
    state.promotion.as_ref().map(|it| it.pipeline().instance.clone()).unwrap_or_default()
}

/// A release that is this version, and that nobody has rejected.
pub async fn release(state: &WebState, version: &ContentDigest) -> Result<CatalogEntry, WebError> {
    let found = state.releases.of_manifest(&instance(state), version).await?;
    let is_rejected = !found.is_empty();
    found.into_iter().find(|it| it.rejected.is_none()).ok_or_else(|| {
        let what = if is_rejected { "was rejected" } else { "is not here" };
        WebError::not_found(format!("the release {version} {what}"), "Nothing of it is given out.")
    })
}

/// What releases are called that these agents run, or were told to run.
pub async fn names(
    state: &WebState,
    agents: &[Listed],
) -> Result<BTreeMap<ContentDigest, Vec<String>>, WebError> {
    let told = agents.iter().filter_map(|it| it.order.as_ref().map(|it| &it.version));
    let running = agents.iter().filter_map(|it| it.agent.status.running.as_ref());
    let versions: BTreeSet<_> = told.chain(running).collect();
    let (mut names, instance) = (BTreeMap::new(), instance(state));
    for version in versions {
        let found = state.releases.of_manifest(&instance, version).await?;
        let called = found.iter().map(|it| it.release.name.to_string()).collect();
        names.insert(version.clone(), called);
    }
    Ok(names)
}
