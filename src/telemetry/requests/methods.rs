//! Every gRPC method that this server has, with a fixed place each: counting a call looks up no
//! label and allocates nothing, and a path made up by a client makes no new series.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    pub service: &'static str,
    pub name: &'static str,
    path: &'static str,
}

macro_rules! methods {
    ($($service:literal: $($name:literal)*;)*) => {
        &[$($(Method {
            service: $service,
            name: $name,
            path: concat!("/", $service, "/", $name),
        },)*)*]
    };
}

/// The frequent ones first: the list is searched from its start.
pub const METHODS: &[Method] = methods! {
    "build.bazel.remote.execution.v2.ActionCache": "GetActionResult" "UpdateActionResult";
    "google.bytestream.ByteStream": "Read" "Write" "QueryWriteStatus";
    "build.bazel.remote.execution.v2.ContentAddressableStorage":
        "FindMissingBlobs" "BatchUpdateBlobs" "BatchReadBlobs" "GetTree" "SplitBlob" "SpliceBlob"
        "GetChunkMapping" "RegisterChunkMapping";
    "build.bazel.remote.execution.v2.Execution": "Execute" "WaitExecution";
    "build.bazel.remote.execution.v2.Capabilities": "GetCapabilities";
    "google.longrunning.Operations":
        "GetOperation" "ListOperations" "CancelOperation" "DeleteOperation" "WaitOperation";
    "kiln.hermeticity.v1.Hermeticity": "Check";
    "kiln.worker.v1.Workers": "Session";
    "kiln.admin.v1.Admin": "DrainWorker";
    "build.bazel.remote.asset.v1.Fetch": "FetchBlob" "FetchDirectory";
    "build.bazel.remote.asset.v1.Push": "PushBlob" "PushDirectory";
    "build.bazel.remote.logstream.v1.LogStreamService": "CreateLogStream";
    "google.devtools.build.v1.PublishBuildEvent":
        "PublishLifecycleEvent" "PublishBuildToolEventStream";
    "grpc.health.v1.Health": "Check" "Watch";
};

/// The method that calls count as which are of no known method.
const UNKNOWN: Method = Method { service: "unknown", name: "unknown", path: "" };

/// The number of places of methods, that of the unknown method included.
pub const PLACES: usize = METHODS.len() + 1;

/// The method at this place; the unknown one for places that are none.
pub fn method(place: usize) -> Method {
    METHODS.get(place).copied().unwrap_or(UNKNOWN)
}

/// The place of the method that a request's path names; `None`: no method of this server.
pub fn place(path: &str) -> Option<usize> {
    METHODS.iter().position(|method| method.path == path)
}

/// The place of the unknown method.
pub const UNKNOWN_PLACE: usize = METHODS.len();

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kiln_protos::{
        admin, asset, bes, bytestream, hermeticity, logstream, longrunning, reapi, worker,
    };

    use super::*;

    #[test]
    fn places_and_paths_belong_together() {
        for (index, method) in METHODS.iter().enumerate() {
            assert_eq!(place(method.path), Some(index));
            assert_eq!(super::method(index), *method);
        }
        assert_eq!(place("/build.bazel.remote.execution.v2.ActionCache/Nothing"), None);
        assert_eq!(method(UNKNOWN_PLACE), UNKNOWN);
    }

    #[test]
    fn the_services_are_those_of_the_generated_code() {
        let generated = BTreeSet::from([
            reapi::action_cache_server::SERVICE_NAME,
            reapi::capabilities_server::SERVICE_NAME,
            reapi::content_addressable_storage_server::SERVICE_NAME,
            reapi::execution_server::SERVICE_NAME,
            bytestream::byte_stream_server::SERVICE_NAME,
            longrunning::operations_server::SERVICE_NAME,
            asset::fetch_server::SERVICE_NAME,
            asset::push_server::SERVICE_NAME,
            logstream::log_stream_service_server::SERVICE_NAME,
            hermeticity::hermeticity_server::SERVICE_NAME,
            worker::workers_server::SERVICE_NAME,
            admin::admin_server::SERVICE_NAME,
            bes::publish_build_event_server::SERVICE_NAME,
            "grpc.health.v1.Health",
        ]);
        assert_eq!(METHODS.iter().map(|method| method.service).collect::<BTreeSet<_>>(), generated);
    }
}
