use kiln_cas::stores::MemoryBlobStore;
use prost::Message;

use super::super::subject::tests::{REPORT, test_command};
use super::*;
use crate::reports::CaseTime;

const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// Puts reports in a row.
struct InARow;

impl TestReports for InARow {
    fn cases(&self, _report: &[u8], _label: &str) -> Result<Vec<CaseTime>, String> {
        Ok(Vec::new())
    }

    fn put_together(&self, reports: &[Bytes]) -> Result<Bytes, String> {
        match reports.iter().any(|report| report.starts_with(b"bad")) {
            true => Err("no report".to_owned()),
            false => Ok(reports.concat().into()),
        }
    }

    fn balanced(&self, _cases: &[CaseTime], _lists: usize) -> Vec<Vec<usize>> {
        Vec::new()
    }
}

async fn put(store: &MemoryBlobStore, data: &[u8]) -> Option<reapi::Digest> {
    let digest = FUNCTION.digest(data);
    store.write(&digest, Bytes::copy_from_slice(data)).await.unwrap();
    Some(digest.to_wire())
}

async fn piece(store: &MemoryBlobStore, number: u32, log: &str, files: &[(&str, &[u8])]) -> Piece {
    let mut result = reapi::ActionResult {
        stdout_digest: put(store, log.as_bytes()).await,
        ..Default::default()
    };
    for (path, data) in files {
        let (path, digest) = ((*path).to_owned(), put(store, data).await);
        result.output_files.push(reapi::OutputFile { path, digest, ..Default::default() });
    }
    Piece { number, result }
}

async fn merged(store: &MemoryBlobStore, pieces: &[Piece]) -> Merged {
    let more = [("TEST_UNDECLARED_OUTPUTS_MANIFEST", "o/MANIFEST")];
    let subject = Subject::of(&test_command(&more), "TestRunner", &[]).unwrap();
    let merger = Merger {
        blobs: store,
        reports: Arc::new(InARow),
        subject: &subject,
        function: FUNCTION,
        count: 2,
    };
    merger.put_together(pieces).await.unwrap()
}

async fn content(store: &MemoryBlobStore, digest: Option<&reapi::Digest>) -> Bytes {
    let digest = Digest::from_wire(digest.unwrap(), FUNCTION).unwrap();
    store.read(&digest, 0, None).await.unwrap().collect(u64::MAX).await.unwrap()
}

#[tokio::test]
async fn each_output_is_put_together_in_its_own_way() {
    let store = MemoryBlobStore::default();
    let zips = [zip::tests::archive(&[("a", b"1")]), zip::tests::archive(&[("b", b"2")])];
    let status = "bazel-out/k8/testlogs/a/t/test.shard";
    let mut pieces = Vec::new();
    for (index, zip) in zips.iter().enumerate() {
        let (report, manifest) = (format!("<{index}>"), format!("line {index}"));
        let files: [(&str, &[u8]); 6] = [
            (REPORT, report.as_bytes()),
            (status, b""),
            ("o/outputs.zip", zip),
            ("o/MANIFEST", manifest.as_bytes()),
            ("o/other", report.as_bytes()),
            ("o/same", b"same"),
        ];
        pieces.push(piece(&store, index as u32 + 1, &format!("log {index}"), &files).await);
    }
    let merged = merged(&store, &pieces).await;
    assert!(merged.remarks.is_empty(), "{:?}", merged.remarks);
    let files = &merged.result.output_files;
    let names: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(names, [REPORT, "o/MANIFEST", "o/other", "o/outputs.zip", "o/same"]);
    let mut found = Vec::new();
    for file in files {
        found.push(content(&store, file.digest.as_ref()).await);
    }
    assert_eq!(found[0], "<0><1>");
    assert_eq!(found[1], "line 0\nline 1\n");
    assert_eq!(found[2], "<0>", "of what nobody knows how to put together the first counts");
    let entries = zip::tests::contents(&found[3]);
    assert_eq!(entries, [("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())]);
    assert_eq!(found[4], "same");
    let log = content(&store, merged.result.stdout_digest.as_ref()).await;
    assert_eq!(
        log,
        "==== kiln: shard 1 of 2, exit code 0 ====\nlog 0\n\
         ==== kiln: shard 2 of 2, exit code 0 ====\nlog 1\n"
    );
    assert_eq!(merged.result.stderr_digest, None, "nothing was printed there");
}

#[tokio::test]
async fn what_cannot_be_put_together_is_said() {
    let store = MemoryBlobStore::default();
    let pieces = [
        piece(&store, 1, "", &[(REPORT, b"bad 1"), ("o.zip", b"no zip")]).await,
        piece(&store, 2, "", &[(REPORT, b"bad 2"), ("o.zip", b"nor this")]).await,
    ];
    let merged = merged(&store, &pieces).await;
    assert_eq!(merged.remarks.len(), 2, "{:?}", merged.remarks);
    assert!(merged.result.output_files.is_empty());
}

#[tokio::test]
async fn directories_become_one() {
    let store = MemoryBlobStore::default();
    let mut pieces = Vec::new();
    for (number, name) in [(1, "a"), (2, "b")] {
        let file = reapi::FileNode {
            name: name.to_owned(),
            digest: put(&store, name.as_bytes()).await,
            ..Default::default()
        };
        let root = reapi::Directory { files: vec![file], ..Default::default() };
        let tree = reapi::Tree { root: Some(root), children: Vec::new() };
        let mut piece = piece(&store, number, "", &[]).await;
        piece.result.output_directories.push(reapi::OutputDirectory {
            path: "o".to_owned(),
            tree_digest: put(&store, &tree.encode_to_vec()).await,
            ..Default::default()
        });
        pieces.push(piece);
    }
    let merged = merged(&store, &pieces).await;
    let digest = merged.result.output_directories[0].tree_digest.as_ref();
    let tree = reapi::Tree::decode(content(&store, digest).await).unwrap();
    let names: Vec<_> = tree.root.unwrap().files.into_iter().map(|file| file.name).collect();
    assert_eq!(names, ["a", "b"]);
}
