//! An environment with a release that stands there, and one that waits.

use std::sync::Arc;

use async_trait::async_trait;
use kiln_cas::records::SharedRecords;
use kiln_cas::stores::MemoryRecords;
use kiln_deploy::audit::Checkpoints;
use kiln_deploy::oci::ContentDigest;
use kiln_deploy::promotion::{
    Actor, Ask, Check, Clock, Keeper, Known, PartError, Parts, Pipeline, Releases, RunCheck, Say,
    TestGate, Tests,
};
use kiln_deploy::releases::ReleaseName;
use kiln_deploy::timestamp::Timestamp;

const POLICY: &str = "[environments.dev]\n[environments.prod]\nafter = [\"dev\"]\nsoak = \"24h\"\n\
                      approvals = { count = 1 }\n";
const NOW: i64 = 1_795_419_668;

/// Releases in which every name that is asked for exists.
struct Anything;

#[async_trait]
impl Releases for Anything {
    async fn find(&self, name: &ReleaseName) -> Result<Option<Known>, PartError> {
        Ok(Some(Known {
            name: name.clone(),
            digest: ContentDigest::of(name.to_string().as_bytes()),
            author: "ci".to_owned(),
            created: Timestamp::from_unix(NOW),
            invocation: "5f3c1e1a".to_owned(),
            instance: String::new(),
            target: "//server:image".to_owned(),
            rejected: None,
        }))
    }

    async fn bundles(&self, _: &Known) -> Result<(Vec<Vec<u8>>, Option<Timestamp>), PartError> {
        Ok((Vec::new(), None))
    }
}

#[async_trait]
impl TestGate for Anything {
    async fn ask(&self, _: &Known) -> Result<Tests, PartError> {
        Ok(Tests::Green)
    }
}

#[async_trait]
impl RunCheck for Anything {
    async fn run(&self, _: &Check, _: &Known, _: &str) -> Result<(), String> {
        Ok(())
    }
}

impl Clock for Anything {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix(NOW)
    }
}

pub fn checkpoints() -> Checkpoints {
    let records: SharedRecords = Arc::new(MemoryRecords::default());
    Checkpoints::new(records, "http://build.example.com:8980", None)
}

pub async fn keeper() -> Arc<Keeper> {
    let it = Arc::new(Anything);
    let parts = Parts {
        releases: it.clone(),
        tests: it.clone(),
        checks: it.clone(),
        summaries: None,
        places: None,
        clock: it,
        keys: None,
        tells: false,
    };
    let pipeline = Pipeline::read(POLICY).expect("a policy");
    let keeper = Keeper::new(Arc::new(MemoryRecords::default()), pipeline, parts);
    let ask = |environment: &str, release: &str, wait| Ask {
        environment: environment.to_owned(),
        release: release.parse().expect("a name"),
        by: Actor { name: "ana".to_owned(), automation: false },
        reason: "release of <November>".to_owned(),
        again: false,
        wait,
    };
    for release in ["team/server:1.0", "team/server:1.1"] {
        keeper.promote(&ask("dev", release, None)).await.expect("it is promoted");
    }
    keeper.promote(&ask("prod", "team/server:1.1", Some(3_600))).await.expect("it waits");
    let by = Actor { name: "bo".to_owned(), automation: false };
    let say = Say { environment: "prod".to_owned(), by, reason: "moving <house>".to_owned() };
    keeper.hold(&say, None).await.expect("it is held");
    Arc::new(keeper)
}
