//! `kiln.admin.v1.Admin`: what operators do to workers. The audit log is written first: what cannot be
//! written down is not done.

use std::sync::Arc;

use kiln_cas::access::Right;
use kiln_cas::records::RecordsError;
use kiln_cas::services::{account_of, refused_status};
use kiln_cas::stores::audit::{AuditEvent, AuditLog};
use kiln_net::clock::unix_millis;
use kiln_protos::admin::admin_server::Admin;
use kiln_protos::admin::{DrainWorkerRequest, DrainWorkerResponse};
use tonic::{Request, Response, Status};

use super::execution::unavailable;
use crate::shared::Core;
use crate::snapshot::WorkerView;

/// Workers that the answer about an unknown one names.
const MAX_NAMED: usize = 20;

#[derive(Clone)]
pub struct AdminService {
    pub(crate) core: Arc<Core>,
    pub(crate) audit: Arc<AuditLog>,
}

impl AdminService {
    async fn note(&self, actor: &str, action: &str, subject: &str) -> Result<(), Status> {
        let event = AuditEvent {
            time: unix_millis() / 1_000,
            actor: actor.to_owned(),
            action: action.to_owned(),
            subject: subject.to_owned(),
            details: "{}".to_owned(),
        };
        let entry = self.audit.append(event).await.map_err(|error| not_noted(&error))?;
        tracing::info!(actor, action, subject, sequence = entry.sequence, "noted in the audit log");
        Ok(())
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn drain_worker(
        &self,
        request: Request<DrainWorkerRequest>,
    ) -> Result<Response<DrainWorkerResponse>, Status> {
        let (_, caller, DrainWorkerRequest { name }) = request.into_parts();
        let access = &self.core.parts.access;
        access.check_everywhere(&caller, Right::Administer).map_err(refused_status)?;
        let workers = self.core.queue.snapshot().await.map_err(unavailable)?.workers;
        let worker = workers.iter().find(|worker| worker.id == name);
        let worker = worker.ok_or_else(|| no_such_worker(&name, &workers))?;
        self.note(&account_of(&**access, &caller), "worker.drain", &name).await?;
        match self.core.queue.drain_worker(&name).await.map_err(unavailable)? {
            true => Ok(Response::new(DrainWorkerResponse {
                already_draining: worker.draining,
                occupied: worker.occupied,
            })),
            false => Err(Status::not_found(format!("the worker {name:?} has just left"))),
        }
    }
}

fn no_such_worker(name: &str, workers: &[WorkerView]) -> Status {
    let mut names: Vec<_> = workers.iter().map(|worker| worker.id.as_str()).collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(MAX_NAMED);
    names.truncate(MAX_NAMED);
    let there_are = match (names.is_empty(), more) {
        (true, _) => "no worker is connected".to_owned(),
        (false, 0) => format!("there are {}", names.join(", ")),
        (false, more) => format!("there are {} and {more} more", names.join(", ")),
    };
    Status::not_found(format!("no worker is called {name:?}: {there_are}"))
}

fn not_noted(error: &RecordsError) -> Status {
    Status::unavailable(format!("nothing was done: the audit log cannot be written: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_answered_with_those_there_are() {
        let worker =
            |number: usize| WorkerView { id: format!("w{number:02}"), ..WorkerView::default() };
        let said = |count: usize| {
            let workers: Vec<_> = (0..count).rev().map(worker).collect();
            no_such_worker("x", &workers).message().to_owned()
        };
        assert_eq!(said(0), "no worker is called \"x\": no worker is connected");
        assert_eq!(said(2), "no worker is called \"x\": there are w00, w01");
        assert!(said(23).ends_with("w18, w19 and 3 more"), "{}", said(23));
    }
}
