//! The gRPC service `kiln.hermeticity.v1.Hermeticity`.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use kiln_cas::access::Right;
use kiln_cas::{Digest, DigestFunction};
use kiln_protos::hermeticity::hermeticity_server::Hermeticity;
use kiln_protos::hermeticity::{CheckRequest, Planned, Update, update::Kind};
use tonic::{Request, Response, Status};

use crate::hermeticity::{Checker, MAX_ACTIONS, Wanted};

#[derive(Clone)]
pub struct HermeticityService {
    pub(crate) checker: Checker,
}

#[tonic::async_trait]
impl Hermeticity for HermeticityService {
    type CheckStream = Pin<Box<dyn Stream<Item = Result<Update, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<Self::CheckStream>, Status> {
        let (_, caller, request) = request.into_parts();
        let guard = self.checker.core().guard();
        guard.check(&caller, Right::Execute, &request.instance_name)?;
        let (rate, max) = (rate(request.rate)?, max(request.max));
        let instance = request.instance_name.clone();
        let wanted = wanted(request)?;
        let plan = self.checker.plan(&instance, &wanted, rate, max).await;
        let plan = plan.map_err(|error| Status::unavailable(error.to_string()))?;
        if plan.known == 0 {
            return Err(Status::not_found(format!(
                "the journal knows no execution of this {} with a result to compare with; \
                 name another instance with --instance",
                in_words(&instance),
            )));
        }
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let planned = Planned { actions: count(plan.executions.len()), known: count(plan.known) };
        let checks = self.checker.clone().checks(plan.executions).map(Kind::Checked);
        let updates = stream::iter([Kind::Planned(planned)]).chain(checks);
        Ok(Response::new(Box::pin(updates.map(|kind| Ok(Update { kind: Some(kind) })))))
    }
}

fn in_words(instance: &str) -> String {
    match instance {
        "" => "in the unnamed instance".to_owned(),
        instance => format!("in the instance {instance:?}"),
    }
}

fn rate(rate: f64) -> Result<f64, Status> {
    match rate {
        0.0 => Ok(1.0),
        rate if rate > 0.0 && rate <= 1.0 => Ok(rate),
        rate => Err(Status::invalid_argument(format!(
            "rate: {rate} is not between 0 and 1; 0.1 runs a tenth of the actions again"
        ))),
    }
}

fn max(max: u32) -> usize {
    match max as usize {
        0 => MAX_ACTIONS,
        max => max.min(MAX_ACTIONS),
    }
}

fn wanted(request: CheckRequest) -> Result<Wanted, Status> {
    let CheckRequest { invocation_id, target, actions, digest_function, .. } = request;
    match (invocation_id.as_str(), target.as_str(), actions.is_empty()) {
        (_, "", true) if !invocation_id.is_empty() => Ok(Wanted::Invocation(invocation_id)),
        ("", _, true) if !target.is_empty() => Ok(Wanted::Target(target)),
        ("", "", false) => {
            let invalid = |error: String| Status::invalid_argument(format!("actions: {error}"));
            let function = match digest_function {
                0 => DigestFunction::Sha256,
                value => {
                    DigestFunction::from_wire(value).map_err(|error| invalid(error.to_string()))?
                }
            };
            let digest = |digest: &kiln_protos::events::Digest| {
                let size = u64::try_from(digest.size_bytes)
                    .map_err(|_| invalid("a size is negative".to_owned()))?;
                Digest::from_hex(digest.hash.as_bytes(), size, function)
                    .map_err(|error| invalid(error.to_string()))
            };
            actions.iter().map(digest).collect::<Result<_, _>>().map(Wanted::Actions)
        }
        _ => Err(Status::invalid_argument(
            "exactly one of invocation_id, target and actions has to be given",
        )),
    }
}
