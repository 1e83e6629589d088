//! Who of a run that failed affects what failed: each change is asked about on top of those before it, as the run was put
//! together. Whoever changes nothing that goes into a target is not at fault for it.

use std::collections::BTreeSet;

use super::work::Tools;
use crate::queue::git::{GitError, Slot};
use crate::queue::{ChangeId, Commit};

/// The largest run of which is asked what its changes affect: to cut larger ones costs less.
const MAX_ASKED: usize = 40;

impl Tools {
    /// `steps`: members with the commit that ends with each, in order on top of `base`. Nothing where nobody looks, or it
    /// is not worth it.
    pub async fn affecting(
        &self,
        slot: &Slot,
        base: &Commit,
        steps: &[(ChangeId, Commit)],
        failed: &BTreeSet<String>,
    ) -> Result<Option<BTreeSet<ChangeId>>, GitError> {
        let Some(impact) = &self.impact else { return Ok(None) };
        if failed.is_empty() || !(2..=MAX_ASKED).contains(&steps.len()) {
            return Ok(None);
        }
        let (mut all, mut before) = (BTreeSet::new(), base);
        for (id, commit) in steps {
            self.repository.check_out(slot, commit).await?;
            let affected = impact.affected(slot, before, commit).await?;
            // Of whom it is not known everybody has to think the worst.
            if affected.is_none_or(|it| !it.is_disjoint(failed)) {
                all.insert(*id);
            }
            before = commit;
        }
        Ok(Some(all))
    }
}
