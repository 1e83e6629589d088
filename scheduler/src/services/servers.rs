//! The services of a scheduler, ready to be put onto a port.

use std::sync::Arc;

use kiln_cas::records::SharedRecords;
use kiln_cas::services::Deadlines;
use kiln_cas::stores::audit::AuditLog;
use kiln_protos::admin::admin_server::AdminServer;
use kiln_protos::longrunning::operations_server::OperationsServer;
use kiln_protos::reapi::execution_server::ExecutionServer;
use kiln_protos::worker::workers_server::WorkersServer;

use super::admin::AdminService;
use super::execution::ExecutionService;
use super::operations::OperationsService;
use super::workers::WorkersService;
use crate::scheduler::Scheduler;

impl Scheduler {
    pub fn execution_service(&self) -> Deadlines<ExecutionServer<ExecutionService>> {
        let limit = self.core().config.max_message_bytes;
        let server = ExecutionServer::new(ExecutionService { core: self.core().clone() });
        Deadlines(server.max_decoding_message_size(limit).max_encoding_message_size(limit))
    }

    pub fn operations_service(&self) -> Deadlines<OperationsServer<OperationsService>> {
        let limit = self.core().config.max_message_bytes;
        let server = OperationsServer::new(OperationsService { core: self.core().clone() });
        Deadlines(server.max_decoding_message_size(limit).max_encoding_message_size(limit))
    }

    pub fn workers_service(&self) -> WorkersServer<WorkersService> {
        let limit = self.core().config.max_message_bytes;
        WorkersServer::new(WorkersService { core: self.core().clone() })
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit)
    }

    /// The service by which operators act on workers; it notes their acts in the audit log of
    /// `records`.
    pub fn admin_service(&self, records: SharedRecords) -> AdminServer<AdminService> {
        let audit = Arc::new(AuditLog::new(records));
        AdminServer::new(AdminService { core: self.core().clone(), audit })
    }
}
