//! The client of the server: its connections, and the instance that it asks for.

use std::sync::Arc;

use kiln_net::grpc::{Connection, Connections, Failures, MAX_MESSAGE};
use kiln_protos::reapi::content_addressable_storage_client::ContentAddressableStorageClient;

use super::transfers::Transfers;

/// Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Client {
    pub server: Connections,
    /// The instance name of every request.
    pub instance: Arc<str>,
    /// Counts what goes over the connections.
    pub transfers: Arc<Transfers>,
}

impl Client {
    pub fn cas(&self) -> ContentAddressableStorageClient<Connection> {
        ContentAddressableStorageClient::new(self.server.main())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    /// Counts the failures of one call.
    pub fn failures(&self) -> Failures {
        Failures::over(&self.server)
    }
}
