//! What is there of environments: whether they answer, what differs from what they stand for, and what is left over.

use std::time::Duration;

use kiln_net::process::OutputListener;

use super::machine::Preview;
use super::parity::{Description, Difference, differences};
use super::previews::{Kind, MAX_ASKED, PreviewError, Previews, Unlocked, given};
use super::recipe::{Step, Which, names};
use super::steps::{Given, run_steps};
use crate::model::Time;

/// How long one look may take: a check, a list, a description.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

impl Previews {
    /// Asks whether an environment answers. Errors: it does not, or it could not be asked.
    pub async fn check(
        &self,
        preview: &Preview,
        unlocked: &Unlocked,
        told: &OutputListener<'_>,
    ) -> Result<(), PreviewError> {
        let kind = self.kind(&preview.kind)?;
        let which = self.which(preview).await?;
        let recipe = kind.how.recipe(&which);
        let given = given(preview, kind, which, unlocked);
        let checked = run_steps(&recipe.check, &given, LOOK_LIMIT, told).await;
        let failed = |source| PreviewError::Check { name: preview.name.clone(), source };
        checked.map(drop).map_err(failed)
    }

    /// What differs from what it stands for. `None`: nothing describes environments of its kind.
    pub async fn parity(
        &self,
        preview: &Preview,
        unlocked: &Unlocked,
    ) -> Result<Option<Vec<Difference>>, PreviewError> {
        let kind = self.kind(&preview.kind)?;
        if kind.describe.is_empty() {
            return Ok(None);
        }
        let here = self.described(preview, &preview.name, kind, unlocked).await?;
        let there = self.described(preview, &kind.stands_for, kind, unlocked).await?;
        Ok(Some(differences(&here, &there)))
    }

    /// What differs between an environment and the one that it stands for, for whoever asks by himself: only a few at a
    /// time, and refused before anything is run.
    pub async fn asked_parity(
        &self,
        preview: &Preview,
    ) -> Result<Option<Vec<Difference>>, PreviewError> {
        let Ok(_room) = self.asked.try_acquire() else {
            let why = format!("{MAX_ASKED} others ask what differs now: ask again in a minute");
            return Err(PreviewError::Refused(why));
        };
        let unlocked = self.unlocked(&preview.kind).await?;
        self.parity(preview, &unlocked).await
    }

    async fn described(
        &self,
        preview: &Preview,
        name: &str,
        kind: &Kind,
        unlocked: &Unlocked,
    ) -> Result<Description, PreviewError> {
        let which = Which { name, ..self.which(preview).await? };
        let given = given(preview, kind, which, unlocked);
        let steps = [Step { argv: kind.describe.clone(), stdin: None }];
        let nobody = |_: bool, _: &[u8]| {};
        let printed = run_steps(&steps, &given, LOOK_LIMIT, &nobody).await;
        let name = name.to_owned();
        match printed {
            Ok(printed) => Description::read(&printed)
                .map_err(|source| PreviewError::Description { name, source }),
            Err(source) => Err(PreviewError::Describe { name, source }),
        }
    }

    /// Names of a kind that are there, as its list says; `None`: it has none.
    pub(super) async fn seen(&self, kind_name: &str) -> Result<Option<Vec<String>>, PreviewError> {
        let kind = self.kind(kind_name)?;
        let prefix = self.prefix().await?;
        let nothing = Which { name: "", prefix, run: "", expires: Time(0) };
        let Some(list) = kind.how.recipe(&nothing).list else { return Ok(None) };
        let unlocked = self.unlocked(kind_name).await?;
        let given = Given {
            which: nothing,
            kind: kind_name,
            env: &kind.env,
            secrets: &unlocked.secrets,
            forms: &unlocked.forms,
        };
        let nobody = |_: bool, _: &[u8]| {};
        let printed = run_steps(&[list], &given, LOOK_LIMIT, &nobody).await;
        let failed =
            |source| PreviewError::Check { name: format!("the list of {kind_name}"), source };
        let own = format!("{prefix}{kind_name}-");
        Ok(Some(names(&printed.map_err(failed)?, &own)))
    }
}
