//! A forge asks a server's merge queue by signed webhooks, and is told what becomes of its changes: a real server, a real
//! runner on a bare repository, and an HTTP server that stands for the forge.

mod pushes;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kiln_net::http::{Client, Options, client};
use kiln_net::tls::without_trust;
use ring::hmac;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::server::{Server, command, get_json};

const SECRET: &str = "it takes a secret to tell a forge";
const TOKEN: &str = "token-of-a-forge";
const WITHIN: Duration = Duration::from_secs(60);
/// How long the tests wait between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// The requests that the forge got: of each the method, the path, and the body.
type Heard = Arc<Mutex<Vec<(String, String, Value)>>>;

/// An HTTP server that answers as GitHub's API does and remembers the requests that it got.
struct Forge {
    url: String,
    heard: Heard,
}

impl Forge {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let heard = Heard::default();
        let hears = heard.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let hears = hears.clone();
                std::thread::spawn(move || while answered(&stream, &hears).is_some() {});
            }
        });
        Self { url, heard }
    }

    fn heard(&self) -> Vec<(String, String, Value)> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the body of the last status that the forge was told of a commit, or `None` if there was none.
    fn state(&self, commit: &str) -> Option<Value> {
        let path = format!("/api/v3/repos/owner/app/statuses/{commit}");
        let told = self.heard().into_iter().rev().find(|(_, it, _)| *it == path);
        told.map(|(_, _, body)| body)
    }
}

/// Answers one request on a connection and notes it in `hears`. Returns `None` if the client has closed the
/// connection.
fn answered(stream: &TcpStream, hears: &Heard) -> Option<()> {
    let mut source = BufReader::new(stream.try_clone().ok()?);
    let mut first = String::new();
    source.read_line(&mut first).ok().filter(|it| *it > 0)?;
    let (mut length, mut token) = (0, false);
    loop {
        let mut line = String::new();
        source.read_line(&mut line).ok()?;
        let line = line.trim();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        token |= line.to_ascii_lowercase().starts_with("authorization:") && line.ends_with(TOKEN);
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    source.read_exact(&mut body).ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (status, answer) = match (token, path.as_str()) {
        (false, _) => ("401 Unauthorized", json!({})),
        (_, "/api/v3/repos/owner/app/collaborators/alice/permission") => {
            ("200 OK", json!({"permission": "write"}))
        }
        (_, "/api/v3/repos/owner/app/pulls/7") => ("200 OK", pull(7, "feature/good")),
        (_, "/api/v3/repos/owner/app/pulls/8") => ("200 OK", pull(8, "feature/bad")),
        (_, it) if it.starts_with("/api/v3/repos/owner/app/pulls?") => {
            ("200 OK", json!([pull(8, "feature/bad")]))
        }
        _ => ("201 Created", json!({})),
    };
    let body = serde_json::from_slice(&body).unwrap_or_default();
    hears.lock().unwrap_or_else(PoisonError::into_inner).push((method, path, body));
    let answer = answer.to_string();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", answer.len());
    let mut out = stream;
    out.write_all([head, answer].concat().as_bytes()).ok()
}

fn at(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).expect("a time")
}

fn pull(number: u64, branch: &str) -> Value {
    json!({
        "number": number,
        "state": "open",
        "draft": false,
        "labels": [{"name": "queue"}],
        "head": {"ref": branch, "repo": {"full_name": "owner/app"}},
        "base": {"ref": "main", "repo": {"full_name": "owner/app"}},
        "updated_at": at(OffsetDateTime::now_utc()),
    })
}

fn labeled(pull: Value) -> Value {
    json!({
        "action": "labeled",
        "label": {"name": "queue"},
        "pull_request": pull,
        "repository": {"full_name": "owner/app"},
        "sender": {"login": "alice"},
    })
}

fn comment(text: &str) -> Value {
    json!({
        "action": "created",
        "issue": {"number": 8, "user": {"login": "bob"}, "pull_request": {}},
        "comment": {
            "body": text,
            "user": {"login": "alice"},
            "author_association": "MEMBER",
            "created_at": at(OffsetDateTime::now_utc()),
        },
        "repository": {"full_name": "owner/app"},
    })
}

/// Sends webhooks to a server as GitHub does.
struct Deliveries {
    client: Client,
    url: String,
}

impl Deliveries {
    fn to(server: &Server) -> Self {
        let tls = without_trust().expect("no trust is needed");
        let client = client(Options::new(tls, Duration::from_secs(5))).expect("a client");
        Self { client, url: format!("{}/api/v1/forges/hub/events", server.url()) }
    }

    /// Delivers the event with a signature made with `secret`. Returns the status code of the answer and its body.
    async fn send(&self, event: &str, id: &str, body: &str, secret: &str) -> (u16, Value) {
        let tag =
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), body.as_bytes());
        let digits: String = tag.as_ref().iter().map(|it| format!("{it:02x}")).collect();
        let request = self
            .client
            .post(&self.url)
            .header("content-type", "application/json")
            .header("x-github-event", event)
            .header("x-github-delivery", id)
            .header("x-hub-signature-256", format!("sha256={digits}"))
            .body(body.to_owned());
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let said = kiln_net::http::collect(answer, 1 << 20).await.expect("a whole answer");
        (status, serde_json::from_slice(&said).expect("JSON"))
    }

    async fn say(&self, event: &str, id: &str, body: &Value) -> (u16, Value) {
        self.send(event, id, &body.to_string(), SECRET).await
    }
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.arg("-C").arg(directory).args(arguments);
    for who in ["GIT_AUTHOR", "GIT_COMMITTER"] {
        command.env(format!("{who}_NAME"), "A").env(format!("{who}_EMAIL"), "a@example");
    }
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    let output = command.output().expect("git runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Makes a bare repository whose `main` is green, with one branch that passes the check and one that does not.
/// Returns the commits at the heads of the two branches.
fn repository(place: &Path) -> [String; 2] {
    let work = place.join("work");
    std::fs::create_dir(&work).expect("a directory");
    git(place, &["init", "--quiet", "--bare", "--initial-branch=main", "app.git"]);
    git(&work, &["init", "--quiet", "--initial-branch=main"]);
    git(&work, &["commit", "--quiet", "--allow-empty", "--message=begin"]);
    let branch = |name: &str, file: &str| {
        git(&work, &["checkout", "--quiet", "-b", name, "main"]);
        std::fs::write(work.join(file), "x").expect("a file");
        git(&work, &["add", file]);
        git(&work, &["commit", "--quiet", "--message=change"]);
        git(&work, &["rev-parse", "HEAD"])
    };
    let heads = [branch("feature/good", "good"), branch("feature/bad", "bad")];
    git(&work, &["push", "--quiet", "../app.git", "main", "feature/good", "feature/bad"]);
    heads
}

struct Runner(Child);

impl Runner {
    fn start(server: &Server, place: &Path) -> Self {
        let check = "if [ -e bad ]; then echo '```' it is bad; exit 1; fi";
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command
            .args(["queue", "run", "--queue", "app", "--server", &server.url()])
            .args(["--flakes-ruled-out", "--poll", "1s", "--check", check])
            .arg("--state")
            .arg(place.join("state"))
            .arg("--repo")
            .arg(place.join("app.git"))
            .stdin(Stdio::null());
        Self(command.spawn().expect("the runner starts"))
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn server(place: &Path, forge: &Forge) -> Server {
    let file = place.join("forges.toml");
    let text = format!(
        "[[forge]]\nname = \"hub\"\nkind = \"github\"\nurl = \"{}\"\nsecret_file = \"secret\"\n\
         token_file = \"token\"\ncomment = true\n\n\
         [[forge.repository]]\npath = \"owner/app\"\nbranch = \"main\"\nqueue = \"app\"\n",
        forge.url
    );
    std::fs::write(place.join("secret"), SECRET).expect("a file");
    std::fs::write(place.join("token"), TOKEN).expect("a file");
    std::fs::write(&file, text).expect("a file");
    let data = place.join("data");
    let mut command = command("127.0.0.1:0", &data, &[]);
    command.env("KILN_FORGES_FILE", file).env("KILN_WORKERS_COUNT", "0");
    Server::spawn(command, &data)
}

async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < WITHIN, "{what}");
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test]
async fn a_labeled_change_lands_a_bad_one_does_not_and_the_forge_is_told() {
    let place = tempfile::tempdir().expect("a directory");
    let [good, bad] = repository(place.path());
    let forge = Forge::start();
    let server = server(place.path(), &forge);
    let deliveries = Deliveries::to(&server);
    let body = labeled(pull(7, "feature/good"));
    assert_eq!(deliveries.say("ping", "0", &json!({})).await.0, 200);
    // No runner runs the queue yet, so the server answers 503, after which the forge may deliver the event again.
    assert_eq!(deliveries.say("pull_request", "1", &body).await.0, 503);
    let _runner = Runner::start(&server, place.path());
    let exists = || {
        let queues = get_json(&server.address, "/api/v1/merge-queues").to_string();
        queues.contains("\"app\"").then_some(())
    };
    until("the queue has a runner", exists).await;
    let (status, said) = deliveries.say("pull_request", "1", &body).await;
    assert_eq!((status, &said["outcome"]), (200, &json!("asked")), "{said}");
    let (status, said) = deliveries.say("pull_request", "1", &body).await;
    assert_eq!((status, &said["outcome"]), (200, &json!("already known")), "{said}");

    let landed = || forge.state(&good).filter(|it| it["state"] == "success");
    let landed = until("the good change lands", landed).await;
    assert_eq!(landed["context"], "kiln/queue");
    assert_eq!(landed["target_url"], format!("{}/merge-queues/app", server.url()));
    let bare = place.path().join("app.git");
    assert!(git(&bare, &["log", "--format=%H", "main"]).contains(&good));

    let (status, said) = deliveries.say("issue_comment", "2", &comment("/kiln queue")).await;
    assert_eq!((status, &said["outcome"]), (200, &json!("asked")), "{said}");
    let rejected = || forge.state(&bad).filter(|it| it["state"] == "failure");
    let rejected = until("the bad change is rejected", rejected).await;
    assert!(rejected["target_url"].to_string().contains("/merge-queues/app/runs/"), "{rejected}");
    let commented = || {
        let below = "/api/v3/repos/owner/app/issues/8/comments";
        forge.heard().into_iter().find(|(_, path, _)| path == below)
    };
    let (_, _, comment) = until("the rejection is commented on", commented).await;
    let text = comment["body"].as_str().expect("a text");
    assert!(text.contains("``` it is bad\n````"), "{text}");
    assert!(!git(&bare, &["log", "--format=%H", "main"]).contains(&bad));
    let of_good = forge.heard().into_iter().filter(|(_, path, _)| path.ends_with(&good)).count();
    assert!((1..=4).contains(&of_good), "each status is told once: {of_good}");
}

#[tokio::test]
async fn what_is_forged_late_or_too_large_is_refused_and_what_asks_for_nothing_is_ignored() {
    let place = tempfile::tempdir().expect("a directory");
    let forge = Forge::start();
    let server = server(place.path(), &forge);
    let deliveries = Deliveries::to(&server);
    let body = labeled(pull(7, "feature/good")).to_string();
    let (status, said) = deliveries.send("pull_request", "1", &body, "another secret").await;
    assert_eq!(status, 403, "{said}");
    assert!(!said.to_string().contains("another"), "{said}");
    let unsigned =
        deliveries.client.post(&deliveries.url).header("content-type", "application/json");
    let unsigned = unsigned.body(body.clone()).send().await.expect("an answer");
    assert_eq!(unsigned.status().as_u16(), 403);

    let mut late = labeled(pull(7, "feature/good"));
    let ago = OffsetDateTime::now_utc() - Duration::from_secs(4 * 24 * 3_600);
    late["pull_request"]["updated_at"] = json!(at(ago));
    let (status, said) = deliveries.say("pull_request", "2", &late).await;
    assert_eq!(status, 403, "{said}");
    assert!(said.to_string().contains("longer than"), "{said}");

    // The server refuses the request by its Content-Length, before the body is sent.
    let mut stream = TcpStream::connect(&server.address).expect("the server accepts");
    let head = format!(
        "POST /api/v1/forges/hub/events HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
         X-GitHub-Event: push\r\nX-Hub-Signature-256: sha256={}\r\nContent-Length: {}\r\n\r\n",
        server.address,
        "0".repeat(64),
        3 << 20
    );
    stream.write_all(head.as_bytes()).expect("it is sent");
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let mut draft = pull(7, "feature/good");
    draft["draft"] = json!(true);
    for (event, body) in
        [("star", json!({})), ("push", json!({})), ("pull_request", labeled(draft))]
    {
        let (status, said) = deliveries.say(event, "4", &body).await;
        assert_eq!((status, &said["outcome"]), (202, &json!("ignored")), "{event}: {said}");
    }
    let (status, said) = deliveries.say("pull_request", "5", &json!({})).await;
    assert_eq!(status, 400, "{said}");
    assert!(forge.heard().is_empty(), "nobody is told of that");

    // The server takes another secret from the file without a restart.
    std::fs::write(place.path().join("secret"), "the next secret of the forge").expect("a file");
    let start = Instant::now();
    loop {
        let (status, _) = deliveries.send("ping", "6", "{}", "the next secret of the forge").await;
        if status == 200 {
            break;
        }
        assert!(status == 403 && start.elapsed() < WITHIN, "{status}");
        tokio::time::sleep(LOOK).await;
    }
    assert_eq!(deliveries.say("ping", "7", &json!({})).await.0, 403, "the old one has ended");
}
