//! A push of which a forge tells begins a pipeline of the operator's.

use super::*;

const PIPELINE: &str = r#"
name = "pushed"

[[trigger]]
on = "push"
branches = ["main"]
forge = "hub"
repository = "owner/app"

[[stage]]
name = "sign-off"
kind = "approve"
message = "go on?"
"#;

#[tokio::test]
async fn a_push_begins_one_run_of_the_pipeline_that_waits_for_it() {
    let place = tempfile::tempdir().expect("a directory");
    let (pipelines, file) = (place.path().join("pipelines"), place.path().join("forges.toml"));
    std::fs::create_dir(&pipelines).expect("a directory");
    std::fs::write(pipelines.join("pushed.toml"), PIPELINE).expect("a file");
    std::fs::write(place.path().join("secret"), SECRET).expect("a file");
    let forges =
        "[[forge]]\nname = \"hub\"\nkind = \"github\"\nsecret_file = \"secret\"\npushes = true\n";
    std::fs::write(&file, forges).expect("a file");
    let data = place.path().join("data");
    let mut command = command("127.0.0.1:0", &data, &[]);
    command.env("KILN_FORGES_FILE", &file).env("KILN_PIPELINES_DIRECTORY", &pipelines);
    command.env("KILN_WORKERS_COUNT", "0");
    let server = Server::spawn(command, &data);
    let deliveries = Deliveries::to(&server);
    let commit = "a".repeat(40);
    let push = |branch: &str| {
        json!({
            "ref": format!("refs/heads/{branch}"),
            "after": commit,
            "repository": {
                "full_name": "owner/app",
                "pushed_at": OffsetDateTime::now_utc().unix_timestamp(),
            },
            "sender": {"login": "alice"},
        })
    };
    let (main, feature) = (push("main"), push("feature"));
    let (status, said) = deliveries.say("push", "1", &feature).await;
    assert_eq!((status, &said["outcome"]), (202, &json!("ignored")), "{said}");
    let (status, said) = deliveries.say("push", "2", &main).await;
    assert_eq!((status, &said["outcome"]), (200, &json!("asked")), "{said}");
    let (status, said) = deliveries.say("push", "3", &main).await;
    assert_eq!((status, &said["outcome"]), (200, &json!("already known")), "{said}");
    let runs = || {
        let found = get_json(&server.address, "/api/v1/pipelines");
        found["runs"].as_array().filter(|it| !it.is_empty()).cloned()
    };
    let runs = until("the push begins a run", runs).await;
    let [run] = &runs[..] else { panic!("{runs:?}") };
    let begun = ["pipeline", "trigger", "branch", "commit", "by"].map(|it| run[it].clone());
    assert_eq!(json!(begun), json!(["pushed", "push", "main", commit, "hub: alice"]));
}
