//! Methods and resource names.

use kiln_protos::reapi;

pub const GET_ACTION_RESULT: &str = "/build.bazel.remote.execution.v2.ActionCache/GetActionResult";
pub const UPDATE_ACTION_RESULT: &str =
    "/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult";
pub const FIND_MISSING: &str =
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs";
pub const BATCH_UPDATE: &str =
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs";
pub const EXECUTE: &str = "/build.bazel.remote.execution.v2.Execution/Execute";
pub const READ: &str = "/google.bytestream.ByteStream/Read";
pub const WRITE: &str = "/google.bytestream.ByteStream/Write";

/// Resource name of a read: `{instance}/blobs/{hash}/{size}`.
pub fn download(instance: &str, digest: &reapi::Digest) -> String {
    let slash = if instance.is_empty() { "" } else { "/" };
    format!("{instance}{slash}blobs/{}/{}", digest.hash, digest.size_bytes)
}

/// Resource name of a write: `{instance}/uploads/{uuid}/blobs/{hash}/{size}`. The UUID is made
/// of the two numbers.
pub fn upload(instance: &str, run: u64, number: u64, digest: &reapi::Digest) -> String {
    let slash = if instance.is_empty() { "" } else { "/" };
    let (a, b, c) = (run >> 32, run >> 16 & 0xffff, run & 0xfff);
    let uuid = format!("{a:08x}-{b:04x}-4{c:03x}-8000-{:012x}", number & 0xffff_ffff_ffff);
    format!("{instance}{slash}uploads/{uuid}/blobs/{}/{}", digest.hash, digest.size_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_names_follow_the_specification() {
        let digest = reapi::Digest { hash: "ab".repeat(32), size_bytes: 7 };
        assert_eq!(download("", &digest), format!("blobs/{}/7", "ab".repeat(32)));
        let name = upload("a/b", 0x1234_5678_9abc_def0, 5, &digest);
        assert_eq!(
            name,
            format!("a/b/uploads/12345678-9abc-4ef0-8000-000000000005/blobs/{}/7", "ab".repeat(32))
        );
    }
}
