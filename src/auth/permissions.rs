//! What a caller has to be allowed for each way into the server: the one table of it.
//!
//! Whoever takes a request in asks for the right before anything of the request is read, in any
//! instance; the services ask again for the instance, which most requests name in their message.
//! What is not in the table is not served.

use http::Method;
use kiln_cas::access::Right;
use serde::Deserialize;

/// The right that a request needs before it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// The right in the instance that the request names.
    Instance(Right),
    /// The right in all instances, because the answer shows or touches all of them.
    All(Right),
    /// The right in all instances, unless the configuration opens this door to everybody
    /// (`auth.open`).
    Closable(Door, Right),
    /// No right; credentials that are shown have to be valid.
    Introduction,
}

/// The ways into the server that `auth.open` can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Door {
    Health,
    Metrics,
    Pages,
}

impl Door {
    pub const ALL: [(Self, &str); 3] =
        [(Self::Health, "health"), (Self::Metrics, "metrics"), (Self::Pages, "pages")];
}

use Permission::{All, Closable, Instance, Introduction};
use Right::{
    Administer, Execute, Host, Land, Queue, Read, Release, Work, WriteBlobs, WriteResults,
};

type Methods = &'static [(&'static str, Permission)];

/// The permission of each gRPC method, by service.
#[rustfmt::skip]
const GRPC: &[(&str, Methods)] = &[
    ("build.bazel.remote.execution.v2.ActionCache", &[
        ("GetActionResult", Instance(Read)),
        ("UpdateActionResult", Instance(WriteResults)),
    ]),
    ("google.bytestream.ByteStream", &[
        ("Read", Instance(Read)),
        ("Write", Instance(WriteBlobs)),
        ("QueryWriteStatus", Instance(WriteBlobs)),
    ]),
    ("build.bazel.remote.execution.v2.ContentAddressableStorage", &[
        ("FindMissingBlobs", Instance(Read)),
        ("BatchUpdateBlobs", Instance(WriteBlobs)),
        ("BatchReadBlobs", Instance(Read)),
        ("GetTree", Instance(Read)),
        ("SplitBlob", Instance(Read)),
        ("SpliceBlob", Instance(WriteBlobs)),
        ("GetChunkMapping", Instance(Read)),
        ("RegisterChunkMapping", Instance(WriteBlobs)),
    ]),
    ("build.bazel.remote.execution.v2.Execution", &[
        ("Execute", Instance(Execute)),
        ("WaitExecution", Instance(Execute)),
    ]),
    ("build.bazel.remote.execution.v2.Capabilities", &[
        ("GetCapabilities", Instance(Read)),
    ]),
    ("google.longrunning.Operations", &[
        ("GetOperation", Instance(Read)),
        ("ListOperations", Instance(Read)),
        ("WaitOperation", Instance(Read)),
        // Of one's own; for those of others the service asks for `Administer`.
        ("CancelOperation", Instance(Execute)),
        ("DeleteOperation", Instance(Execute)),
    ]),
    ("kiln.hermeticity.v1.Hermeticity", &[
        ("Check", Instance(Execute)),
    ]),
    ("kiln.worker.v1.Workers", &[
        ("Session", All(Work)),
    ]),
    ("kiln.admin.v1.Admin", &[
        ("DrainWorker", All(Administer)),
    ]),
    ("build.bazel.remote.asset.v1.Fetch", &[
        ("FetchBlob", Instance(Read)),
        ("FetchDirectory", Instance(Read)),
    ]),
    ("build.bazel.remote.asset.v1.Push", &[
        ("PushBlob", Instance(WriteResults)),
        ("PushDirectory", Instance(WriteResults)),
    ]),
    ("build.bazel.remote.logstream.v1.LogStreamService", &[
        ("CreateLogStream", Instance(WriteBlobs)),
    ]),
    ("google.devtools.build.v1.PublishBuildEvent", &[
        ("PublishLifecycleEvent", Instance(WriteBlobs)),
        ("PublishBuildToolEventStream", Instance(WriteBlobs)),
    ]),
    ("grpc.health.v1.Health", &[
        ("Check", Closable(Door::Health, Read)),
        ("Watch", Closable(Door::Health, Read)),
    ]),
];

/// First segments of the paths of pages and their API, which have precedence over the HTTP cache.
const PAGES: [&str; 17] = [
    "",
    "builds",
    "actions",
    "tests",
    "queue",
    "merge-queues",
    "hermeticity",
    "releases",
    "environments",
    "rollouts",
    "pipelines",
    "fleet",
    "profile",
    "blobs",
    "api",
    "style.css",
    "favicon.svg",
];

/// The path to which reports of tests are sent, to become history.
pub const IMPORT: &str = "/api/v1/tests/import";

/// The path below which forges deliver events; they prove themselves by the secret of their
/// webhook.
const FORGES: &str = "/api/v1/forges/";

/// Below it is the registry of the Open Container Initiative's specification.
pub const REGISTRY: &str = "/v2/";
/// The path at which the registry's clients exchange a password for a token.
pub const REGISTRY_TOKEN: &str = "/v2/token";

/// Whether a path is the registry's.
pub fn is_registry(path: &str) -> bool {
    path.starts_with(REGISTRY) || path == "/v2"
}

/// The permission that a gRPC call of this path needs; `None`: there is no such method.
pub fn of_grpc(path: &str) -> Option<Permission> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let (_, methods) = GRPC.iter().find(|(name, _)| *name == service)?;
    methods.iter().find(|(name, _)| *name == method).map(|(_, permission)| *permission)
}

/// The permission that a request which is no gRPC call needs.
pub fn of_http(method: &Method, path: &str) -> Permission {
    let mut segments = path.trim_start_matches('/').split('/');
    let first = segments.next().unwrap_or_default();
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match path {
        "/metrics" => return Closable(Door::Metrics, Read),
        "/healthz" | "/readyz" => return Closable(Door::Health, Read),
        IMPORT if !reads => return Instance(WriteBlobs),
        REGISTRY_TOKEN => return Introduction,
        _ if *method == Method::POST && is_delivery(path) => return Introduction,
        // Who writes manifests or deletes is asked for more, where it is known what in which instance.
        _ if is_registry(path) => return Instance(if reads { Read } else { WriteBlobs }),
        _ => {}
    }
    if let Some(permission) = of_api(path, reads) {
        return permission;
    }
    if PAGES.contains(&first) || path.starts_with("/cas/tree/") {
        return Closable(Door::Pages, Read);
    }
    let mut from_the_end = path.rsplit('/');
    let (_hash, kind) = (from_the_end.next(), from_the_end.next());
    match (kind, reads) {
        (Some("ac" | "cas"), true) => Instance(Read),
        (Some("cas"), false) => Instance(WriteBlobs),
        (Some("ac"), false) => Instance(WriteResults),
        (_, true) => All(Read),
        (_, false) => All(Administer),
    }
}

/// Whether a path is that of a forge's deliveries. No other path below `FORGES` is open without
/// credentials, since it may be one of the HTTP cache.
fn is_delivery(path: &str) -> bool {
    let name = path.strip_prefix(FORGES).and_then(|it| it.strip_suffix("/events"));
    name.is_some_and(|it| !it.is_empty() && !it.contains('/'))
}

/// The permission of a part of the API that takes another one than pages do; `None`: the path is in
/// none of these parts.
fn of_api(path: &str, reads: bool) -> Option<Permission> {
    let is_below = |prefix: &str| {
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if is_below("/api/v1/audit") {
        return Some(All(Administer));
    }
    if is_below("/api/v1/tests/quarantine") {
        // What is listed is of the instances that the caller may read.
        return Some(Instance(if reads { Read } else { WriteResults }));
    }
    if is_below("/api/v1/tests/plans") {
        return Some(Instance(if reads { Read } else { WriteBlobs }));
    }
    if is_below("/api/v1/promotions") {
        return Some(Instance(Release));
    }
    if is_below("/api/v1/fleet/agent") {
        // For which service is in the body: whoever answers asks again.
        return Some(Instance(Host));
    }
    if is_below("/api/v1/fleet/remove") {
        return Some(All(Administer));
    }
    if is_below("/api/v1/fleet") && !reads {
        return Some(Instance(Release));
    }
    if is_below("/api/v1/merge-queues") && !reads {
        // Which queue is in the body: whoever answers asks again.
        if is_below("/api/v1/merge-queues/forget") {
            return Some(All(Administer));
        }
        let runs = is_below("/api/v1/merge-queues/runner");
        return Some(Instance(if runs { Land } else { Queue }));
    }
    if is_below("/api/v1/pipelines") {
        // What a run does is in the body: whoever answers asks again, for more where it releases.
        return Some(Instance(if reads { Read } else { Execute }));
    }
    if is_below("/api/v1/previews") && !reads {
        return Some(Instance(Release));
    }
    if is_below("/api/v1/environments") {
        return Some(Instance(Read));
    }
    if is_below("/api/v1/releases") || is_below("/api/v1/rollouts") || is_below("/api/v1/locks") {
        return Some(Instance(if reads { Read } else { Release }));
    }
    let reads_instances = is_below("/api/v1/tests/gate") || is_below("/api/v1/explain");
    reads_instances.then_some(Instance(Read))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::requests::METHODS;

    #[test]
    fn every_method_of_the_server_takes_a_permission_and_no_other_does() {
        for method in METHODS {
            let path = format!("/{}/{}", method.service, method.name);
            assert!(of_grpc(&path).is_some(), "{path}");
        }
        let listed: usize = GRPC.iter().map(|(_, methods)| methods.len()).sum();
        assert_eq!(listed, METHODS.len());
        for unknown in
            ["", "/", "/x/y", "/grpc.health.v1.Health/Nothing", "grpc.health.v1.Health/Check"]
        {
            assert_eq!(of_grpc(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn paths_need_what_they_lead_to() {
        let hash = "ab".repeat(32);
        let pages = Closable(Door::Pages, Read);
        for (method, path, permission) in [
            ("GET", "/".to_owned(), pages),
            ("GET", "/builds/x/ac/y".to_owned(), pages),
            ("GET", "/tests/grid".to_owned(), pages),
            ("GET", format!("/cas/tree/sha256/{hash}/1"), pages),
            ("GET", "/api/v1/status".to_owned(), pages),
            ("POST", IMPORT.to_owned(), Instance(WriteBlobs)),
            ("GET", IMPORT.to_owned(), pages),
            ("POST", "/api/v1/tests/gate".to_owned(), Instance(Read)),
            ("GET", "/api/v1/tests/quarantine".to_owned(), Instance(Read)),
            ("POST", "/api/v1/tests/quarantine".to_owned(), Instance(WriteResults)),
            ("POST", "/api/v1/tests/quarantine/remove".to_owned(), Instance(WriteResults)),
            ("GET", "/api/v1/releases".to_owned(), Instance(Read)),
            ("POST", "/api/v1/releases".to_owned(), Instance(Release)),
            ("GET", "/api/v1/fleet".to_owned(), pages),
            ("POST", "/api/v1/fleet/tell".to_owned(), Instance(Release)),
            ("POST", "/api/v1/fleet/remove".to_owned(), All(Administer)),
            ("POST", "/api/v1/fleet/agent/report".to_owned(), Instance(Host)),
            ("GET", "/api/v1/merge-queues/runner".to_owned(), pages),
            ("POST", "/api/v1/merge-queues/say".to_owned(), Instance(Queue)),
            ("POST", "/api/v1/merge-queues/forget".to_owned(), All(Administer)),
            ("POST", "/api/v1/merge-queues/runner/step".to_owned(), Instance(Land)),
            ("GET", "/merge-queues/main".to_owned(), pages),
            ("POST", "/api/v1/releases/reject".to_owned(), Instance(Release)),
            ("POST", "/api/v1/releases/gc".to_owned(), Instance(Release)),
            ("GET", "/api/v1/environments/prod".to_owned(), Instance(Read)),
            ("POST", "/api/v1/promotions/rollback".to_owned(), Instance(Release)),
            ("GET", "/environments".to_owned(), pages),
            ("GET", "/api/v1/rollouts/m1".to_owned(), Instance(Read)),
            ("GET", "/api/v1/pipelines/m1".to_owned(), Instance(Read)),
            ("GET", "/pipelines/m1".to_owned(), pages),
            ("POST", "/api/v1/rollouts/say".to_owned(), Instance(Release)),
            ("POST", "/api/v1/rollouts/abandon".to_owned(), Instance(Release)),
            ("POST", "/api/v1/locks/remove".to_owned(), Instance(Release)),
            ("GET", "/api/v1/pipelines".to_owned(), Instance(Read)),
            ("POST", "/api/v1/pipelines/say".to_owned(), Instance(Execute)),
            ("POST", "/api/v1/pipelines/abandon".to_owned(), Instance(Execute)),
            ("POST", "/api/v1/previews/down".to_owned(), Instance(Release)),
            ("GET", "/rollouts/m1".to_owned(), pages),
            ("GET", "/api/v1/audit/export".to_owned(), All(Administer)),
            ("GET", "/api/v1/explain".to_owned(), Instance(Read)),
            ("GET", "/releases/team/app:1".to_owned(), pages),
            ("GET", "/api/v1/tests/quarantine/history".to_owned(), Instance(Read)),
            ("GET", "/api/v1/tests/flakes".to_owned(), pages),
            ("GET", "/api/v1/tests/plans".to_owned(), Instance(Read)),
            ("POST", "/api/v1/tests/plans".to_owned(), Instance(WriteBlobs)),
            ("POST", "/api/v1/tests/plans/next".to_owned(), Instance(WriteBlobs)),
            ("GET", "/api/v1/audit".to_owned(), All(Administer)),
            ("GET", "/api/v1/audit/check".to_owned(), All(Administer)),
            ("GET", "/metrics".to_owned(), Closable(Door::Metrics, Read)),
            ("GET", "/readyz".to_owned(), Closable(Door::Health, Read)),
            ("GET", format!("/ac/{hash}"), Instance(Read)),
            ("HEAD", format!("/team/a/cas/{hash}"), Instance(Read)),
            ("PUT", format!("/team/a/cas/{hash}"), Instance(WriteBlobs)),
            ("PUT", format!("/team/a/ac/{hash}"), Instance(WriteResults)),
            ("GET", "/metrics2".to_owned(), All(Read)),
            ("GET", "/v2".to_owned(), Instance(Read)),
            ("GET", "/v2/".to_owned(), Instance(Read)),
            ("POST", "/api/v1/forges/hub/events".to_owned(), Introduction),
            ("GET", "/api/v1/forges/hub/events".to_owned(), pages),
            ("PUT", "/api/v1/forges/hub/events".to_owned(), pages),
            ("POST", "/api/v1/forges/hub/more/events".to_owned(), pages),
            ("PUT", format!("/api/v1/forges/cas/{hash}"), pages),
            ("GET", "/v2/token".to_owned(), Introduction),
            ("HEAD", format!("/v2/app/blobs/sha256:{hash}"), Instance(Read)),
            ("PUT", "/v2/team/app/manifests/v1".to_owned(), Instance(WriteBlobs)),
            ("DELETE", "/v2/team/app/manifests/v1".to_owned(), Instance(WriteBlobs)),
            ("POST", "/anything".to_owned(), All(Administer)),
        ] {
            assert_eq!(of_http(&method.parse().unwrap(), &path), permission, "{method} {path}");
        }
    }
}
