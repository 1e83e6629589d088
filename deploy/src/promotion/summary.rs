//! Verification summaries (SLSA VSA, version 1): what whoever deploys can verify without asking anybody, namely that a release
//! was held against the policy of an environment and passed.

use serde_json::{Map, Value, json};

use super::decision::Decision;
use super::facts::Facts;
use super::pipeline::Pipeline;
use crate::resource::ResourceDescriptor;
use crate::signing::{Statement, StatementError};
use crate::timestamp::Timestamp;

/// The type of the predicate: SLSA's verification summary, version 1.
pub const VSA_PREDICATE: &str = "https://slsa.dev/verification_summary/v1";
const SLSA_VERSION: &str = "1.1";
/// Bundles that are named.
const MAX_NAMED: usize = 64;

/// What a verification summary is made of.
#[derive(Debug, Clone, Copy)]
pub struct Summary<'a> {
    pub verifier: &'a str,
    pub pipeline: &'a Pipeline,
    pub environment: &'a str,
    pub facts: &'a Facts,
    pub decision: &'a Decision,
    /// The environment's generation that the promotion makes.
    pub generation: u64,
    pub now: Timestamp,
}

/// The lowest level that all that was signed says, if anything was.
fn levels(facts: &Facts) -> Vec<String> {
    let level = facts.claims.iter().map(|it| it.level).min();
    level.map(|it| format!("SLSA_BUILD_LEVEL_{it}")).into_iter().collect()
}

impl Summary<'_> {
    /// `resourceUri` is the name under which the release is pulled; the environment is a member that SLSA leaves to the
    /// verifier.
    pub fn statement(&self) -> Result<Statement, StatementError> {
        let release = &self.facts.release;
        let digest = &release.digest;
        let subject = ResourceDescriptor::new(
            &release.name.to_string(),
            digest.algorithm().name(),
            digest.hex(),
        );
        let inputs = self.facts.evidence.iter().take(MAX_NAMED);
        let inputs: Vec<Value> = inputs.map(|it| json!({"digest": it.set()})).collect();
        let gates = serde_json::to_value(&self.decision.reasons).unwrap_or_default();
        let predicate = json!({
            "verifier": {"id": self.verifier},
            "timeVerified": self.now,
            "resourceUri": format!("oci://{}", release.name),
            "policy": {
                "uri": format!("{}/environments/{}", self.verifier, self.environment),
                "digest": self.pipeline.digest.set(),
            },
            "inputAttestations": inputs,
            "verificationResult": "PASSED",
            "verifiedLevels": levels(self.facts),
            "slsaVersion": SLSA_VERSION,
            "https://kiln.build/promotion/v1": {
                "environment": self.environment,
                "generation": self.generation,
                "gates": gates,
            },
        });
        let predicate = match predicate {
            Value::Object(predicate) => predicate,
            _ => Map::new(),
        };
        Statement::new(vec![subject], VSA_PREDICATE, predicate)
    }
}
