//! Deliveries as forges send them, forged ones, copies and late ones.

mod copies;
mod pushes;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ring::hmac;
use serde_json::{Value, json};
use tokio::sync::Barrier;

use super::decide::Order;
use super::desks::{AskError, Desks};
use super::event::{Change, Person, Said};
use super::forge::{Binding, Forge, ForgeName, Kind, Repository, Rules};
use super::heard::Heard;
use super::intake::{Accepted, Intake, IntakeParts, LookUp, Rejected};
use super::known::WINDOW;
use super::proof::Invalid;
use super::secrets::Secrets;
use crate::model::Time;
use crate::pipelines::control::{Registered, Registry};
use crate::queue::Branch;
use crate::queue::serving::{LaneName, Request};
use crate::services::Clock;
use crate::storage::memory::Memory;
use crate::storage::{Records, StorageError, Write};

const SECRET: &str = "It's a Secret to Everybody";
/// The time of these tests, 2026-01-01T00:00:00Z, in milliseconds since the Unix epoch.
const NOW: u64 = 1_767_225_600_000;

#[derive(Clone)]
struct Hands(Arc<Mutex<Time>>);

impl Clock for Hands {
    fn now(&self) -> Time {
        *self.0.lock().unwrap()
    }
}

/// What was asked for, and what is answered.
#[derive(Clone, Default)]
struct Desk {
    asked: Arc<Mutex<Vec<(Request, String)>>>,
    fails: Arc<Mutex<Option<AskError>>>,
    closed: Arc<AtomicBool>,
    /// Where whoever asks who may push waits for others who do.
    meeting: Option<Arc<Barrier>>,
    /// Whether pushes begin pipelines.
    pushes: bool,
    /// What may wait for these.
    pipelines: Arc<BTreeMap<String, Registered>>,
    memory: Memory,
}

impl Registry for Desk {
    fn pipelines(&self) -> Arc<BTreeMap<String, Registered>> {
        self.pipelines.clone()
    }
}

#[async_trait]
impl Desks for Desk {
    async fn ask(&self, order: &Order, by: &str, once: Vec<Write>) -> Result<bool, AskError> {
        if let Some(error) = self.fails.lock().unwrap().clone() {
            return Err(error);
        }
        match self.memory.write(once).await {
            Ok(()) => self.asked.lock().unwrap().push((order.request.clone(), by.to_owned())),
            Err(StorageError::Conflict(_)) => return Ok(false),
            Err(error) => return Err(AskError::Unavailable(error.to_string())),
        }
        Ok(true)
    }
}

#[async_trait]
impl LookUp for Desk {
    async fn change(&self, _: &Forge, said: &Said) -> Result<Change, String> {
        Ok(Change {
            number: said.number,
            repository: said.repository.clone(),
            base: "main".to_owned(),
            branch: "feature/login".to_owned(),
            head: None,
            foreign: false,
            open: true,
            draft: false,
            labels: Vec::new(),
        })
    }

    async fn is_open(&self, _: &Forge, _: &str, _: u64) -> Result<bool, String> {
        Ok(!self.closed.load(Ordering::Relaxed))
    }

    async fn writes(&self, _: &Forge, _: &str, by: &Person) -> Result<bool, String> {
        if let Some(meeting) = &self.meeting {
            meeting.wait().await;
        }
        match by.name.as_str() {
            "alice" => Ok(true),
            "nobody" => Err("it does not answer".to_owned()),
            _ => Ok(false),
        }
    }
}

struct House {
    intake: Intake,
    heard: Heard,
    desk: Desk,
    clock: Hands,
    memory: Memory,
    directory: tempfile::TempDir,
}

fn house(kind: Kind, secret: &str) -> House {
    house_with(kind, secret, false)
}

fn house_with(kind: Kind, secret: &str, roles: bool) -> House {
    house_over(kind, secret, roles, Desk::default())
}

/// A frontend over the records of a desk.
fn house_over(kind: Kind, secret: &str, roles: bool, desk: Desk) -> House {
    let directory = tempfile::tempdir().unwrap();
    let secret_file = directory.path().join("secret");
    std::fs::write(&secret_file, secret).unwrap();
    let binding = |branch: &str, queue: &str| Binding {
        repository: Repository::new("owner/app").unwrap(),
        branch: Branch::new(branch).unwrap(),
        queue: LaneName::new(queue).unwrap(),
    };
    let bindings = vec![binding("main", "app"), binding("next", "later")];
    let label = Some("queue".to_owned());
    let forge = Forge {
        name: ForgeName::new("hub").unwrap(),
        kind,
        api: kiln_net::urls::parse("https://forge.example/api").unwrap(),
        rules: Rules { bindings, label, people: Vec::new(), roles, priority: 0 },
        pushes: desk.pushes,
        secret_file,
        token_file: None,
        ca_file: None,
        comment: false,
    };
    let secrets = Arc::new(Secrets::load(std::slice::from_ref(&forge)).unwrap());
    let memory = desk.memory.clone();
    let clock = Hands(Arc::new(Mutex::new(Time(NOW))));
    let parts = IntakeParts {
        records: Arc::new(memory.clone()),
        secrets,
        desks: Arc::new(desk.clone()),
        look_up: Arc::new(desk.clone()),
        pipelines: Arc::new(desk.clone()),
        clock: Arc::new(clock.clone()),
    };
    let mut intake = Intake::new(vec![forge], parts);
    let heard = intake.listen(&ForgeName::new("hub").unwrap()).unwrap();
    House { intake, heard, desk, clock, memory, directory }
}

fn labeled() -> Value {
    json!({
        "action": "labeled",
        "label": {"name": "queue"},
        "pull_request": {
            "number": 7,
            "state": "open",
            "draft": false,
            "labels": [{"name": "queue"}],
            "head": {"ref": "feature/login", "sha": "a".repeat(40), "repo": {"full_name": "owner/app"}},
            "base": {"ref": "main", "repo": {"full_name": "owner/app"}},
            "updated_at": "2025-12-31T23:59:00Z",
        },
        "repository": {"full_name": "owner/app"},
        "sender": {"login": "alice"},
    })
}

fn signature(secret: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, body.as_bytes());
    let digits: String = tag.as_ref().iter().map(|it| format!("{it:02x}")).collect();
    format!("sha256={digits}")
}

impl House {
    async fn send(&self, headers: &[(&str, &str)], body: &str) -> Result<Accepted, Rejected> {
        let get = |name: &str| {
            let found = headers.iter().find(|(it, _)| *it == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let admitted = self.intake.admit("hub", &get)?;
        self.intake.take(admitted, body.as_bytes()).await
    }

    async fn github(&self, id: &str, event: &str, body: &Value) -> Result<Accepted, Rejected> {
        let body = body.to_string();
        let signature = signature(SECRET, &body);
        let headers = [
            ("content-type", "application/json"),
            ("x-github-event", event),
            ("x-github-delivery", id),
            ("x-hub-signature-256", signature.as_str()),
        ];
        self.send(&headers, &body).await
    }

    fn asked(&self) -> usize {
        self.desk.asked.lock().unwrap().len()
    }
}

#[tokio::test]
async fn a_signed_delivery_asks_once_however_often_it_comes() {
    let house = house(Kind::GitHub, SECRET);
    let first = house.github("1", "pull_request", &labeled()).await;
    assert_eq!(first, Ok(Accepted::Asked("queue app was asked".to_owned())));
    // It is delivered again, and somebody who has a copy sends it under another id and as another event.
    for (id, event) in [("1", "pull_request"), ("2", "pull_request")] {
        assert_eq!(house.github(id, event, &labeled()).await, Ok(Accepted::Known));
    }
    let as_comment = house.github("3", "issue_comment", &labeled()).await;
    assert!(matches!(as_comment, Err(Rejected::Malformed(_))), "{as_comment:?}");
    let branch = Branch::new("feature/login").unwrap();
    let expected = (Request::Add { branch, priority: 0 }, "hub: alice".to_owned());
    assert_eq!(*house.desk.asked.lock().unwrap(), [expected]);
}

#[tokio::test]
async fn what_is_forged_or_unsigned_or_no_json_is_refused_and_leaves_nothing() {
    let house = house(Kind::GitHub, SECRET);
    let body = labeled().to_string();
    let wrong = signature("another secret of ours", &body);
    let json = ("content-type", "application/json; charset=utf-8");
    let event = ("x-github-event", "pull_request");
    for headers in [
        vec![json, event],
        vec![json, event, ("x-hub-signature-256", wrong.as_str())],
        vec![json, event, ("x-hub-signature-256", "sha256=00")],
        vec![json, event, ("x-hub-signature", "sha1=00")],
        vec![json, event, ("x-gitlab-token", SECRET)],
    ] {
        let refused = house.send(&headers, &body).await;
        assert_eq!(refused, Err(Rejected::Invalid(Invalid::Forged)), "{headers:?}");
    }
    let right = signature(SECRET, &body);
    let form = ("content-type", "application/x-www-form-urlencoded");
    let headers = [form, event, ("x-hub-signature-256", right.as_str())];
    assert_eq!(house.send(&headers, &body).await, Err(Rejected::NotJson));
    let other = house.intake.admit("other", &|_| None).err();
    assert_eq!(other, Some(Rejected::NoForge("other".to_owned())));
    assert_eq!((house.asked(), house.memory.records()), (0, 0));
}

#[tokio::test]
async fn a_late_copy_is_refused_after_it_was_forgotten() {
    let house = house(Kind::GitHub, SECRET);
    assert!(house.github("1", "pull_request", &labeled()).await.is_ok());
    let late = Time(NOW).plus(WINDOW);
    *house.clock.0.lock().unwrap() = late;
    let refused = house.github("2", "pull_request", &labeled()).await;
    assert_eq!(refused, Err(Rejected::Late(WINDOW)));
    let mut timeless = labeled();
    timeless["pull_request"]["updated_at"] = json!("yesterday");
    let refused = house.github("3", "pull_request", &timeless).await;
    assert!(matches!(refused, Err(Rejected::Malformed(_))), "{refused:?}");
    assert_eq!(house.asked(), 1);
}

#[tokio::test]
async fn what_no_queue_could_take_may_come_again() {
    let mut house = house(Kind::GitHub, SECRET);
    let desk = house.desk.clone();
    let fails = |with| *desk.fails.lock().unwrap() = with;
    fails(Some(AskError::Unavailable("no disk".to_owned())));
    let refused = house.github("1", "pull_request", &labeled()).await;
    assert_eq!(refused, Err(Rejected::Unavailable("no disk".to_owned())));
    assert_eq!(house.memory.records(), 0);
    fails(Some(AskError::Refused("full".to_owned())));
    let told = house.github("1", "pull_request", &labeled()).await;
    assert_eq!(told, Ok(Accepted::Asked("queue app refused: full".to_owned())));
    assert_eq!(house.heard.turned.try_recv().map(|it| it.why), Ok("full".to_owned()));
    fails(None);
    assert_eq!(house.github("1", "pull_request", &labeled()).await, Ok(Accepted::Known));
    // The store itself fails.
    house.memory.fail_after(0, false);
    let mut other = labeled();
    other["pull_request"]["number"] = json!(8);
    let refused = house.github("2", "pull_request", &other).await;
    assert!(matches!(refused, Err(Rejected::Unavailable(_))), "{refused:?}");
    house.memory.recover();
    assert!(matches!(house.github("2", "pull_request", &other).await, Ok(Accepted::Asked(_))));
}

#[tokio::test]
async fn what_asks_for_nothing_is_answered_and_not_kept() {
    let mut house = house(Kind::GitHub, SECRET);
    assert_eq!(house.github("1", "ping", &json!({"zen": "x"})).await, Ok(Accepted::Pong));
    for event in ["push", "star", "check_run"] {
        let answer = house.github("2", event, &json!({})).await;
        assert!(matches!(answer, Ok(Accepted::Ignored(_))), "{answer:?}");
    }
    let mut draft = labeled();
    draft["pull_request"]["draft"] = json!(true);
    let answer = house.github("3", "pull_request", &draft).await;
    assert_eq!(answer, Ok(Accepted::Ignored("it is a draft".to_owned())));
    let turned = house.heard.turned.try_recv().unwrap();
    assert_eq!((turned.why.as_str(), turned.waits), ("it is a draft", true));
    assert!(house.heard.turned.try_recv().is_err(), "once");
    assert_eq!(house.memory.records(), 0);
}

#[tokio::test]
async fn a_comment_is_about_the_change_that_the_forge_names() {
    let house = house(Kind::GitHub, SECRET);
    let comment = json!({
        "action": "created",
        "issue": {"number": 7, "user": {"login": "bob"}, "pull_request": {}},
        "comment": {
            "body": "/kiln priority 4",
            "user": {"login": "alice"},
            "author_association": "OWNER",
            "created_at": "2025-12-31T23:59:00Z",
        },
        "repository": {"full_name": "owner/app"},
    });
    assert!(matches!(house.github("1", "issue_comment", &comment).await, Ok(Accepted::Asked(_))));
    let branch = Branch::new("feature/login").unwrap();
    let asked = house.desk.asked.lock().unwrap().clone();
    assert_eq!(asked[0].0, Request::Add { branch, priority: 4 });
}

#[tokio::test]
async fn one_forge_is_taken_so_many_deliveries_of_in_a_minute() {
    let house = house(Kind::GitLab, SECRET);
    let headers = [
        ("content-type", "application/json"),
        ("x-gitlab-event", "Push Hook"),
        ("x-gitlab-token", SECRET),
    ];
    for _ in 0..600 {
        assert!(house.send(&headers, "{}").await.is_ok());
    }
    assert_eq!(house.send(&headers, "{}").await, Err(Rejected::Many(600)));
    *house.clock.0.lock().unwrap() = Time(NOW + 60_000);
    assert!(house.send(&headers, "{}").await.is_ok());
    // The file of the secret may go: what was read counts.
    drop(house.directory);
}

#[tokio::test]
async fn who_labels_has_to_be_able_to_push_where_the_forge_says_who_is() {
    let house = house_with(Kind::GitHub, SECRET, true);
    let by = |name: &str| {
        let mut it = labeled();
        it["sender"]["login"] = json!(name);
        it
    };
    let triage = house.github("1", "pull_request", &by("triage")).await;
    assert_eq!(triage, Ok(Accepted::Ignored("triage may not ask for that here".to_owned())));
    let unanswered = house.github("2", "pull_request", &by("nobody")).await;
    assert!(matches!(unanswered, Err(Rejected::Unavailable(_))), "{unanswered:?}");
    assert_eq!(house.asked(), 0);
    let alice = house.github("3", "pull_request", &by("alice")).await;
    assert!(matches!(alice, Ok(Accepted::Asked(_))), "{alice:?}");
}

#[tokio::test]
async fn what_comes_late_queues_nothing_that_is_closed_by_now() {
    let house = house_with(Kind::GitHub, SECRET, true);
    let desk = &house.desk;
    *desk.fails.lock().unwrap() = Some(AskError::Unavailable("no runner".to_owned()));
    assert!(house.github("1", "pull_request", &labeled()).await.is_err());
    *desk.fails.lock().unwrap() = None;
    desk.closed.store(true, Ordering::Relaxed);
    let mut closed = labeled();
    closed["action"] = json!("closed");
    closed["pull_request"]["state"] = json!("closed");
    let removed = house.github("2", "pull_request", &closed).await;
    assert!(matches!(removed, Ok(Accepted::Asked(_))), "{removed:?}");
    let again = house.github("1", "pull_request", &labeled()).await;
    assert_eq!(again, Ok(Accepted::Ignored("it is closed".to_owned())));
    assert_eq!(house.asked(), 1, "only that it is taken out");
}
