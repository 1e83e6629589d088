//! Payloads of GitHub, and of Gitea and Forgejo, which write them almost alike
//! (<https://docs.github.com/en/webhooks/webhook-events-and-payloads>, <https://docs.gitea.com/usage/webhooks>).

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::event::{Change, Event, Happened, Malformed, Person, Said};
use super::forge::Kind;
use super::when;
use crate::queue::Commit;

/// Whom GitHub calls somebody who belongs to a repository.
const BELONG: [&str; 3] = ["OWNER", "MEMBER", "COLLABORATOR"];

#[derive(Deserialize)]
struct Repository {
    full_name: String,
}

#[derive(Deserialize)]
struct User {
    login: String,
}

#[derive(Deserialize)]
struct Label {
    name: String,
}

/// A branch of a repository; none where that was deleted.
#[derive(Deserialize)]
struct Side {
    #[serde(rename = "ref")]
    branch: String,
    sha: Option<String>,
    repo: Option<Repository>,
}

/// What webhooks and the API say of a pull request.
#[derive(Deserialize)]
struct Pull {
    number: u64,
    state: String,
    #[serde(default)]
    draft: bool,
    #[serde(default)]
    labels: Option<Vec<Label>>,
    head: Side,
    base: Side,
    updated_at: Option<String>,
}

#[derive(Deserialize)]
struct Before {
    from: String,
}

#[derive(Deserialize)]
struct BaseChange {
    #[serde(rename = "ref")]
    branch: Option<Before>,
}

#[derive(Deserialize)]
struct Changes {
    base: Option<BaseChange>,
    /// The branch that the change was to land on before, as Gitea says it.
    #[serde(rename = "ref")]
    branch: Option<Before>,
}

#[derive(Deserialize)]
struct PullRequestEvent {
    action: String,
    pull_request: Pull,
    label: Option<Label>,
    changes: Option<Changes>,
    repository: Repository,
    sender: Option<User>,
}

#[derive(Deserialize)]
struct Issue {
    number: u64,
    user: Option<User>,
    /// Present where the issue is a pull request.
    pull_request: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Comment {
    #[serde(default)]
    body: Option<String>,
    user: Option<User>,
    author_association: Option<String>,
    created_at: Option<String>,
}

#[derive(Deserialize)]
struct IssueCommentEvent {
    action: String,
    issue: Issue,
    comment: Comment,
    repository: Repository,
}

/// What an event of this name says.
pub fn event(kind: Kind, name: &str, body: &[u8]) -> Result<Event, Malformed> {
    match name {
        "ping" => Ok(Event::Ping),
        "push" => Ok(Event::Pushed),
        "pull_request" => changed(read(name, body)?),
        // Gitea has a name for each kind of change.
        "pull_request_label" | "pull_request_sync" if kind == Kind::Gitea => {
            changed(read(name, body)?)
        }
        "issue_comment" => Ok(said(kind, read(name, body)?)),
        "pull_request_comment" if kind == Kind::Gitea => Ok(said(kind, read(name, body)?)),
        _ => Ok(Event::Other),
    }
}

/// A pull request as the API answers it.
pub fn change(body: &[u8]) -> Result<Change, Malformed> {
    let pull: Pull = read("pull request", body)?;
    let repository = pull.base.repo.as_ref().map(|it| it.full_name.clone());
    let missing = || malformed("pull request", "its base is in no repository");
    let repository = repository.ok_or_else(missing)?;
    Ok(of(pull, repository))
}

fn read<T: DeserializeOwned>(event: &str, body: &[u8]) -> Result<T, Malformed> {
    serde_json::from_slice(body).map_err(|error| malformed(event, &error.to_string()))
}

fn malformed(event: &str, why: &str) -> Malformed {
    Malformed { event: event.to_owned(), why: why.to_owned() }
}

fn changed(it: PullRequestEvent) -> Result<Event, Malformed> {
    let happened = happened(&it)?;
    let PullRequestEvent { pull_request, repository, sender, .. } = it;
    let at = pull_request.updated_at.as_deref().and_then(when::read);
    let by = person(sender);
    Ok(Event::Changed { change: of(pull_request, repository.full_name), happened, by, at })
}

fn person(it: Option<User>) -> Person {
    Person { name: it.map(|it| it.login).unwrap_or_default(), id: None }
}

fn happened(it: &PullRequestEvent) -> Result<Vec<Happened>, Malformed> {
    let label = || {
        let name = it.label.as_ref().map(|it| it.name.clone());
        name.ok_or_else(|| malformed("pull_request", "it names no label"))
    };
    Ok(match it.action.as_str() {
        "labeled" => vec![Happened::Labeled(label()?)],
        "unlabeled" => vec![Happened::Unlabeled(label()?)],
        "label_updated" | "label_cleared" => vec![Happened::Relabeled],
        "opened" | "reopened" | "ready_for_review" => vec![Happened::Offered],
        "converted_to_draft" => vec![Happened::Drafted],
        "closed" => vec![Happened::Closed],
        "synchronize" | "synchronized" => vec![Happened::Pushed],
        "edited" => retargeted(it).into_iter().collect(),
        _ => Vec::new(),
    })
}

/// The branch that it was to land on before, where that was edited.
fn retargeted(it: &PullRequestEvent) -> Option<Happened> {
    let changes = it.changes.as_ref()?;
    let base = changes.base.as_ref().and_then(|it| it.branch.as_ref());
    let before = base.or(changes.branch.as_ref())?;
    Some(Happened::Retargeted(before.from.clone()))
}

fn of(it: Pull, repository: String) -> Change {
    let own = it.head.repo.is_some_and(|it| it.full_name.eq_ignore_ascii_case(&repository));
    Change {
        number: it.number,
        repository,
        base: it.base.branch,
        branch: it.head.branch,
        head: it.head.sha.and_then(|it| Commit::new(&it).ok()),
        foreign: !own,
        open: it.state == "open",
        draft: it.draft,
        labels: it.labels.unwrap_or_default().into_iter().map(|it| it.name).collect(),
    }
}

fn said(kind: Kind, it: IssueCommentEvent) -> Event {
    // A comment that is edited says nothing anew, and may be edited by others.
    if it.action != "created" || it.issue.pull_request.is_none() {
        return Event::Other;
    }
    let by = person(it.comment.user);
    let author = it.issue.user.map(|it| it.login).unwrap_or_default();
    let association = it.comment.author_association.filter(|_| kind == Kind::GitHub);
    let said = Said {
        repository: it.repository.full_name,
        number: it.issue.number,
        text: it.comment.body.unwrap_or_default(),
        by_author: !by.name.is_empty() && by.name == author,
        by,
        belongs: association.map(|it| BELONG.contains(&it.as_str())),
        change: None,
    };
    Event::Said { said, at: it.comment.created_at.as_deref().and_then(when::read) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::Time;

    fn pull() -> Value {
        json!({
            "number": 7,
            "state": "open",
            "draft": false,
            "title": "Add a login",
            "user": {"login": "bob"},
            "labels": [{"name": "queue", "color": "d73a4a"}],
            "head": {"ref": "feature/login", "sha": "a".repeat(40), "repo": {"full_name": "Owner/app"}},
            "base": {"ref": "main", "sha": "b".repeat(40), "repo": {"full_name": "owner/app"}},
            "updated_at": "1970-01-01T00:00:05Z",
        })
    }

    fn payload(action: &str) -> Value {
        json!({
            "action": action,
            "number": 7,
            "pull_request": pull(),
            "repository": {"full_name": "owner/app", "private": true},
            "sender": {"login": "alice", "type": "User"},
        })
    }

    fn read_event(name: &str, payload: &Value) -> Result<Event, Malformed> {
        event(Kind::GitHub, name, payload.to_string().as_bytes())
    }

    fn happened_in(payload: &Value) -> Vec<Happened> {
        match read_event("pull_request", payload).unwrap() {
            Event::Changed { happened, .. } => happened,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_label_is_what_happened_to_a_pull_request() {
        let mut labeled = payload("labeled");
        labeled["label"] = json!({"name": "queue"});
        let expected = Change {
            number: 7,
            repository: "owner/app".to_owned(),
            base: "main".to_owned(),
            branch: "feature/login".to_owned(),
            head: Commit::new(&"a".repeat(40)).ok(),
            foreign: false,
            open: true,
            draft: false,
            labels: vec!["queue".to_owned()],
        };
        let expected = Event::Changed {
            change: expected,
            happened: vec![Happened::Labeled("queue".to_owned())],
            by: Person { name: "alice".to_owned(), id: None },
            at: Some(Time(5_000)),
        };
        assert_eq!(read_event("pull_request", &labeled), Ok(expected));
        let nameless = read_event("pull_request", &payload("labeled")).unwrap_err();
        assert!(nameless.to_string().contains("no label"), "{nameless}");
    }

    #[test]
    fn each_action_is_one_thing_or_nothing() {
        for (action, expected) in [
            ("opened", vec![Happened::Offered]),
            ("reopened", vec![Happened::Offered]),
            ("ready_for_review", vec![Happened::Offered]),
            ("converted_to_draft", vec![Happened::Drafted]),
            ("closed", vec![Happened::Closed]),
            ("synchronize", vec![Happened::Pushed]),
            ("assigned", vec![]),
            ("edited", vec![]),
        ] {
            assert_eq!(happened_in(&payload(action)), expected, "{action}");
        }
        let mut edited = payload("edited");
        edited["changes"] = json!({"base": {"ref": {"from": "next"}, "sha": {"from": "b"}}});
        assert_eq!(happened_in(&edited), [Happened::Retargeted("next".to_owned())]);
        edited["changes"] = json!({"title": {"from": "x"}});
        assert!(happened_in(&edited).is_empty());
    }

    #[test]
    fn the_branch_of_a_fork_is_foreign_and_so_is_one_that_is_gone() {
        for repo in [json!({"full_name": "mallory/app"}), Value::Null] {
            let mut fork = payload("opened");
            fork["pull_request"]["head"]["repo"] = repo;
            let Event::Changed { change, .. } = read_event("pull_request", &fork).unwrap() else {
                panic!("it is no change");
            };
            assert!(change.foreign);
        }
    }

    #[test]
    fn comments_on_pull_requests_are_heard_once() {
        let mut comment = json!({
            "action": "created",
            "issue": {"number": 7, "user": {"login": "alice"}, "pull_request": {"url": "x"}},
            "comment": {
                "body": "/kiln queue",
                "user": {"login": "alice"},
                "author_association": "MEMBER",
                "created_at": "1970-01-01T00:00:06Z",
            },
            "repository": {"full_name": "owner/app"},
        });
        let Event::Said { said, at } = read_event("issue_comment", &comment).unwrap() else {
            panic!("it is no comment");
        };
        assert_eq!((said.number, said.by_author, said.belongs), (7, true, Some(true)));
        assert_eq!((said.text.as_str(), at), ("/kiln queue", Some(Time(6_000))));
        comment["comment"]["author_association"] = json!("CONTRIBUTOR");
        comment["comment"]["user"]["login"] = json!("eve");
        let Event::Said { said, .. } = read_event("issue_comment", &comment).unwrap() else {
            panic!("it is no comment");
        };
        assert_eq!((said.by_author, said.belongs), (false, Some(false)));
        comment["action"] = json!("edited");
        assert_eq!(read_event("issue_comment", &comment), Ok(Event::Other));
        comment["action"] = json!("created");
        comment["issue"].as_object_mut().unwrap().remove("pull_request");
        assert_eq!(read_event("issue_comment", &comment), Ok(Event::Other), "an issue");
    }

    #[test]
    fn other_events_are_not_read_and_odd_bodies_are_refused() {
        for (name, expected) in [
            ("ping", Event::Ping),
            ("push", Event::Pushed),
            ("star", Event::Other),
            ("", Event::Other),
        ] {
            assert_eq!(event(Kind::GitHub, name, b"not JSON"), Ok(expected), "{name}");
        }
        let deep = "[".repeat(100_000);
        for body in ["", "{}", "[]", "null", "{\"action\":1}", deep.as_str()] {
            assert!(event(Kind::GitHub, "pull_request", body.as_bytes()).is_err());
            assert!(change(body.as_bytes()).is_err());
        }
        assert_eq!(change(pull().to_string().as_bytes()).unwrap().repository, "owner/app");
    }

    #[test]
    fn gitea_says_the_same_in_other_words() {
        let mut relabeled = payload("label_updated");
        relabeled["pull_request"]["labels"] = Value::Null;
        let body = relabeled.to_string();
        let Ok(Event::Changed { change, happened, .. }) =
            event(Kind::Gitea, "pull_request_label", body.as_bytes())
        else {
            panic!("it is no change");
        };
        assert_eq!((change.labels, happened), (vec![], vec![Happened::Relabeled]));
        let other = event(Kind::GitHub, "pull_request_label", body.as_bytes());
        assert_eq!(other, Ok(Event::Other));
    }
}
