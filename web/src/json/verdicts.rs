//! What gates and the quarantine say, and what they are asked. Durations are in seconds.

use kiln_ci::gate::{Finding, GateAnswer, Item};
use kiln_ci::model::Subject;
use kiln_ci::quarantine::{Actor, Change, Export, Kind, QuarantinedTest};
use kiln_ci::verdicts::{Account, Answered, Question, Told};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::suite::nanos;

/// A method, or a parametrised variant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CaseName {
    /// The class, file or module that it is in, as its runner writes it.
    #[serde(default)]
    pub class: String,
    pub name: String,
}

/// A test, or one case of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SubjectName {
    #[serde(default)]
    pub instance: String,
    /// The label as the build tool writes it, or the name of an imported suite.
    pub label: String,
    #[serde(default)]
    pub configuration: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case: Option<CaseName>,
}

/// What `POST /api/v1/tests/gate` is given: the invocation that is to be judged.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GateQuestion {
    #[serde(default)]
    pub instance: String,
    pub invocation: String,
    /// Labels of tests whose own sources the change edits.
    #[serde(default)]
    pub edited: Vec<String>,
    /// What the client knows of its invocation; without it, what the invocation's build events said counts.
    #[serde(default)]
    #[schemars(with = "Option<ClientsAccount>")]
    pub account: Option<Account>,
}

/// How an invocation ended, as its client knows it.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what kiln-ci reads")]
struct ClientsAccount {
    /// Why the invocation did not complete; null: it did.
    incomplete: Option<String>,
    failed: Vec<ClientsFailure>,
}

/// A test of which the last attempt failed. Runs and shards are counted from 1; 0: any.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what kiln-ci reads")]
struct ClientsFailure {
    label: String,
    run: u32,
    shard: u32,
}

/// A gate's answer so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gate {
    pub invocation: String,
    /// Whether the invocation may land: `green`, `red` or `undecided`.
    #[schemars(with = "String")]
    pub verdict: GateAnswer,
    /// The exit code of `kiln tests gate` for this answer.
    pub exit_code: u8,
    /// Whether the answer may change by itself: shadow runs go on, or attempts are on their way.
    pub pending: bool,
    /// Whether build events or the client say how the invocation ended, or are about to. Where nobody has, nobody will
    /// after some seconds.
    pub told: bool,
    /// Why the invocation did not complete; null: it did.
    pub incomplete: Option<String>,
    pub failures: Vec<GateFailure>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GateFailure {
    #[serde(flatten)]
    pub test: SubjectName,
    #[schemars(with = "String")]
    pub finding: Finding,
    pub masked: bool,
    /// What was found and on what evidence, in words.
    pub text: String,
    pub signature: Option<String>,
    /// Failures with equal inputs since the last pass, and passes since the first of them.
    pub straight: u32,
    pub passes: u32,
    /// The probability that the test fails always; null where nobody has looked.
    pub broken: Option<f64>,
    pub quarantine: Option<QuarantineEntry>,
}

/// Why a test is in quarantine, and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct QuarantineEntry {
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub since: i64,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub expires: i64,
    /// Who put the test into quarantine: the name of a person, or `policy`.
    pub by: String,
    pub reason: String,
    pub owner: Option<String>,
    /// Failures that a pass with equal inputs followed, where they were the reason.
    pub flips: Option<usize>,
    /// The share of its runs that is expected to fail.
    pub rate: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Quarantined {
    #[serde(flatten)]
    pub test: SubjectName,
    #[serde(flatten)]
    pub entry: QuarantineEntry,
}

/// What `GET /api/v1/tests/quarantine` answers: the tests in quarantine, and how many there may be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Quarantine {
    /// Tests that are known, of which so many may be in quarantine.
    pub tests: u64,
    pub allowed: usize,
    /// Whether more tests are in quarantine than may be, so that gates mask nothing.
    pub over_cap: bool,
    pub entries: Vec<Quarantined>,
}

/// What `POST /api/v1/tests/quarantine` is given, and the same with `/remove`: what a person asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct QuarantineRequest {
    #[serde(flatten)]
    pub test: SubjectName,
    pub reason: String,
    #[serde(default)]
    pub owner: Option<String>,
    /// Seconds that the test is to stay; at most what the policy allows.
    #[serde(default)]
    pub stay_s: Option<u64>,
}

/// A change that somebody made to the quarantine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct QuarantineChange {
    #[serde(flatten)]
    pub test: SubjectName,
    pub number: u64,
    /// What the change did: the test `entered`, its stay was `renewed`, or it `left`.
    #[schemars(with = "String")]
    pub kind: Kind,
    pub by: String,
    pub owner: Option<String>,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub expires: i64,
}

/// What `GET /api/v1/tests/quarantine/export` answers: the tests in quarantine, as a test runner leaves them out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Exported {
    /// Arguments, patterns or lines for the test runner, one each, not quoted.
    pub arguments: Vec<String>,
    /// The arguments, quoted for a POSIX shell.
    pub shell: String,
    pub left_out: Vec<LeftOut>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftOut {
    #[serde(flatten)]
    pub test: SubjectName,
    pub reason: String,
}

fn name(actor: &Actor) -> String {
    match actor {
        Actor::Policy => "policy".to_owned(),
        Actor::Person(name) => name.clone(),
    }
}

impl From<&Subject> for SubjectName {
    fn from(it: &Subject) -> Self {
        let kiln_ci::model::TestKey { instance, label, configuration } = it.test.clone();
        let case = it.case.clone().map(|it| CaseName { class: it.class, name: it.name });
        Self { instance, label, configuration, case }
    }
}

impl From<SubjectName> for Subject {
    fn from(it: SubjectName) -> Self {
        let SubjectName { instance, label, configuration, case } = it;
        let name = |it: CaseName| kiln_ci::model::CaseName { class: it.class, name: it.name };
        let case = case.map(name);
        Self { test: kiln_ci::model::TestKey { instance, label, configuration }, case }
    }
}

impl From<&QuarantinedTest> for QuarantineEntry {
    fn from(it: &QuarantinedTest) -> Self {
        Self {
            since: nanos(it.since),
            expires: nanos(it.expires),
            by: name(&it.by),
            reason: it.reason.clone(),
            owner: it.owner.clone(),
            flips: it.evidence.as_ref().map(|it| it.flips),
            rate: it.evidence.as_ref().map(|it| it.rate),
        }
    }
}

impl From<&Item> for GateFailure {
    fn from(it: &Item) -> Self {
        Self {
            test: SubjectName::from(&it.subject),
            finding: it.finding,
            masked: it.masked(),
            text: it.to_string(),
            signature: it.signature.map(|it| it.to_string()),
            straight: it.tries.straight,
            passes: it.tries.passes,
            broken: it.broken,
            quarantine: it.quarantine.as_ref().map(QuarantineEntry::from),
        }
    }
}

impl Gate {
    pub fn new(question: &Question, answered: &Answered) -> Self {
        let outcome = &answered.outcome;
        Self {
            invocation: question.invocation.clone(),
            told: question.told != Told::Nothing,
            verdict: outcome.answer,
            exit_code: outcome.answer.exit_code(),
            pending: answered.pending,
            incomplete: outcome.incomplete.clone(),
            failures: outcome.items.iter().map(GateFailure::from).collect(),
        }
    }
}

impl From<&Change> for QuarantineChange {
    fn from(it: &Change) -> Self {
        Self {
            test: SubjectName::from(&it.subject),
            number: it.number,
            kind: it.kind,
            by: name(&it.by),
            owner: it.owner.clone(),
            expires: it.expires.map_or(0, nanos),
        }
    }
}

impl From<&Export> for Exported {
    fn from(it: &Export) -> Self {
        let left = it.left.iter().map(|it| LeftOut {
            test: SubjectName::from(&it.subject),
            reason: it.reason.to_owned(),
        });
        Self { arguments: it.arguments.clone(), shell: it.shell(), left_out: left.collect() }
    }
}
