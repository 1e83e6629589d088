//! What is known of a release: what it is, and what keys that are trusted have signed of it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::expression::{Operand, Operands};
use crate::oci::ContentDigest;
use crate::provenance::SLSA_PREDICATE;
use crate::releases::ReleaseName;
use crate::signing::{Attestation, Evidence, KeyRing};
use crate::timestamp::Timestamp;

/// Bundles of one release that are looked at.
pub const MAX_BUNDLES: usize = 64;

/// A release as it stands in the list of releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub name: ReleaseName,
    pub digest: ContentDigest,
    /// Who made it, as the server knows callers; empty: nobody knows.
    pub author: String,
    pub created: Timestamp,
    /// The id of the build that the release came from.
    pub invocation: String,
    pub instance: String,
    pub target: String,
    /// The rejection by whoever keeps the list of releases; `None`: the release is not rejected there.
    pub rejected: Option<Verdict>,
}

/// Why something must not be done again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub by: String,
    pub at: Timestamp,
    pub reason: String,
}

/// What the gate of tests says of the build that a release came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tests {
    Green,
    Red(String),
    /// The outcome of the tests is not decided yet, or not known: why, in words.
    Undecided(String),
}

/// What one trusted key has signed of where a release came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claim {
    /// The key's name in the policy of keys.
    pub signer: String,
    pub builder: String,
    /// `git+https://…`, without the commit.
    pub source: String,
    pub commit: String,
    pub branch: String,
    /// Who said which branch the source is of: `release` or `build-events`.
    pub branch_by: String,
    pub level: u64,
}

/// Everything that a decision asks about a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub release: Known,
    pub claims: Vec<Claim>,
    /// Digests of the bundles that the claims were read from.
    pub evidence: Vec<ContentDigest>,
    /// Why bundles do not count, in words.
    pub refused: Vec<String>,
    /// The first of these that does not because its key was revoked.
    pub revoked: Option<String>,
    pub tests: Tests,
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

impl Claim {
    /// Reads a predicate of SLSA provenance.
    pub fn read(signer: &str, predicate: &Value) -> Self {
        let source = text(predicate, "/buildDefinition/externalParameters/source");
        let (source, commit) = source.rsplit_once('@').unwrap_or((&source, ""));
        let level = predicate.pointer("/buildDefinition/internalParameters/slsa/buildLevel");
        Self {
            signer: signer.to_owned(),
            builder: text(predicate, "/runDetails/builder/id"),
            source: source.to_owned(),
            commit: commit.to_owned(),
            branch: text(predicate, "/buildDefinition/externalParameters/branch"),
            branch_by: text(predicate, "/buildDefinition/internalParameters/claimed/branch"),
            level: level.and_then(Value::as_u64).unwrap_or(0),
        }
    }
}

impl Facts {
    /// Verifies what was signed about a release. Whatever is not by a trusted key, not valid or not about this content does
    /// not count, and is named as such. `recorded`: when a record that no signer can change says that the bundles were there.
    pub fn verify(
        release: Known,
        bundles: &[Vec<u8>],
        keys: Option<&KeyRing>,
        tests: Tests,
        (recorded, now): (Option<Timestamp>, Timestamp),
    ) -> Self {
        let (claims, evidence, refused) = (Vec::new(), Vec::new(), Vec::new());
        let mut facts = Self { release, claims, evidence, refused, revoked: None, tests };
        let Some(keys) = keys else { return facts };
        if bundles.len() > MAX_BUNDLES {
            let message = format!("{} bundles; {MAX_BUNDLES} are looked at", bundles.len());
            facts.refused.push(message);
        }
        for bundle in bundles.iter().take(MAX_BUNDLES) {
            let digest = ContentDigest::of(bundle);
            match claim(bundle, &facts.release.digest, keys, (recorded, now)) {
                Ok(Some(claim)) => {
                    facts.claims.push(claim);
                    facts.evidence.push(digest);
                }
                Ok(None) => {}
                Err(Refused { why, is_revoked }) => {
                    let why = format!("{digest}: {why}");
                    if is_revoked && facts.revoked.is_none() {
                        facts.revoked = Some(why.clone());
                    }
                    facts.refused.push(why);
                }
            }
        }
        facts
    }

    /// What keys of these names have signed; without names, what any trusted key has.
    pub fn claims_of(&self, signers: &[String]) -> Vec<&Claim> {
        let counts = |claim: &&Claim| signers.is_empty() || signers.contains(&claim.signer);
        self.claims.iter().filter(counts).collect()
    }

    /// What expressions may ask about, once for each of these claims: what holds for one alone does not hold.
    pub fn operands(&self, claims: &[&Claim], environment: &str, now: Timestamp) -> Vec<Operands> {
        let signers: Vec<_> = claims.iter().map(|it| it.signer.clone()).collect();
        let none = Claim::default();
        let claims: &[&Claim] = if claims.is_empty() { &[&none] } else { claims };
        claims.iter().map(|it| self.operands_of(it, &signers, environment, now)).collect()
    }

    fn operands_of(
        &self,
        claim: &Claim,
        signers: &[String],
        environment: &str,
        now: Timestamp,
    ) -> Operands {
        let text = |text: &str| Operand::Text(text.to_owned());
        let level = i64::try_from(claim.level).unwrap_or(0);
        let release = &self.release;
        let of_release = vec![
            ("name", Operand::Text(release.name.to_string())),
            ("repository", Operand::Text(release.name.repository.to_string())),
            ("version", Operand::Text(release.name.version.to_string())),
            ("digest", Operand::Text(release.digest.to_string())),
            ("author", text(&release.author)),
            ("target", text(&release.target)),
            ("instance", text(&release.instance)),
            ("invocation", text(&release.invocation)),
            ("created", Operand::Number(release.created.unix())),
            ("builder", text(&claim.builder)),
            ("source", text(&claim.source)),
            ("commit", text(&claim.commit)),
            ("branch", text(&claim.branch)),
            ("branch_by", text(&claim.branch_by)),
            ("level", Operand::Number(level)),
            ("signers", Operand::List(signers.to_vec())),
        ];
        let of_environment = vec![("name", text(environment))];
        vec![
            ("release", of_release),
            ("environment", of_environment),
            ("now", vec![("unix", Operand::Number(now.unix()))]),
        ]
    }
}

/// Why a bundle does not count.
struct Refused {
    why: String,
    /// Whether the key that signed it was revoked.
    is_revoked: bool,
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Self { why, is_revoked: false }
    }
}

/// What a bundle says of where the release came from; `None`: it says something else of it.
fn claim(
    bundle: &[u8],
    content: &ContentDigest,
    keys: &KeyRing,
    (recorded, now): (Option<Timestamp>, Timestamp),
) -> Result<Option<Claim>, Refused> {
    let words = |it: &(dyn std::error::Error + 'static)| kiln_net::causes::chain(it);
    let attestation = Attestation::from_bundle(bundle, keys).map_err(|it| words(&it))?;
    if attestation.statement.predicate_type != SLSA_PREDICATE {
        return Ok(None);
    }
    if !attestation.statement.is_about(&content.set()) {
        return Err("it is about something else".to_owned().into());
    }
    let predicate = Value::Object(attestation.statement.predicate.clone());
    let claimed = text(&predicate, "/buildDefinition/internalParameters/signedOn").parse().ok();
    // A record may be of long after: it is asked for where what was signed is not believed.
    let is_revoked = attestation.key.revoked_from.is_some();
    let evidence = match (recorded.filter(|_| is_revoked), claimed) {
        (Some(at), _) => Evidence::Recorded(at),
        (None, Some(at)) => Evidence::Claimed(at),
        (None, None) => Evidence::None,
    };
    let accepted = attestation.key.accepts(evidence, now);
    accepted.map_err(|it| Refused { why: words(&it), is_revoked: it.is_revoked() })?;
    Ok(Some(Claim::read(&attestation.key.name, &predicate)))
}
