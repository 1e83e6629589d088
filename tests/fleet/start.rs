//! Servers that cannot start as they are told to: each has to say what is wrong, where, and what to do.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::rig::Shared;
use crate::support::server::{Server, command, get_json, program};

/// Returns a port on which nobody listens.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asserts that the server ends with exit code 5 and prints all these words.
fn expect_refusal(command: Command, words: &[&str]) {
    expect_code(5, command, words);
}

fn expect_code(expected: i32, command: Command, words: &[&str]) {
    let begun = Instant::now();
    let (code, text) = program(command).expect("it does not become ready");
    assert_eq!(code, expected, "{text}");
    assert!(!text.contains("storage: storage"), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not said: {text}");
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
}

#[test]
fn a_redis_that_stays_away_is_named() {
    let Some(mut shared) = Shared::start() else { return };
    let port = free_port();
    shared.redis_url = format!("redis://127.0.0.1:{port}");
    let mut command = shared.command("one", &[]);
    command.env("KILN_REDIS_WAIT", "1s");
    expect_refusal(command, &["Redis", &format!("127.0.0.1:{port}"), "start it, or correct"]);
}

#[test]
fn a_server_that_waits_for_redis_is_not_ready_and_serves_as_soon_as_it_is_there() {
    let Some(mut shared) = Shared::start() else { return };
    shared.redis.kill();
    let address = format!("127.0.0.1:{}", free_port());
    let log = shared.dir.path().join("log");
    let data = shared.dir.path().join("one");
    let mut command = shared.command_on(&address, "one", &["--workers", "0"]);
    command.stderr(File::create(&log).unwrap());
    let starting = std::thread::spawn(move || Server::spawn_logged(command, &data));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !std::fs::read_to_string(&log).unwrap().contains("waiting for Redis") {
        assert!(Instant::now() < deadline, "it does not say that it waits");
        kiln_test_servers::pause();
    }
    assert!(TcpStream::connect(&address).is_err(), "it takes connections and cannot serve");
    shared.redis.restart();
    let server = starting.join().unwrap();
    assert_eq!(server.address, address);
    assert_eq!(get_json(&address, "/api/v1/status")["workers"], 0);
}

#[test]
fn a_server_that_waits_for_redis_ends_when_it_is_told_to() {
    let Some(mut shared) = Shared::start() else { return };
    shared.redis.kill();
    let log = shared.dir.path().join("log");
    let mut command = shared.command("one", &[]);
    let mut child = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !std::fs::read_to_string(&log).unwrap().contains("waiting for Redis") {
        assert!(Instant::now() < deadline, "it does not say that it waits");
        kiln_test_servers::pause();
    }
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(5));
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("ended before the server was ready"), "{said}");
}

#[test]
fn an_s3_that_is_down_is_named() {
    let Some(mut shared) = Shared::start() else { return };
    shared.endpoint = format!("http://127.0.0.1:{}", free_port());
    let mut command = shared.command("one", &[]);
    command.env("KILN_S3_TIMEOUT", "1s");
    let words = ["S3", "no answer", "kiln-test", &shared.endpoint, "correct s3.endpoint"];
    expect_refusal(command, &words);
}

#[test]
fn what_of_s3_is_configured_wrongly_is_said_before_anything_is_waited_for() {
    let Some(mut shared) = Shared::start() else { return };
    shared.redis.kill();
    let refused = |variable: &str, value: &str, words: &[&str]| {
        let mut command = shared.command("one", &[]);
        command.env(variable, value);
        expect_code(2, command, words);
    };
    refused("KILN_S3_ENDPOINT", "minio:9000", &["s3.endpoint = \"minio:9000\"", "http://"]);
    refused("KILN_S3_REGION", "us east", &["s3.region = \"us east\""]);
    refused("AWS_REGION", "", &["AWS_REGION = \"\"", "us-east-1"]);
    refused("AWS_CA_BUNDLE", "/no/such/file", &["AWS_CA_BUNDLE = /no/such/file"]);
    refused("KILN_S3_CA", "/no/such/file", &["s3.ca = \"/no/such/file\"", "cannot read"]);
    let mut command = shared.command("one", &[]);
    command.env_remove("KILN_S3_ENDPOINT").env("AWS_ENDPOINT_URL_S3", "minio:9000");
    expect_code(2, command, &["AWS_ENDPOINT_URL_S3 = \"minio:9000\""]);
}

#[test]
fn profiles_that_nobody_is_logged_in_to_say_how_to_log_in() {
    let Some(shared) = Shared::start() else { return };
    let file = shared.dir.path().join("config");
    let text = "[profile sso]\nsso_session = work\nsso_account_id = 123456789012\n\
         sso_role_name = builds\n[sso-session work]\nsso_region = us-east-1\n\
         sso_start_url = https://example.awsapps.com/start\n\
         [profile browser]\nlogin_session = arn:aws:iam::123456789012:user/somebody\n";
    std::fs::write(&file, text).unwrap();
    for (profile, word) in [("sso", "aws sso login"), ("browser", "credential_process")] {
        let mut command = shared.command("one", &["--workers", "0"]);
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        command.env("AWS_CONFIG_FILE", &file).env("HOME", shared.dir.path());
        command.env("KILN_S3_PROFILE", profile).env("AWS_EC2_METADATA_DISABLED", "true");
        expect_refusal(command, &["no credentials", word]);
    }
}

#[test]
fn a_bucket_that_is_missing_or_forbidden_and_wrong_keys_are_named() {
    let Some(mut shared) = Shared::start() else { return };
    let stranger = shared.weed.stranger();
    let mut forbidden = shared.command("one", &[]);
    forbidden.env("AWS_ACCESS_KEY_ID", stranger.access_key);
    forbidden.env("AWS_SECRET_ACCESS_KEY", stranger.secret_key);
    expect_refusal(forbidden, &["kiln-test", "403", "s3:ListBucket"]);

    let mut wrong = shared.command("one", &[]);
    wrong.env("AWS_SECRET_ACCESS_KEY", "guessed");
    expect_refusal(wrong, &["kiln-test", "403", "check the access key"]);

    shared.bucket = "no-such-bucket".to_owned();
    let missing = shared.command("one", &[]);
    expect_refusal(missing, &["no-such-bucket", "404", "create the bucket"]);
}

#[test]
fn the_profile_of_the_configuration_is_used() {
    let Some(shared) = Shared::start() else { return };
    let keys = shared.weed.credentials();
    let file = shared.dir.path().join("credentials");
    let (access, secret) = (keys.access_key, keys.secret_key);
    let text = format!("[other]\naws_access_key_id={access}\naws_secret_access_key={secret}\n");
    std::fs::write(&file, text).unwrap();
    let mut command = shared.command("one", &["--workers", "0"]);
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    command.env("AWS_SHARED_CREDENTIALS_FILE", &file).env("KILN_S3_PROFILE", "other");
    let server = shared.spawn(command, "one");
    assert!(server.terminate().success());
}

#[test]
fn redis_without_s3_and_passwords_on_the_command_line_are_refused() {
    let data = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str], word: &str| {
        let output = command("127.0.0.1:0", data.path(), arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(text.contains(word), "{text}");
    };
    refused(&["--redis", "redis://localhost"], "--s3");
    refused(&["--redis", "redis://:secret@localhost", "--s3", "s3://bucket"], "KILN_REDIS_URL");
    refused(&["--redis", "http://localhost", "--s3", "s3://bucket"], "redis://");
    refused(&["--redis", "redis://localhost", "--s3", "bucket"], "s3://BUCKET");
}

#[test]
fn a_redis_without_tls_is_not_asked_for_it_forever() {
    let Some(mut shared) = Shared::start() else { return };
    shared.redis_url = shared.redis_url.replace("redis://", "rediss://");
    let mut command = shared.command("one", &[]);
    command.env("KILN_REDIS_WAIT", "0s");
    expect_refusal(command, &["redis:// where it does not speak TLS"]);
}
