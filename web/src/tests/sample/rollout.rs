//! A rollout that has begun.

use std::sync::Arc;

use async_trait::async_trait;
use kiln_cas::stores::MemoryRecords;
use kiln_deploy::oci::ContentDigest;
use kiln_deploy::releases::ReleaseName;
use kiln_deploy::rollouts::control::{Control, Parts, Start};
use kiln_deploy::rollouts::parts::{
    Clock, Observation, Order, PartError, Place, Releases, Selector, Standing, Target, Targets,
    Told, Unverified,
};

/// A fleet of two targets that never report.
struct Two;

#[async_trait]
impl Targets for Two {
    async fn list(&self, _: &Selector) -> Result<Vec<Target>, PartError> {
        let target = |name: &str| Target {
            name: name.to_owned(),
            address: None,
            labels: Default::default(),
        };
        Ok(vec![target("api-1"), target("api-2")])
    }

    async fn tell(&self, _: &str, _: &Order) -> Result<Told, PartError> {
        Ok(Told::Accepted)
    }

    async fn observe(
        &self,
        _: &Place,
        targets: &[String],
    ) -> Result<Vec<Option<Observation>>, PartError> {
        Ok(vec![None; targets.len()])
    }
}

/// Releases of which every one may be rolled out.
struct Anything;

#[async_trait]
impl Releases for Anything {
    async fn standing(&self, release: &ReleaseName, _: &str) -> Result<Standing, PartError> {
        Ok(Standing::Free(ContentDigest::of(release.to_string().as_bytes())))
    }

    async fn verify(
        &self,
        release: &ReleaseName,
        _: &str,
        _: bool,
    ) -> Result<Result<ContentDigest, Unverified>, PartError> {
        Ok(Ok(ContentDigest::of(release.to_string().as_bytes())))
    }

    async fn made(&self, _: &ReleaseName) -> Result<Option<u64>, PartError> {
        Ok(None)
    }

    async fn blame(&self, _: &ReleaseName, _: &Place, _: &str) -> Result<(), PartError> {
        Ok(())
    }
}

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> u64 {
        1_795_419_668_000
    }
}

/// A control whose one rollout waits to be driven; a person has a lock elsewhere.
pub async fn control() -> Arc<Control> {
    let parts = Parts {
        targets: [("agents".to_owned(), Arc::new(Two) as Arc<dyn Targets>)].into(),
        traffic: Default::default(),
        signals: Default::default(),
        releases: Arc::new(Anything),
        clock: Arc::new(Fixed),
        stay_up: Default::default(),
        tells: false,
    };
    let control = Control::new(Arc::new(MemoryRecords::default()), parts, "test");
    let start = Start {
        declared: "name = \"api\"\ntargets = 2\nsteps = [50, 100]".to_owned(),
        release: "team/server:1.1".parse().expect("a name"),
        environment: "prod".to_owned(),
        by: "ana".to_owned(),
        reason: "moving <house>".to_owned(),
        supersede: false,
        drill: false,
        without_drill: false,
        again: false,
        previous: None,
    };
    control.start(&start).await.expect("it starts");
    let place = Place { service: "web".to_owned(), environment: "prod".to_owned() };
    control.lock(&place, "bob", "a migration", 3_600_000).await.expect("it is free");
    control
}
