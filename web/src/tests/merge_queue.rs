//! Merge queues, as pages and programs see them.

use super::pages::{json, open, page};
use super::sample;
use crate::router;

#[tokio::test]
async fn a_queue_is_shown_with_what_waits_why_and_what_was_rejected() {
    let router = router(sample::empty().await);
    let list = page(&router, "/merge-queues").await;
    for part in ["/merge-queues/app", "ci-1 (77)", "aaaaaaaaaaaa"] {
        assert!(list.contains(part), "{part}: {list}");
    }
    let shown = page(&router, "/merge-queues/app").await;
    for part in [
        "it is tested",
        "//app:test failed",
        "/merge-queues/app/runs/7",
        "bazel test //...",
        "by ana",
        "kiln queue add --server http://build.example.com:8980 --queue app",
        "http-equiv=\"refresh\"",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let run = page(&router, "/merge-queues/app/runs/7").await;
    assert!(run.contains("expected &lt;1&gt;, was &lt;2&gt;"), "{run}");
    let queue = json(&router, "/api/v1/merge-queues/app").await;
    assert_eq!((&queue["changes"][0]["branch"], &queue["waiting"]), (&"good".into(), &2.into()));
    assert_eq!((&queue["ended"][0]["run"], &queue["check_s"]), (&7.into(), &60.0.into()));
    let bad = json(&router, "/api/v1/merge-queues/app/change?branch=bad").await;
    assert_eq!(bad["ended"]["rejected"], true);
    for unknown in [
        "/merge-queues/other",
        "/merge-queues/app/runs/8",
        "/api/v1/merge-queues/app/change?branch=none",
        "/api/v1/merge-queues/app/requests/1",
    ] {
        assert_eq!(open(&router, unknown).await.0.status(), 404, "{unknown}");
    }
}
