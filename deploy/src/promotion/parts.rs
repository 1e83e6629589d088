//! What promotion asks of the rest of a server.

use async_trait::async_trait;
use kiln_cas::records::Write;

use super::facts::{Known, Tests};
use super::pipeline::Check;
use super::world::Placed;
use crate::releases::ReleaseName;
use crate::signing::{KeyRing, Statement};
use crate::timestamp::Timestamp;

/// Why a part could not answer.
pub type PartError = Box<dyn std::error::Error + Send + Sync>;

/// Releases that are known by name.
#[async_trait]
pub trait Releases: Send + Sync + 'static {
    async fn find(&self, name: &ReleaseName) -> Result<Option<Known>, PartError>;

    /// The bundles that are kept about a release, and since when a record that no signer can change says that they are
    /// there.
    async fn bundles(
        &self,
        release: &Known,
    ) -> Result<(Vec<Vec<u8>>, Option<Timestamp>), PartError>;
}

/// Whether the tests of a release's build passed.
#[async_trait]
pub trait TestGate: Send + Sync + 'static {
    async fn ask(&self, release: &Known) -> Result<Tests, PartError>;
}

/// Runs the program of a check; `Err`: why it failed. It may be run again for the same release, so it must change nothing.
#[async_trait]
pub trait RunCheck: Send + Sync + 'static {
    async fn run(&self, check: &Check, release: &Known, environment: &str) -> Result<(), String>;
}

/// Signs what is said of a promotion.
#[async_trait]
pub trait SignSummary: Send + Sync + 'static {
    /// URI of who verified.
    fn verifier(&self) -> String;

    /// The bytes of a DSSE envelope.
    async fn sign(&self, statement: Statement) -> Result<Vec<u8>, PartError>;
}

/// A release comes to an environment.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    pub environment: &'a str,
    pub comes: &'a Placed,
    pub before: Option<&'a Placed>,
    /// The envelope with what was signed of a promotion.
    pub summary: Option<&'a [u8]>,
}

/// Shows where releases stand to those who pull them.
#[async_trait]
pub trait ShowPlaces: Send + Sync + 'static {
    /// The writes that do so, for the one that moves the pointer: what is shown and what is so are never apart.
    async fn arrival(&self, arrival: Arrival<'_>) -> Result<Vec<Write>, PartError>;
}

/// Tells the time. It may go wrong: nothing relies on it going on.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
}

/// All that promotion stands on.
pub struct Parts {
    pub releases: std::sync::Arc<dyn Releases>,
    pub tests: std::sync::Arc<dyn TestGate>,
    pub checks: std::sync::Arc<dyn RunCheck>,
    /// `None`: nothing is said of promotions.
    pub summaries: Option<std::sync::Arc<dyn SignSummary>>,
    /// `None`: nobody is shown.
    pub places: Option<std::sync::Arc<dyn ShowPlaces>>,
    pub clock: std::sync::Arc<dyn Clock>,
    /// The keys whose signatures count; `None`: nobody's do.
    pub keys: Option<KeyRing>,
    /// Whether changes are to be told to somebody: then each is kept until it was.
    pub tells: bool,
}
