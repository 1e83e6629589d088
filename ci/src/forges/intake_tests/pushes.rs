//! Pushes, for pipelines that may wait for them.

use super::*;
use crate::pipelines::file::read;

/// A pipeline that waits for pushes to the main branch of the repositories of these tests.
const PIPELINE: &str = r#"
name = "pushed"
[[trigger]]
on = "push"
branches = ["main"]
forge = "hub"
repository = "codertocat/hello-world"
[[trigger]]
on = "push"
branches = ["main"]
forge = "hub"
repository = "mike/diaspora"
[[stage]]
name = "a"
command = ["true"]
"#;

/// What GitHub sends of a push, less the addresses of its API and what it says of the repository's owner.
fn push() -> Value {
    json!({
        "ref": "refs/heads/main",
        "before": "6113728f27ae82c7b1a177c8d03f9e96e0adf246",
        "after": "59b20b8d5c6ff8d09518454d4dd8b7b30f095ab5",
        "created": false,
        "deleted": false,
        "forced": false,
        "base_ref": null,
        "compare": "https://github.com/Codertocat/Hello-World/compare/6113728f27ae...59b20b8d5c6f",
        "commits": [],
        "head_commit": {
            "id": "59b20b8d5c6ff8d09518454d4dd8b7b30f095ab5",
            "tree_id": "f9d2a07e9488b91af2641b26b9407fe22a451433",
            "distinct": true,
            "message": "Adding a .gitignore file",
            "timestamp": "2019-05-15T15:20:30+02:00",
            "author": {"name": "Codertocat", "email": "21031067+Codertocat@users.noreply.github.com"},
            "added": [".gitignore"],
            "removed": [],
            "modified": [],
        },
        "repository": {
            "id": 186853002,
            "name": "Hello-World",
            "full_name": "Codertocat/Hello-World",
            "private": false,
            "owner": {"name": "Codertocat", "login": "Codertocat", "id": 21031067},
            "created_at": 1557933565,
            "updated_at": "2025-12-31T23:58:41Z",
            "pushed_at": 1_767_225_540,
            "default_branch": "main",
            "master_branch": "main",
        },
        "pusher": {"name": "Codertocat", "email": "21031067+Codertocat@users.noreply.github.com"},
        "sender": {"login": "Codertocat", "id": 21031067, "type": "User"},
    })
}

fn told(kind: Kind) -> House {
    let declared = Arc::new(read(PIPELINE).unwrap());
    let registered = Registered { declared, instance: String::new() };
    let pipelines = Arc::new(BTreeMap::from([("pushed".to_owned(), registered)]));
    house_over(kind, SECRET, false, Desk { pushes: true, pipelines, ..Desk::default() })
}

/// Pushes that wait for whoever drives pipelines.
async fn waiting(house: &House) -> Vec<Value> {
    let found = house.memory.list("pipelines/pushed/", None, false, 10).await.unwrap();
    found.iter().map(|it| serde_json::from_slice(&it.value).unwrap()).collect()
}

#[tokio::test]
async fn a_push_is_left_with_pipelines_once_however_often_it_comes() {
    let house = told(Kind::GitHub);
    let first = house.github("1", "push", &push()).await;
    assert!(matches!(first, Ok(Accepted::Asked(_))), "{first:?}");
    for id in ["1", "2"] {
        assert_eq!(house.github(id, "push", &push()).await, Ok(Accepted::Known));
    }
    let [left] = &waiting(&house).await[..] else { panic!("there is one") };
    let expected = json!({
        "forge": "hub",
        "repository": "Codertocat/Hello-World",
        "branch": "main",
        "commit": "59b20b8d5c6ff8d09518454d4dd8b7b30f095ab5",
        "by": "Codertocat",
    });
    assert_eq!(left["push"], expected);
    let known = house.memory.list("forges/hub/known/", None, false, 10).await.unwrap();
    assert_eq!(known.len(), 2, "its id and its body: what is known has a bound");
    assert_eq!(house.asked(), 0, "no queue is asked for anything");
}

#[tokio::test]
async fn a_push_that_no_pipeline_waits_for_is_not_kept() {
    let house = told(Kind::GitHub);
    let (mut branch, mut repository) = (push(), push());
    branch["ref"] = json!("refs/heads/feature");
    repository["repository"]["full_name"] = json!("Codertocat/Other");
    for (id, body) in [("1", branch), ("2", repository)] {
        let taken = house.github(id, "push", &body).await;
        assert!(matches!(taken, Ok(Accepted::Ignored(_))), "{taken:?}");
    }
    assert!(waiting(&house).await.is_empty());
    let known = house.memory.list("forges/hub/known/", None, false, 10).await.unwrap();
    assert!(known.is_empty(), "there is nothing to do once");
    assert!(matches!(house.github("3", "push", &push()).await, Ok(Accepted::Asked(_))));
}

#[tokio::test]
async fn what_is_forged_or_late_or_no_branch_begins_nothing() {
    let house = told(Kind::GitHub);
    let body = push().to_string();
    let wrong = signature("another secret of ours", &body);
    let headers = [
        ("content-type", "application/json"),
        ("x-github-event", "push"),
        ("x-hub-signature-256", wrong.as_str()),
    ];
    assert_eq!(house.send(&headers, &body).await, Err(Rejected::Invalid(Invalid::Forged)));
    let mut tag = push();
    tag["ref"] = json!("refs/tags/v1");
    assert!(matches!(house.github("1", "push", &tag).await, Ok(Accepted::Ignored(_))));
    let mut timeless = push();
    timeless["head_commit"] = Value::Null;
    timeless["repository"] = json!({"full_name": "Codertocat/Hello-World"});
    let refused = house.github("2", "push", &timeless).await;
    assert!(matches!(refused, Err(Rejected::Malformed(_))), "{refused:?}");
    // Whoever commits may choose a time that is ahead.
    let mut ahead = push();
    ahead["repository"] = json!({"full_name": "Codertocat/Hello-World"});
    ahead["head_commit"]["timestamp"] = json!("2099-01-01T00:00:00Z");
    let refused = house.github("3", "push", &ahead).await;
    assert!(matches!(refused, Err(Rejected::Malformed(_))), "{refused:?}");
    *house.clock.0.lock().unwrap() = Time(NOW).plus(WINDOW);
    assert_eq!(house.github("4", "push", &push()).await, Err(Rejected::Late(WINDOW)));
    assert!(waiting(&house).await.is_empty());
}

#[tokio::test]
async fn a_commit_of_a_time_yet_to_come_makes_no_copy_count_then() {
    let house = told(Kind::GitHub);
    let mut ahead = push();
    ahead["head_commit"]["timestamp"] = json!("2026-01-10T00:00:00Z");
    assert!(matches!(house.github("1", "push", &ahead).await, Ok(Accepted::Asked(_))));
    *house.clock.0.lock().unwrap() = Time(NOW).plus(3 * WINDOW);
    assert_eq!(house.github("2", "push", &ahead).await, Err(Rejected::Late(WINDOW)));
}

#[tokio::test]
async fn what_could_not_be_left_may_come_again() {
    let house = told(Kind::GitHub);
    house.memory.fail_after(0, false);
    let refused = house.github("1", "push", &push()).await;
    assert!(matches!(refused, Err(Rejected::Unavailable(_))), "{refused:?}");
    house.memory.recover();
    assert!(matches!(house.github("1", "push", &push()).await, Ok(Accepted::Asked(_))));
    assert_eq!(waiting(&house).await.len(), 1);
}

#[tokio::test]
async fn gitlab_tells_of_pushes_as_well() {
    let house = told(Kind::GitLab);
    let headers = [
        ("content-type", "application/json"),
        ("x-gitlab-event", "Push Hook"),
        ("x-gitlab-token", SECRET),
    ];
    let body = json!({
        "object_kind": "push",
        "event_name": "push",
        "before": "95790bf891e76fee5e1747ab589903a6a1f80f22",
        "after": "da1560886d4f094c3e6c9ef40349f7d38b5d27d7",
        "ref": "refs/heads/main",
        "checkout_sha": "da1560886d4f094c3e6c9ef40349f7d38b5d27d7",
        "user_username": "jsmith",
        "project": {"id": 15, "path_with_namespace": "mike/diaspora"},
    });
    let told = house.send(&headers, &body.to_string()).await;
    assert!(matches!(told, Ok(Accepted::Asked(_))), "{told:?}");
    assert_eq!(waiting(&house).await[0]["push"]["by"], "jsmith");
}
