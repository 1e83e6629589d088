//! What promotion asks of the rest of the server.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use kiln_cas::records::Write;
use kiln_ci::CiServices;
use kiln_ci::gate::GateAnswer;
use kiln_ci::verdicts::{Answers, Question, Told};
use kiln_deploy::catalog::{self, Catalog, CatalogEntry};
use kiln_deploy::promotion::{
    Arrival, Clock, Known, PartError, Releases, ShowPlaces, SignSummary, TestGate, Tests,
    VSA_PREDICATE, Verdict,
};
use kiln_deploy::releases::ReleaseName;
use kiln_deploy::signing::{Envelope, IN_TOTO_TYPE, Signer, Statement};
use kiln_deploy::timestamp::Timestamp;

use kiln_web::Kept as WebKept;

/// Failures of a gate that are named.
const MAX_NAMED: usize = 5;

/// The releases of one instance.
pub struct Catalogued {
    pub catalog: Catalog,
    pub instance: String,
}

fn known(entry: CatalogEntry) -> Known {
    let rejected = entry.rejected.map(|it| Verdict { by: it.by, at: it.at, reason: it.reason });
    let release = entry.release;
    Known {
        name: release.name,
        digest: release.subject.digest,
        author: entry.made_by,
        created: release.created,
        invocation: release.invocation,
        instance: entry.instance,
        target: release.target,
        rejected,
    }
}

#[async_trait]
impl Releases for Catalogued {
    async fn find(&self, name: &ReleaseName) -> Result<Option<Known>, PartError> {
        Ok(self.catalog.find(&self.instance, name).await?.map(known))
    }

    /// They are there since the release was made or taken in, by this server's clock: its record of that no signer can change.
    async fn bundles(
        &self,
        release: &Known,
    ) -> Result<(Vec<Vec<u8>>, Option<Timestamp>), PartError> {
        let entry = self.catalog.get(&self.instance, &release.name).await?;
        Ok((self.catalog.bundles(&entry).await?, Some(entry.release.created)))
    }
}

/// Tags of environments, and summaries among the referrers of releases.
#[async_trait]
impl ShowPlaces for Catalogued {
    async fn arrival(&self, arrival: Arrival<'_>) -> Result<Vec<Write>, PartError> {
        let comes = catalog::Arrival {
            environment: arrival.environment,
            release: (&arrival.comes.release, &arrival.comes.digest),
            before: arrival.before.map(|it| &it.release),
            signed: arrival.summary.map(|it| (it, VSA_PREDICATE)),
        };
        Ok(self.catalog.arrival(&self.instance, &comes).await?)
    }
}

/// The gate of tests, for the invocation that a release came from.
pub struct Gates {
    pub answers: Answers,
    pub tests: CiServices,
    pub kept: WebKept,
}

impl Gates {
    async fn told(&self, instance: &str, invocation: &str) -> Result<Told, PartError> {
        let streams = &self.tests.streams;
        let noted = streams.build(invocation).await?;
        let told = self.kept.told(streams, noted, instance).await;
        told.map_err(|error| error.message.into())
    }
}

#[async_trait]
impl TestGate for Gates {
    async fn ask(&self, release: &Known) -> Result<Tests, PartError> {
        self.of(&release.instance, &release.invocation).await
    }
}

impl Gates {
    /// What the gate says of a build.
    pub async fn of(&self, instance: &str, invocation: &str) -> Result<Tests, PartError> {
        let question = Question {
            instance: instance.to_owned(),
            invocation: invocation.to_owned(),
            edited: Vec::new(),
            told: self.told(instance, invocation).await?,
        };
        let answered = self.answers.gate(&question, self.tests.clock.now()).await?;
        let open =
            answered.outcome.items.iter().filter(|it| it.finding.answer() != GateAnswer::Green);
        let names: Vec<_> = open.map(|it| it.subject.to_string()).take(MAX_NAMED).collect();
        let incomplete = answered.outcome.incomplete.clone();
        let why = incomplete.unwrap_or_else(|| names.join(", "));
        Ok(match answered.outcome.answer {
            GateAnswer::Green if !answered.pending => Tests::Green,
            GateAnswer::Red => Tests::Red(why),
            GateAnswer::Green | GateAnswer::Undecided => {
                let why =
                    if why.is_empty() { "not all is known of its build".to_owned() } else { why };
                Tests::Undecided(why)
            }
        })
    }
}

/// The server's key signs.
pub struct Summaries {
    pub key: Arc<dyn Signer>,
    pub verifier: String,
}

#[async_trait]
impl SignSummary for Summaries {
    fn verifier(&self) -> String {
        self.verifier.clone()
    }

    async fn sign(&self, statement: Statement) -> Result<Vec<u8>, PartError> {
        let key = self.key.clone();
        let signing = move || -> Result<Vec<u8>, PartError> {
            let envelope = Envelope::sign(IN_TOTO_TYPE, statement.write()?, &*key)?;
            Ok(envelope.write()?)
        };
        tokio::task::spawn_blocking(signing).await?
    }
}

/// The clock of the machine.
pub struct MachineClock;

impl Clock for MachineClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_unix(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }
}
