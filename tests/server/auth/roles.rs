//! Static tokens, and the roles that they give.

use kiln_protos::reapi::action_cache_client::ActionCacheClient;
use kiln_protos::reapi::capabilities_client::CapabilitiesClient;
use kiln_protos::reapi::execution_client::ExecutionClient;
use kiln_protos::{longrunning, reapi};
use longrunning::operations_client::OperationsClient;
use tonic::{Code, Status};

use crate::auth::house::{House, said};
use crate::support::pki::Authority;
use crate::support::reapi::{Authorization, Client, Spec};
use crate::support::server::{Server, command, program};

/// Of each caller the name, the token, the roles, and the instances in which the roles apply.
const CALLERS: [(&str, &str, &str, &str); 8] = [
    ("reader", "tok-reader", r#""read-cache""#, r#""*""#),
    ("laptop", "tok-laptop", r#""read-cache", "execute""#, r#""main", "team/*""#),
    ("other-laptop", "tok-other", r#""execute""#, r#""main""#),
    ("ci", "tok-ci", r#""write-cache", "execute""#, r#""*""#),
    ("worker", "tok-worker", r#""worker""#, r#""*""#),
    ("other-worker", "tok-other-worker", r#""worker""#, r#""*""#),
    ("elsewhere", "tok-elsewhere", r#""write-cache", "execute""#, r#""elsewhere""#),
    ("boss", "tok-boss", r#""admin""#, r#""*""#),
];

pub fn access_file() -> String {
    let entries = CALLERS.map(|(name, token, roles, instances)| {
        let hash = kiln_cas::DigestFunction::Sha256.digest(token.as_bytes()).hex();
        format!(
            "[[token]]\nname = \"{name}\"\nsha256 = \"{hash}\"\nroles = [{roles}]\n\
             instances = [{instances}]\n"
        )
    });
    entries.concat()
}

/// Starts a server with TLS at which these callers have their roles.
pub fn guarded(arguments: &[&str]) -> House {
    House::with(|dir| {
        let file = dir.join("access.toml");
        std::fs::write(&file, access_file()).unwrap();
        let mut all = vec!["--access-file".to_owned(), file.display().to_string()];
        all.extend(arguments.iter().map(|word| (*word).to_owned()));
        all
    })
}

/// Starts the same server without TLS, on loopback, for clients that have no TLS.
pub fn guarded_plainly(dir: &std::path::Path) -> Server {
    let file = dir.join("access.toml");
    std::fs::write(&file, access_file()).unwrap();
    let mut command = command("127.0.0.1:0", &dir.join("data"), &["--workers", "2"]);
    command.arg("--access-file").arg(file);
    Server::spawn(command, &dir.join("data"))
}

pub fn bearer(token: &str) -> Authorization {
    Authorization(Some(format!("Bearer {token}")))
}

impl House {
    /// Connects as a caller in the instance `main`.
    pub async fn caller(&self, authorization: Authorization) -> Client {
        let mut client = Client::as_caller(self.channel(None).await, authorization);
        client.instance = "main".into();
        client
    }
}

pub async fn capabilities(client: &Client) -> Result<(bool, bool), Status> {
    let request = reapi::GetCapabilitiesRequest { instance_name: client.instance.clone() };
    let mut service = CapabilitiesClient::new(client.channel.clone());
    let answer = service.get_capabilities(request).await?.into_inner();
    let updates = answer.cache_capabilities.unwrap().action_cache_update_capabilities.unwrap();
    Ok((answer.execution_capabilities.unwrap().exec_enabled, updates.update_enabled))
}

pub async fn update(client: &Client, action: &reapi::Digest) -> Result<(), Status> {
    let request = reapi::UpdateActionResultRequest {
        instance_name: client.instance.clone(),
        action_digest: Some(action.clone()),
        action_result: Some(reapi::ActionResult { exit_code: 3, ..Default::default() }),
        ..Default::default()
    };
    let mut service = ActionCacheClient::new(client.channel.clone());
    service.update_action_result(request).await.map(drop)
}

pub fn refused<T>(result: Result<T, Status>, code: Code, said: &[&str]) {
    let status = result.err().expect("it is refused");
    assert_eq!(status.code(), code, "{status}");
    for said in said {
        assert!(status.message().contains(said), "{said:?} is not in {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_laptop_executes_and_hits_and_cannot_poison() {
    let house = guarded(&[]);
    let laptop = house.caller(bearer("tok-laptop")).await;
    assert_eq!(capabilities(&laptop).await.unwrap(), (true, false));
    let action = laptop.prepare(&Spec::shell("echo honest", &[])).await;
    let poisoned = update(&laptop, &action).await;
    refused(
        poisoned,
        Code::PermissionDenied,
        &[
            "token laptop",
            "write action results",
            "the role write-cache is missing",
            "read-cache, execute",
        ],
    );
    assert!(laptop.cached(&action).await.is_none());
    let ran = laptop.execute_action(action.clone(), false).await.unwrap();
    assert!(!ran.cached_result);
    assert!(laptop.execute_action(action.clone(), false).await.unwrap().cached_result);

    let reader = house.caller(bearer("tok-reader")).await;
    assert_eq!(capabilities(&reader).await.unwrap(), (false, false));
    assert_eq!(reader.cached(&action).await.unwrap().exit_code, 0);
    refused(
        reader.execute_action(action.clone(), false).await,
        Code::PermissionDenied,
        &["token reader", "have actions executed", "the role execute is missing"],
    );
    let ci = house.caller(bearer("tok-ci")).await;
    assert_eq!(capabilities(&ci).await.unwrap(), (true, true));
    update(&ci, &action).await.unwrap();
    assert_eq!(laptop.cached(&action).await.unwrap().exit_code, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_kept_apart() {
    let house = guarded(&[]);
    let mut laptop = house.caller(bearer("tok-laptop")).await;
    let action = laptop.prepare(&Spec::shell("echo here", &[])).await;
    laptop.execute_action(action.clone(), false).await.unwrap();
    laptop.instance = "team/a".into();
    laptop.execute_action(action.clone(), false).await.unwrap();
    for instance in ["", "elsewhere", "team", "main2"] {
        laptop.instance = instance.into();
        refused(
            laptop.execute_action(action.clone(), false).await,
            Code::PermissionDenied,
            &[&format!("{instance:?}"), "it has none"],
        );
        refused(capabilities(&laptop).await, Code::PermissionDenied, &["read"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_nothing_or_something_wrong_is_told_what_to_do() {
    let house = guarded(&[]);
    let nobody = house.caller(Authorization(None)).await;
    let asked = ["credentials", "bearer token", "read-cache"];
    refused(capabilities(&nobody).await, Code::Unauthenticated, &asked);
    let unknown = house.caller(bearer("tok-unknown")).await;
    refused(capabilities(&unknown).await, Code::Unauthenticated, &["not known", "access file"]);
    let odd = house.caller(Authorization(Some("Digest abc".into()))).await;
    refused(capabilities(&odd).await, Code::Unauthenticated, &["Bearer TOKEN"]);

    let mut basic = house.caller(Authorization(Some("Basic bWU6dG9rLWNp".into()))).await;
    basic.instance = "any".into();
    assert_eq!(capabilities(&basic).await.unwrap(), (true, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_are_ended_by_their_owners_and_by_administrators() {
    let house = guarded(&[]);
    let owner = house.caller(bearer("tok-laptop")).await;
    let other = house.caller(bearer("tok-other")).await;
    let boss = house.caller(bearer("tok-boss")).await;
    let cancel = async |client: &Client, name: &str| {
        let request = longrunning::CancelOperationRequest { name: name.to_owned() };
        OperationsClient::new(client.channel.clone()).cancel_operation(request).await.map(drop)
    };
    for ended_by in [&owner, &boss] {
        let script = format!("sleep 600; echo {:p}", ended_by);
        let action = owner.prepare(&Spec::shell(&script, &[])).await;
        let request = reapi::ExecuteRequest {
            instance_name: "main".into(),
            action_digest: Some(action),
            ..Default::default()
        };
        let mut execution = ExecutionClient::new(owner.channel.clone());
        let mut updates = execution.execute(request).await.unwrap().into_inner();
        let name = updates.message().await.unwrap().unwrap().name;
        refused(
            cancel(&other, &name).await,
            Code::PermissionDenied,
            &["token other-laptop", "belongs to others", "admin"],
        );
        cancel(ended_by, &name).await.unwrap();
        while updates.message().await.unwrap().is_some_and(|operation| !operation.done) {}
    }
    let elsewhere = house.caller(bearer("tok-elsewhere")).await;
    let list = async |client: &Client| {
        let mut service = OperationsClient::new(client.channel.clone());
        let request = longrunning::ListOperationsRequest::default();
        service.list_operations(request).await.unwrap().into_inner().operations.len()
    };
    assert_eq!(list(&owner).await, 2);
    assert_eq!(list(&elsewhere).await, 0, "operations of other instances are not seen");
}

pub fn lines_with(text: &str, what: &str) -> String {
    text.lines().filter(|line| line.contains(what)).take(5).collect::<Vec<_>>().join("\n")
}

pub async fn wait_for(file: &std::path::Path, what: &str) {
    let start = std::time::Instant::now();
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if text.contains(what) {
            return;
        }
        assert!(start.elapsed().as_secs() < 30, "{what:?} is not in {text}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// The server logs as much as it can, while clients of every kind send their tokens.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_logs_no_token() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "authority");
    let file = dir.path().join("access.toml");
    std::fs::write(&file, access_file()).unwrap();
    let log = dir.path().join("log");
    let mut command = crate::auth::house::tls_command(dir.path(), &authority.server());
    command.arg("--access-file").arg(&file).env("KILN_LOG_FILTER", "trace");
    command.stderr(std::fs::File::create(&log).unwrap());
    let server = Server::spawn_logged(command, &dir.path().join("data"));
    let url = format!("https://{}", server.address);
    for token in ["tok-laptop", "tok-wrong-one"] {
        let channel = crate::auth::house::connect(&url, &authority.file, None).await.unwrap();
        let mut client = Client::as_caller(channel, bearer(token));
        client.instance = "main".into();
        let _ = capabilities(&client).await;
        let path = dir.path().join(token);
        std::fs::write(&path, token).unwrap();
        let mut status = std::process::Command::new(env!("CARGO_BIN_EXE_kiln"));
        status.args(["--server", &url, "status", "--token-file"]).arg(&path);
        status.env("KILN_CA_FILE", &authority.file).output().unwrap();
    }
    server.terminate();
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains("TRACE") && log.contains("authentication failed"));
    for secret in ["tok-laptop", "tok-wrong-one", "dG9rLWxhcHRvcA"] {
        assert!(!log.contains(secret), "{}", lines_with(&log, secret));
    }
}

#[test]
fn commands_show_their_token_and_say_what_is_missing() {
    let house = guarded(&[]);
    let run = |token: Option<&str>, words: &[&str]| {
        let mut command = house.kiln(words);
        if let Some(token) = token {
            command.env("KILN_TOKEN", token);
        }
        said(&command.output().unwrap())
    };
    let (code, text) = run(Some("tok-reader"), &["status"]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = run(None, &["status"]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("credentials") && text.contains("--token-file"), "{text}");
    let (code, text) = run(Some("tok-laptop"), &["status"]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("in all instances"), "{text}");
    let file = house.dir.path().join("file");
    std::fs::write(&file, "content").unwrap();
    let path = file.display().to_string();
    let (code, text) = run(Some("tok-reader"), &["cas", "put", &path]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("token reader may not store blobs"), "{text}");
    let (code, text) = run(Some("tok-laptop"), &["--instance", "main", "cas", "put", &path]);
    assert_eq!(code, 0, "{text}");
    let mut bad = house.kiln(&["status", "--token-file", "/nowhere/token"]);
    let (code, text) = said(&bad.output().unwrap());
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("/nowhere/token"), "{text}");
}

#[test]
fn a_new_token_works_once_its_entry_is_in_the_file() {
    let house = guarded(&[]);
    let token = house.dir.path().join("new.token");
    let out = token.display().to_string();
    let words = ["token", "new", "fresh", "--role", "read-cache", "--out", &out];
    let made = house.kiln(&words).output().unwrap();
    assert_eq!(made.status.code(), Some(0), "{}", said(&made).1);
    let secret = std::fs::read_to_string(&token).unwrap();
    assert!(!said(&made).1.contains(secret.trim()), "the token goes to its file alone");
    assert_eq!(said(&house.kiln(&words).output().unwrap()).0, 5, "no token is overwritten");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(token.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let hash = house.kiln(&["token", "hash", &out]).output().unwrap();
    let entry = String::from_utf8(made.stdout).unwrap();
    assert!(entry.contains(String::from_utf8(hash.stdout).unwrap().trim()), "{entry}");

    let status = || said(&house.kiln(&["status", "--token-file", &out]).output().unwrap());
    assert_eq!(status().0, 4);
    let file = house.dir.path().join("access.toml");
    std::fs::write(&file, access_file() + &entry).unwrap();
    let start = std::time::Instant::now();
    while status().0 != 0 {
        assert!(start.elapsed().as_secs() < 30, "{}", status().1);
        kiln_test_servers::pause();
    }
}

#[test]
fn a_server_that_others_reach_asks_who_calls() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.toml");
    let serve = |extra: &[&str]| {
        let mut command = command("0.0.0.0:0", &dir.path().join("data"), &["--workers", "0"]);
        command.args(extra);
        program(command)
    };
    let path = file.display().to_string();
    let (code, text) = serve(&[]).expect("it refuses to start");
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("--access-file") && text.contains("--insecure"), "{text}");
    let (code, text) = serve(&["--access-file", &path]).expect("it refuses to start");
    assert!(code == 2 && text.contains("cannot read the access file"), "{text}");
    std::fs::write(&file, "# nothing yet\n").unwrap();
    let (code, text) = serve(&["--access-file", &path]).expect("it refuses to start");
    assert!(code == 2 && text.contains("give no role to anybody"), "{text}");
    std::fs::write(&file, access_file()).unwrap();
    let both = ["--access-file", &path, "--allow-cache-updates"];
    let (code, text) = serve(&both).expect("it refuses to start");
    assert!(code == 2 && text.contains("write-cache"), "{text}");
    assert_eq!(serve(&["--access-file", &path]), None);

    let log = dir.path().join("log");
    let mut command = command("0.0.0.0:0", &dir.path().join("data"), &["--access-file", &path]);
    command.env("KILN_WORKERS_COUNT", "0").stderr(std::fs::File::create(&log).unwrap());
    drop(Server::spawn_logged(command, &dir.path().join("data")));
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains("without TLS, tokens can be read"), "{log}");
}
