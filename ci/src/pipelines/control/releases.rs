//! Releases begin runs: each that is made, once for each pipeline that waits for it.

use kiln_net::causes::chain;
use kiln_net::panics::caught;

use super::error::ControlError;
use super::happenings::Released;
use super::keys;
use super::start::Start;
use super::store::put;
use super::{Control, Registered};
use crate::pipelines::file::{Trigger, fits};
use crate::pipelines::laid::LayError;

/// The input that such a run gets, if its pipeline has one of this name.
const INPUT: &str = "release";

impl Control {
    /// Begins runs of what was released.
    pub(super) async fn follow(&self) {
        for registered in self.registered().values() {
            for trigger in &registered.declared.triggers {
                let Trigger::Release { names } = trigger else { continue };
                // One that cannot begin holds up no other one.
                let followed = caught(self.follow_one(registered, names)).await;
                let pipeline = &registered.declared.name;
                let key = keys::followed(pipeline, names);
                match followed.unwrap_or_else(|panicked| Err(panicked.into())) {
                    Ok(()) => self.troubles.end(&key),
                    Err(error) if self.troubles.is_news(&key, &error) => {
                        tracing::warn!(pipeline, error = %chain(&error), "releases wait for a run");
                    }
                    Err(_) => {}
                }
            }
        }
    }

    /// Begins a run for one of the releases that are new; the next one follows at the next look.
    async fn follow_one(&self, to: &Registered, names: &[String]) -> Result<(), ControlError> {
        let key = keys::followed(&to.declared.name, names);
        let (known, expect) = self.store.place::<u64>(&key).await?;
        let looked = |number: u64| put(key.clone(), expect, &number);
        // Nothing is begun for the past.
        let Some(known) = known else {
            let latest = self.happenings.latest().await?;
            return self.store.commit(Vec::new(), vec![looked(latest)?]).await.map(drop);
        };
        let (released, upto) = self.happenings.released(known).await?;
        // Whoever may release in another instance begins nothing here.
        let is_here = |it: &Released| it.instance.as_deref() == Some(to.instance.as_str());
        let is_it = |it: &Released| is_here(it) && fits(names, &it.name);
        let Some(first) = released.into_iter().find(is_it) else {
            if upto > known {
                self.store.commit(Vec::new(), vec![looked(upto)?]).await?;
            }
            return Ok(());
        };
        let mut ask = Start {
            instance: to.instance.clone(),
            trigger: "release".to_owned(),
            by: format!("release {}", first.name),
            ..Start::default()
        };
        if to.declared.inputs.contains_key(INPUT) {
            ask.inputs.insert(INPUT.to_owned(), first.name.clone());
        }
        // Whoever was faster has begun it.
        let others = vec![looked(first.number)?];
        match self.try_start(&to.declared, &ask, others).await {
            Ok(Some(run)) => {
                tracing::info!(pipeline = run.pipeline, run = run.id, "a release began a run");
            }
            Ok(None) => {}
            // No later look would begin it, and those behind it would wait for that.
            Err(ControlError::Lay(
                why @ (LayError::OtherValue { .. } | LayError::LongInput(_)),
            )) => {
                let (pipeline, release) = (&to.declared.name, &first.name);
                tracing::warn!(pipeline, release, error = %why, "a release begins no run");
                self.store.commit(Vec::new(), vec![looked(first.number)?]).await?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
