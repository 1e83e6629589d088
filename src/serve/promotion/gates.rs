//! Answers for promotion whether the tests of a build pass the gate.

use async_trait::async_trait;
use kiln_ci::CiServices;
use kiln_ci::gate::GateAnswer;
use kiln_ci::verdicts::{Answers, Question, Told};
use kiln_deploy::promotion::{Known, PartError, TestGate, Tests};
use kiln_web::Kept as WebKept;

/// The most failures of a gate that are named.
const MAX_NAMED: usize = 5;

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
    /// Asks the gate about the tests of a build.
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
