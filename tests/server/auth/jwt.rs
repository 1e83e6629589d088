//! JWTs of an identity provider name the caller.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::auth::house::House;
use crate::auth::roles::{bearer, capabilities};
use crate::support::bazel::Bazel;
use crate::support::client;
use crate::support::jwt::Signer;
use crate::support::reapi::{Client, Spec};
use crate::support::server::{Server, command, program};

const PATIENCE: Duration = Duration::from_secs(40);
const SECRET: &str = "the secret that this test signs its tokens with";
const GRANTS: &str = "\
[[grant]]
jwt = { groups = \"developers\" }
roles = [\"execute\"]

[[grant]]
jwt = { sub = \"repo:acme/*\", ref_protected = \"true\" }
roles = [\"write-cache\"]
instances = [\"main\"]
";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn developer() -> Value {
    json!({ "sub": "al", "iss": "https://idp.example", "aud": "kiln", "exp": now() + 600,
        "groups": ["staff", "developers"] })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = developer();
    claims[name] = value;
    claims
}

fn settings(dir: &Path) -> Vec<(&'static str, String)> {
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    vec![
        ("KILN_AUTH_ACCESS_FILES", write("access.toml", GRANTS)),
        ("KILN_AUTH_JWT_AUDIENCE", "kiln".into()),
        ("KILN_AUTH_JWT_ISSUER", "https://idp.example".into()),
    ]
}

fn house(more: impl FnOnce(&Path) -> Vec<(&'static str, String)>) -> House {
    House::configured(|dir, command| {
        command.envs(settings(dir)).envs(more(dir));
    })
}

async fn ask(house: &House, token: &str) -> Result<(bool, bool), Status> {
    capabilities(&house.caller(bearer(token)).await).await
}

fn code(result: Result<(bool, bool), Status>) -> (Code, String) {
    let status = result.expect_err("it is refused");
    (status.code(), status.message().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_of_a_valid_token_give_roles() {
    let (rsa, ec) = (Signer::rs256(), Signer::es256());
    let house = house(|dir| {
        let keys = dir.join("keys.pem");
        std::fs::write(&keys, rsa.public_pem() + &ec.public_pem()).unwrap();
        let secret = dir.join("secret");
        std::fs::write(&secret, SECRET).unwrap();
        vec![
            ("KILN_AUTH_JWT_KEYS", keys.display().to_string()),
            ("KILN_AUTH_JWT_SECRET", secret.display().to_string()),
        ]
    });
    for signer in [&rsa, &ec, &Signer::hs256(SECRET.as_bytes())] {
        let token = signer.sign(Some("any"), &developer());
        assert_eq!(ask(&house, &token).await.unwrap(), (true, false));
        let ci = json!({ "sub": "repo:acme/app", "iss": "https://idp.example", "aud": ["kiln"],
            "exp": now() + 600, "ref_protected": true });
        assert_eq!(ask(&house, &signer.sign(None, &ci)).await.unwrap(), (false, true));
    }
    let laptop = house.caller(bearer(&rsa.sign(None, &developer()))).await;
    let action = laptop.prepare(&Spec::shell("echo jwt", &[])).await;
    laptop.execute_action(action, false).await.unwrap();

    let stranger = rsa.sign(None, &with("groups", json!(["staff"])));
    let (refused, said) = code(ask(&house, &stranger).await);
    assert_eq!(refused, Code::PermissionDenied);
    assert!(said.contains("jwt al may not read") && said.contains("it has none"), "{said}");
    let forged = Signer::hs256(rsa.public_pem().as_bytes()).sign(None, &developer());
    for (token, said) in [
        (rsa.sign(None, &with("exp", json!(now() - 60))), "ended 60 s ago"),
        (rsa.sign(None, &with("nbf", json!(now() + 600))), "claim nbf"),
        (rsa.sign(None, &with("aud", json!("other"))), "claim aud"),
        (rsa.sign(None, &with("iss", json!("https://evil.example"))), "claim iss"),
        (forged, "signature is wrong"),
        (unsigned(&developer()), "neither one that is known"),
        ("a.b.c".to_owned(), "neither one that is known"),
        ("a-static-one".to_owned(), "not known"),
    ] {
        let (refused, message) = code(ask(&house, &token).await);
        assert_eq!(refused, Code::Unauthenticated, "{message}");
        // The number of seconds may differ, because time passes between the making of the token and the answer.
        let said = if said.contains("60 s") { "claim exp" } else { said };
        assert!(message.contains(said), "{said:?} is not in {message:?}");
    }
}

fn unsigned(claims: &Value) -> String {
    let token = Signer::hs256(b"").sign_with(&json!({ "alg": "none" }), claims);
    let (message, _) = token.rsplit_once('.').unwrap();
    format!("{message}.")
}

/// An identity provider that publishes the keys that a test gives it, and fails its requests until it has some.
struct Provider {
    url: String,
    published: Arc<Mutex<Option<String>>>,
}

impl Provider {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let published = Arc::<Mutex<Option<String>>>::default();
        let shown = published.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let _ = stream.read(&mut [0; 4096]);
                let shown = shown.lock().unwrap().clone();
                let (status, body) = match shown {
                    Some(body) => ("200 OK", body),
                    None => ("500 Internal Server Error", String::new()),
                };
                let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
                let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
            }
        });
        Self { url, published }
    }

    fn publish(&self, keys: &[Value]) {
        *self.published.lock().unwrap() = Some(json!({ "keys": keys }).to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_from_the_provider_and_follow_it() {
    let provider = Provider::start();
    let house = house(|_| vec![("KILN_AUTH_JWKS_URL", provider.url.clone())]);
    let (first, second) = (Signer::rs256(), Signer::es256());
    let (token, next) =
        (first.sign(Some("one"), &developer()), second.sign(Some("two"), &developer()));
    let (refused, said) = code(ask(&house, &token).await);
    assert_eq!(refused, Code::Unavailable, "{said}");

    // A server that could not fetch the keys at its start fetches them as soon as it can.
    provider.publish(&[first.jwk("one"), Signer::hs256(SECRET.as_bytes()).jwk("leak")]);
    until_taken(&house, &token).await;
    let leaked = Signer::hs256(SECRET.as_bytes()).sign(Some("leak"), &developer());
    assert_eq!(code(ask(&house, &leaked).await).0, Code::Unauthenticated);

    // The server fetches a new key when a token names it, and no longer accepts the old key.
    provider.publish(&[second.jwk("two")]);
    until_taken(&house, &next).await;
    assert_eq!(code(ask(&house, &token).await).0, Code::Unauthenticated);
}

async fn until_taken(house: &House, token: &str) {
    let start = Instant::now();
    while let Err(status) = ask(house, token).await {
        assert!(start.elapsed() < PATIENCE, "{status}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_taken_out_of_its_file_is_not_taken_any_more() {
    let signers = [Signer::es256(), Signer::es256()];
    let house = house(|dir| {
        let keys = dir.join("keys.pem");
        std::fs::write(&keys, signers[0].public_pem()).unwrap();
        vec![("KILN_AUTH_JWT_KEYS", keys.display().to_string())]
    });
    let tokens = signers.each_ref().map(|signer| signer.sign(None, &developer()));
    ask(&house, &tokens[0]).await.unwrap();
    std::fs::write(house.dir.path().join("keys.pem"), signers[1].public_pem()).unwrap();
    until_taken(&house, &tokens[1]).await;
    assert_eq!(code(ask(&house, &tokens[0]).await).0, Code::Unauthenticated);
}

#[test]
fn settings_that_would_let_strangers_in_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let access = write("access.toml", GRANTS);
    let keys = write("keys.pem", &Signer::es256().public_pem());
    let anybody = "[[grant]]\nanonymous = true\nroles = [\"read-cache\"]\n";
    let no_grant = write("none.toml", anybody);
    let keys = ("KILN_AUTH_JWT_KEYS", keys.as_str());
    let files = ("KILN_AUTH_ACCESS_FILES", access.as_str());
    let audience = ("KILN_AUTH_JWT_AUDIENCE", "kiln");
    let short = write("short", "short");
    for (settings, said) in [
        (vec![keys, audience], "auth.access_files"),
        (vec![keys, files], "auth.jwt_audience"),
        (vec![files, audience], "no key to check tokens with"),
        (vec![keys, audience, ("KILN_AUTH_ACCESS_FILES", &no_grant)], "no grant"),
        (vec![files, audience, ("KILN_AUTH_JWT_SECRET", &short)], "could be guessed"),
        (vec![files, audience, ("KILN_AUTH_JWKS_URL", "http://idp.example/keys")], "https://"),
        (vec![files, audience, keys, ("KILN_AUTH_JWT_LEEWAY", "10m")], "auth.jwt_leeway"),
        (vec![files, audience, ("KILN_AUTH_JWT_KEYS", &access)], "neither a key in PEM form"),
    ] {
        let mut command = command("127.0.0.1:0", &dir.path().join("data"), &["--workers", "0"]);
        command.envs(settings);
        let (code, text) = program(command).expect("it refuses to start");
        assert_eq!(code, 2, "{text}");
        assert!(text.contains(said), "{said:?} is not in {text}");
    }
}

/// Debian's Bazel has no TLS for gRPC, so the server has none here.
#[test]
fn bazel_builds_with_a_jwt() {
    let Some(binary) = client("KILN_BAZEL") else { return };
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::rs256();
    let keys = dir.path().join("keys.pem");
    std::fs::write(&keys, signer.public_pem()).unwrap();
    let mut command = command("127.0.0.1:0", &dir.path().join("data"), &["--workers", "2"]);
    command.envs(settings(dir.path())).env("KILN_AUTH_JWT_KEYS", keys);
    let server = Server::spawn(command, &dir.path().join("data"));
    let bazel = Bazel::new(binary, "examples/bazel");
    let build = |claims: &Value| {
        let token = signer.sign(None, claims);
        let header = format!("--remote_header=authorization=Bearer {token}");
        bazel.remote(&server.address, &["build", &header, "//text/..."])
    };
    let run = build(&developer()).expect_success();
    assert!(run.processes("remote") > 5, "{}", run.text);
    let expired = build(&with("exp", json!(now() - 60)));
    assert_ne!(expired.code, 0);
    assert!(expired.text.contains("get a new one"), "{}", expired.text);
}

/// The server checks a token once and then remembers it, although `Client` sends the token with every call.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_token_is_no_burden() {
    let signer = Signer::rs256();
    let house = house(|dir| {
        let keys = dir.join("keys.pem");
        std::fs::write(&keys, signer.public_pem()).unwrap();
        vec![("KILN_AUTH_JWT_KEYS", keys.display().to_string())]
    });
    let groups: Vec<String> = (0..400).map(|number| format!("group-{number}")).collect();
    let mut claims = developer();
    claims["groups"] = json!(groups);
    claims["groups"].as_array_mut().unwrap().push("developers".into());
    let token = signer.sign(None, &claims);
    assert!(token.len() > 6000, "{}", token.len());
    let client: Client = house.caller(bearer(&token)).await;
    for _ in 0..100 {
        client.put(b"again").await;
    }
}
