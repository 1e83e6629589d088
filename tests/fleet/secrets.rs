//! The frontends of a fleet know passwords and keys. They must not show them in logs of any level, nor in the list of
//! processes.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use kiln_test_servers::redis::RedisServer;
use kiln_test_servers::s3::Weed;

use crate::support::reapi::{Client, Spec};
use crate::support::server::{Server, command, get_json, program};

const PASSWORD: &str = "password-of-redis";
const SESSION_TOKEN: &str = "session-token-of-aws";
/// The beginning of the header that every request to S3 carries.
const SIGNATURE: &str = "AWS4-HMAC-SHA256 Credential=";

/// Makes the command of a frontend. The URL of Redis comes from the environment, because it has the password, and the
/// bucket comes as a flag.
fn frontend(redis: &RedisServer, weed: &Weed, data: &Path) -> Command {
    let keys = weed.credentials();
    let mut command = command("127.0.0.1:0", data, &["--workers", "1"]);
    command
        .args(["--s3", &format!("s3://{}/kiln", weed.bucket())])
        .env("KILN_REDIS_URL", format!("redis://:{PASSWORD}@127.0.0.1:{}", redis.port()))
        .env("KILN_S3_ENDPOINT", weed.endpoint())
        .env("AWS_ACCESS_KEY_ID", keys.access_key)
        .env("AWS_SECRET_ACCESS_KEY", keys.secret_key)
        .env("AWS_REGION", "us-east-1")
        .env("KILN_LOG_FILTER", "trace,aws_smithy_runtime::client::orchestrator=trace");
    command
}

fn expect_no_secret(said: &str, weed: &Weed) {
    for secret in [PASSWORD, SESSION_TOKEN, weed.credentials().secret_key, SIGNATURE] {
        let shown = said.lines().find(|line| line.contains(secret));
        assert!(shown.is_none(), "{secret} is shown: {shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_log_and_no_command_line_shows_a_secret() {
    let Some(redis) = RedisServer::start_with(&["--requirepass", PASSWORD]) else { return };
    let Some(weed) = Weed::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (log, data) = (dir.path().join("log"), dir.path().join("data"));
    let mut command = frontend(&redis, &weed, &data);
    command.stderr(File::create(&log).unwrap());
    let server = Server::spawn_logged(command, &data);
    let client = Client::connect(&server.url()).await;
    client.execute(&Spec::shell("echo x > out", &["out"])).await.unwrap();
    let status = get_json(&server.address, "/api/v1/status");
    assert!(status["shared"]["blobs"].as_u64() > Some(0), "{status:#}");
    assert_eq!(status["shared"]["index_incomplete"], false);
    let line = std::fs::read(format!("/proc/{}/cmdline", server.id())).unwrap();
    expect_no_secret(&String::from_utf8_lossy(&line), &weed);
    assert!(server.terminate().success());
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains(" TRACE "), "nothing was logged at trace");
    expect_no_secret(&said, &weed);
}

/// The S3 of the tests refuses session tokens, so the server ends after a few requests. These requests are what could
/// show the token.
#[test]
fn no_log_shows_a_session_token() {
    let Some(redis) = RedisServer::start_with(&["--requirepass", PASSWORD]) else { return };
    let Some(weed) = Weed::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let mut command = frontend(&redis, &weed, data.path());
    command.env("AWS_SESSION_TOKEN", SESSION_TOKEN);
    let (code, said) = program(command).expect("the gateway refuses the token");
    assert_eq!(code, 5, "{said}");
    assert!(said.contains(" TRACE ") && said.contains("S3.ListObjectsV2"), "{said}");
    expect_no_secret(&said, &weed);
}
