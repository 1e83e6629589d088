//! Wire types: the Remote Execution API, the Build Event Service, and Kiln's own messages.
//!
//! Nothing here has behaviour. Crates convert these messages into domain types
//! once, at their edge.
//!
//! `generated/` is made from `proto/` by `tests/generated.rs`, and kept, so that whoever compiles Kiln
//! need not compile a compiler of protocol buffers first.

pub use bazel_remote_apis::build::bazel::remote::asset::v1 as asset;
pub use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
pub use bazel_remote_apis::build::bazel::remote::logstream::v1 as logstream;
pub use bazel_remote_apis::build::bazel::semver;
pub use bazel_remote_apis::google::{bytestream, longrunning, protobuf, rpc};

/// Kiln's protocol between scheduler and worker (`proto/kiln/worker/v1`).
pub mod worker {
    #![allow(clippy::all, missing_docs)]
    include!("generated/kiln.worker.v1.rs");

    /// How [`Stored`] is named in an `Any`.
    pub const STORED: &str = "type.googleapis.com/kiln.worker.v1.Stored";

    /// How [`Sandboxed`] is named in an `Any`.
    pub const SANDBOXED: &str = "type.googleapis.com/kiln.worker.v1.Sandboxed";
}

/// Records of executions (`proto/kiln/executions/v1`).
pub mod executions {
    #![allow(clippy::all, missing_docs)]
    include!("generated/kiln.executions.v1.rs");
}

/// Finished executions as events and records (`proto/kiln/events/v1`).
pub mod events {
    #![allow(clippy::all, missing_docs)]
    include!("generated/kiln.events.v1.rs");
}

/// What frontends keep of a task in Redis (`proto/kiln/queue/v1`).
pub mod queue {
    #![allow(clippy::all, missing_docs)]
    include!("generated/kiln.queue.v1.rs");
}

/// The hermeticity check (`proto/kiln/hermeticity/v1`).
pub mod hermeticity {
    #![allow(clippy::all, missing_docs)]
    include!("generated/kiln.hermeticity.v1.rs");
}

/// Live output on its way between frontends (`proto/kiln/logs/v1`).
pub mod logs {
    #![allow(clippy::all, missing_docs)]
    include!("generated/kiln.logs.v1.rs");
}

/// What persistent workers are asked and answer (`proto/kiln/persistent/v1`).
pub mod persistent {
    #![allow(clippy::all, missing_docs)]
    include!("generated/kiln.persistent.v1.rs");
}

/// What operators do to a running server or fleet (`proto/kiln/admin/v1`).
pub mod admin {
    #![allow(clippy::all, missing_docs)]
    include!("generated/kiln.admin.v1.rs");
}

/// What `bazel query --output=proto` prints (`proto/bazel/query.proto`).
pub mod query {
    #![allow(clippy::all, missing_docs)]
    include!("generated/blaze_query.rs");
}

/// The Build Event Service (`proto/google/devtools/build/v1`).
pub mod bes {
    #![allow(clippy::all, missing_docs)]
    include!("generated/google.devtools.build.v1.rs");

    /// How a [`crate::bep::BuildEvent`] is named in an `Any`.
    pub const BAZEL_EVENT: &str = "type.googleapis.com/build_event_stream.BuildEvent";
}

/// Bazel's build event protocol (`proto/build_event_stream`).
pub mod bep {
    #![allow(clippy::all, missing_docs)]
    include!("generated/build_event_stream.rs");
}
