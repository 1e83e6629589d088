//! The services of all crates, given to each other in the order in which one stands on another.

use kiln_cas::budget::Budget;
use kiln_web::Kept;

use super::base::Base;
use super::builds::Builds;
use super::cas::{self, Cas};
use super::deploy::{self, Deploy};
use super::entrance::Entrance;
use super::metrics::{self, Later};
use super::options::{ServeError, ServeOptions};
use super::pipelines::{self, Pipelines};
use super::{fleet, stages};
use crate::telemetry::Telemetry;
use crate::telemetry::requests::Requests;

pub struct Parts {
    pub base: Base,
    pub builds: Builds,
    pub fleet: fleet::Started,
    pub requests: Requests,
    pub telemetry: Telemetry,
    pub cas: Cas,
    pub deploy: Deploy,
    pub pipelines: Pipelines,
    /// Results that pages keep; their memory is charged to requests.
    pub kept: Kept,
}

impl Parts {
    /// Starts all parts; nothing is answered yet, and no worker has anything to do. Must be called
    /// within a Tokio runtime.
    pub async fn start(options: &ServeOptions, entrance: &Entrance) -> Result<Self, ServeError> {
        // In boxes, since what opens stores and reads a journal back holds much.
        let base = Box::pin(Base::open(options, entrance)).await?;
        let builds = Box::pin(Builds::start(options, &base)).await?;
        let fleet = fleet::start(&base.storage);
        let requests = Requests::new(options.front_threads, Budget::new(options.request_memory));
        let (admission, later) = (&entrance.admission, Later::default());
        let observed = metrics::Below {
            base: &base,
            builds: &builds,
            fleet: &fleet,
            admission,
            requests: &requests,
            later: &later,
        };
        let telemetry = metrics::start(options.otlp.as_ref(), &observed)?;
        let cas = cas::start(options, &base, admission.auth.is_some())?;
        let kept = Kept::charged(requests.budget().share(None));
        let deploy = deploy::start(options, &base, &builds.ci, &kept, fleet.targets())?;
        later.count(&deploy.services);
        let below = stages::Below {
            base: &base,
            builds: &builds,
            deploy: &deploy.services,
            kept: &kept,
            figures: &later.previews,
        };
        let pipelines = pipelines::start(options, &below)?;
        Ok(Self { base, builds, fleet, requests, telemetry, cas, deploy, pipelines, kept })
    }
}
