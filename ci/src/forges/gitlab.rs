//! Payloads of GitLab (<https://docs.gitlab.com/user/project/integrations/webhook_events/>).

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::event::{Change, Event, Happened, Malformed, Person, Said};
use super::when;
use crate::queue::Commit;

#[derive(Deserialize)]
struct Project {
    path_with_namespace: String,
}

#[derive(Deserialize)]
struct User {
    id: Option<u64>,
    username: String,
}

#[derive(Deserialize)]
struct Label {
    title: String,
}

#[derive(Deserialize)]
struct LastCommit {
    id: String,
}

/// What both kinds of events say of a merge request.
#[derive(Deserialize)]
struct MergeRequest {
    iid: u64,
    target_branch: String,
    source_branch: String,
    /// `null` where the fork was deleted.
    source_project_id: Option<u64>,
    target_project_id: u64,
    author_id: Option<u64>,
    state: String,
    #[serde(default)]
    draft: bool,
    /// What drafts were called before.
    #[serde(default)]
    work_in_progress: bool,
    #[serde(default)]
    labels: Option<Vec<Label>>,
    updated_at: Option<String>,
    action: Option<String>,
    /// The commit before a push; present only where the branch was pushed to.
    oldrev: Option<String>,
    last_commit: Option<LastCommit>,
}

#[derive(Deserialize)]
struct Changed<T> {
    previous: Option<T>,
    current: Option<T>,
}

#[derive(Deserialize)]
struct Changes {
    labels: Option<Changed<Vec<Label>>>,
    draft: Option<Changed<bool>>,
    target_branch: Option<Changed<String>>,
}

#[derive(Deserialize)]
struct MergeRequestEvent {
    user: User,
    project: Project,
    object_attributes: MergeRequest,
    labels: Option<Vec<Label>>,
    changes: Option<Changes>,
}

#[derive(Deserialize)]
struct Note {
    note: String,
    noteable_type: String,
    /// `create` or `update`; older GitLab does not say, and tells of new ones alone.
    action: Option<String>,
    created_at: Option<String>,
    #[serde(default)]
    system: bool,
}

#[derive(Deserialize)]
struct NoteEvent {
    user: User,
    project: Project,
    object_attributes: Note,
    merge_request: Option<MergeRequest>,
}

/// What an event of this name says.
pub fn event(name: &str, body: &[u8]) -> Result<Event, Malformed> {
    match name {
        "Push Hook" => Ok(Event::Pushed),
        "Merge Request Hook" => Ok(changed(read(name, body)?)),
        "Note Hook" => Ok(said(read(name, body)?)),
        _ => Ok(Event::Other),
    }
}

fn read<T: DeserializeOwned>(event: &str, body: &[u8]) -> Result<T, Malformed> {
    serde_json::from_slice(body)
        .map_err(|error| Malformed { event: event.to_owned(), why: error.to_string() })
}

fn changed(it: MergeRequestEvent) -> Event {
    let at = it.object_attributes.updated_at.as_deref().and_then(when::read);
    let happened = happened(&it);
    let by = person(it.user);
    let mut change = of(it.object_attributes, it.project.path_with_namespace);
    if let Some(labels) = it.labels {
        change.labels = labels.into_iter().map(|it| it.title).collect();
    }
    Event::Changed { change, happened, by, at }
}

fn person(it: User) -> Person {
    Person { name: it.username, id: it.id }
}

fn happened(it: &MergeRequestEvent) -> Vec<Happened> {
    match it.object_attributes.action.as_deref() {
        Some("open" | "reopen") => vec![Happened::Offered],
        Some("close" | "merge") => vec![Happened::Closed],
        Some("update") => updated(it),
        _ => Vec::new(),
    }
}

/// What an update of a merge request says, which may be several things.
fn updated(it: &MergeRequestEvent) -> Vec<Happened> {
    let mut happened = Vec::new();
    if it.object_attributes.oldrev.is_some() {
        happened.push(Happened::Pushed);
    }
    let Some(changes) = &it.changes else { return happened };
    if let Some(before) = changes.target_branch.as_ref().and_then(|it| it.previous.clone()) {
        happened.push(Happened::Retargeted(before));
    }
    match changes.draft.as_ref().and_then(|it| it.current) {
        Some(true) => happened.push(Happened::Drafted),
        Some(false) => happened.push(Happened::Offered),
        None => {}
    }
    if let Some(labels) = &changes.labels {
        let titles = |it: &Option<Vec<Label>>| -> Vec<String> {
            it.iter().flatten().map(|it| it.title.clone()).collect()
        };
        let (before, after) = (titles(&labels.previous), titles(&labels.current));
        let left = before.iter().filter(|it| !after.contains(it));
        happened.extend(left.cloned().map(Happened::Unlabeled));
        let came = after.iter().filter(|it| !before.contains(it));
        happened.extend(came.cloned().map(Happened::Labeled));
    }
    happened
}

fn of(it: MergeRequest, repository: String) -> Change {
    Change {
        number: it.iid,
        repository,
        base: it.target_branch,
        branch: it.source_branch,
        head: it.last_commit.and_then(|it| Commit::new(&it.id).ok()),
        foreign: it.source_project_id != Some(it.target_project_id),
        open: it.state == "opened",
        draft: it.draft || it.work_in_progress,
        labels: it.labels.unwrap_or_default().into_iter().map(|it| it.title).collect(),
    }
}

fn said(it: NoteEvent) -> Event {
    let note = it.object_attributes;
    let is_new = note.action.as_deref().is_none_or(|it| it == "create");
    let on_change = note.noteable_type == "MergeRequest";
    let Some(request) = it.merge_request.filter(|_| is_new && on_change && !note.system) else {
        return Event::Other;
    };
    let repository = it.project.path_with_namespace;
    let said = Said {
        repository: repository.clone(),
        number: request.iid,
        text: note.note,
        by_author: it.user.id.is_some() && it.user.id == request.author_id,
        by: person(it.user),
        belongs: None,
        change: Some(of(request, repository)),
    };
    Event::Said { said, at: note.created_at.as_deref().and_then(when::read) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::Time;

    fn attributes() -> Value {
        json!({
            "id": 99,
            "iid": 7,
            "target_branch": "main",
            "source_branch": "feature/login",
            "source_project_id": 14,
            "target_project_id": 14,
            "author_id": 51,
            "state": "opened",
            "draft": false,
            "work_in_progress": false,
            "labels": [{"id": 206, "title": "queue"}],
            "last_commit": {"id": "a".repeat(40)},
            "updated_at": "1970-01-01 00:00:05 UTC",
        })
    }

    fn payload(action: &str, changes: &Value) -> Value {
        let mut attributes = attributes();
        attributes["action"] = json!(action);
        json!({
            "object_kind": "merge_request",
            "event_type": "merge_request",
            "user": {"id": 1, "username": "alice"},
            "project": {"id": 14, "path_with_namespace": "group/sub/app"},
            "object_attributes": attributes,
            "labels": [{"title": "queue"}, {"title": "api"}],
            "changes": changes,
        })
    }

    fn read_event(name: &str, payload: &Value) -> Result<Event, Malformed> {
        event(name, payload.to_string().as_bytes())
    }

    fn happened_in(payload: &Value) -> Vec<Happened> {
        match read_event("Merge Request Hook", payload).unwrap() {
            Event::Changed { happened, .. } => happened,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_update_says_all_that_changed() {
        let labels = json!({
            "previous": [{"title": "api"}, {"title": "old"}],
            "current": [{"title": "api"}, {"title": "queue"}],
        });
        let changes = json!({
            "labels": labels,
            "draft": {"previous": true, "current": false},
            "target_branch": {"previous": "next", "current": "main"},
            "updated_at": {"previous": "x", "current": "y"},
        });
        let payload = payload("update", &changes);
        let event = read_event("Merge Request Hook", &payload).unwrap();
        let Event::Changed { change, happened, by, at } = event else { panic!("no change") };
        assert_eq!((change.number, change.foreign, change.open), (7, false, true));
        assert_eq!(change.labels, ["queue", "api"]);
        assert_eq!(change.head, Commit::new(&"a".repeat(40)).ok());
        assert_eq!((change.repository.as_str(), by.name.as_str()), ("group/sub/app", "alice"));
        assert_eq!(by.id, Some(1));
        assert_eq!(at, Some(Time(5_000)));
        assert_eq!(
            happened,
            [
                Happened::Retargeted("next".to_owned()),
                Happened::Offered,
                Happened::Unlabeled("old".to_owned()),
                Happened::Labeled("queue".to_owned()),
            ]
        );
    }

    #[test]
    fn each_action_is_one_thing_or_nothing() {
        for (action, expected) in [
            ("open", vec![Happened::Offered]),
            ("reopen", vec![Happened::Offered]),
            ("close", vec![Happened::Closed]),
            ("merge", vec![Happened::Closed]),
            ("approved", vec![]),
            ("update", vec![]),
        ] {
            assert_eq!(happened_in(&payload(action, &json!({}))), expected, "{action}");
        }
        let mut pushed = payload("update", &json!({}));
        pushed["object_attributes"]["oldrev"] = json!("b".repeat(40));
        assert_eq!(happened_in(&pushed), [Happened::Pushed]);
        let drafted = payload("update", &json!({"draft": {"previous": false, "current": true}}));
        assert_eq!(happened_in(&drafted), [Happened::Drafted]);
    }

    #[test]
    fn a_fork_is_another_project_or_none() {
        for project in [json!(15), Value::Null] {
            let mut fork = payload("open", &json!({}));
            fork["object_attributes"]["source_project_id"] = project;
            let event = read_event("Merge Request Hook", &fork).unwrap();
            let Event::Changed { change, .. } = event else { panic!("no change") };
            assert!(change.foreign);
        }
    }

    #[test]
    fn new_notes_on_merge_requests_are_heard() {
        let mut note = json!({
            "object_kind": "note",
            "user": {"id": 51, "username": "bob"},
            "project": {"path_with_namespace": "group/sub/app"},
            "object_attributes": {
                "note": "/kiln remove",
                "noteable_type": "MergeRequest",
                "action": "create",
                "created_at": "1970-01-01 00:00:06 UTC",
                "system": false,
            },
            "merge_request": attributes(),
        });
        let Event::Said { said, at } = read_event("Note Hook", &note).unwrap() else {
            panic!("no note");
        };
        assert_eq!((said.by.name.as_str(), said.by_author, said.belongs), ("bob", true, None));
        assert_eq!((said.text.as_str(), at), ("/kiln remove", Some(Time(6_000))));
        assert_eq!(said.change.unwrap().branch, "feature/login");
        for (key, value) in [
            ("action", json!("update")),
            ("noteable_type", json!("Issue")),
            ("system", json!(true)),
        ] {
            let before = note["object_attributes"][key].take();
            note["object_attributes"][key] = value;
            assert_eq!(read_event("Note Hook", &note), Ok(Event::Other), "{key}");
            note["object_attributes"][key] = before;
        }
    }

    #[test]
    fn other_events_are_not_read_and_odd_bodies_are_refused() {
        for (name, expected) in [("Push Hook", Event::Pushed), ("Pipeline Hook", Event::Other)] {
            assert_eq!(event(name, b"not JSON"), Ok(expected), "{name}");
        }
        for body in ["", "{}", "[]", "{\"user\":{}}"] {
            assert!(event("Merge Request Hook", body.as_bytes()).is_err());
            assert!(event("Note Hook", body.as_bytes()).is_err());
        }
    }
}
