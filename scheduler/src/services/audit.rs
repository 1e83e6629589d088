//! `kiln.audit.v1.Audit`.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use kiln_cas::access::Right;
use kiln_cas::{Digest, DigestFunction};
use kiln_protos::audit::audit_server::Audit;
use kiln_protos::audit::{HermeticityRequest, Planned, Update, update::Kind};
use tonic::{Request, Response, Status};

use crate::audit::{Auditor, MAX_ACTIONS, Wanted};

#[derive(Clone)]
pub struct AuditService {
    pub(crate) auditor: Auditor,
}

#[tonic::async_trait]
impl Audit for AuditService {
    type HermeticityStream = Pin<Box<dyn Stream<Item = Result<Update, Status>> + Send>>;

    async fn hermeticity(
        &self,
        request: Request<HermeticityRequest>,
    ) -> Result<Response<Self::HermeticityStream>, Status> {
        let (_, caller, request) = request.into_parts();
        let guard = self.auditor.core().guard();
        guard.check(&caller, Right::Execute, &request.instance_name)?;
        let (rate, max) = (rate(request.rate)?, max(request.max));
        let instance = request.instance_name.clone();
        let wanted = wanted(request)?;
        let plan = self.auditor.plan(&instance, &wanted, rate, max).await;
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
        let audits = self.auditor.clone().audits(plan.executions).map(Kind::Audited);
        let updates = stream::iter([Kind::Planned(planned)]).chain(audits);
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

fn wanted(request: HermeticityRequest) -> Result<Wanted, Status> {
    let HermeticityRequest { invocation_id, target, actions, digest_function, .. } = request;
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
