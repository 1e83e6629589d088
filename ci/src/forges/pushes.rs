//! What forges say of a push (<https://docs.github.com/en/webhooks/webhook-events-and-payloads#push>).

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::event::Malformed;
use super::forge::{Kind, Repository};
use super::when;
use crate::model::Time;
use crate::queue::{Branch, Commit};

/// Characters of a person's name that are kept.
const MAX_NAME: usize = 100;

/// A branch that is at another commit now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    pub repository: String,
    pub branch: Branch,
    pub commit: Commit,
    pub by: String,
    /// When it happened, by the time of the push that the body says, or else by the latest of the times beside it.
    pub at: Option<Time>,
}

#[derive(Deserialize)]
struct HubRepository {
    full_name: String,
    /// Seconds since the Unix epoch, or the time in words.
    pushed_at: Option<Moment>,
    updated_at: Option<Moment>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Moment {
    Seconds(u64),
    Words(String),
}

#[derive(Deserialize)]
struct User {
    login: String,
}

#[derive(Deserialize)]
struct HeadCommit {
    timestamp: Option<Moment>,
}

/// What GitHub says, and Gitea almost alike.
#[derive(Deserialize)]
struct HubPush {
    #[serde(rename = "ref")]
    reference: String,
    after: String,
    repository: HubRepository,
    sender: Option<User>,
    head_commit: Option<HeadCommit>,
}

#[derive(Deserialize)]
struct Project {
    path_with_namespace: String,
}

#[derive(Deserialize)]
struct LabPush {
    #[serde(rename = "ref")]
    reference: String,
    after: String,
    project: Project,
    user_username: Option<String>,
}

/// Reads the body of a push. `None`: no branch was pushed to (it is a tag, or the branch was deleted), or one whose name git
/// could take for something else.
pub fn read_push(kind: Kind, body: &[u8]) -> Result<Option<Push>, Malformed> {
    match kind {
        Kind::GitHub | Kind::Gitea => {
            let it: HubPush = parsed(body)?;
            // Whoever commits chooses the time of a commit: it does not count where the forge says that of the push.
            let pushed = it.repository.pushed_at.and_then(Moment::time);
            let head = it.head_commit.and_then(|it| it.timestamp);
            let beside = [it.repository.updated_at, head].into_iter().flatten();
            let at = pushed.or_else(|| beside.filter_map(Moment::time).max());
            let by = it.sender.map(|it| it.login);
            push(&it.reference, &it.after, it.repository.full_name, by, at)
        }
        Kind::GitLab => {
            let it: LabPush = parsed(body)?;
            let repository = it.project.path_with_namespace;
            push(&it.reference, &it.after, repository, it.user_username, None)
        }
    }
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Malformed> {
    serde_json::from_slice(body).map_err(|error| malformed(&error))
}

fn malformed(why: &dyn std::error::Error) -> Malformed {
    Malformed { event: "push".to_owned(), why: why.to_string() }
}

fn push(
    reference: &str,
    after: &str,
    repository: String,
    by: Option<String>,
    at: Option<Time>,
) -> Result<Option<Push>, Malformed> {
    // It is kept, so it has a bound.
    Repository::new(&repository).map_err(|error| malformed(&error))?;
    let branch = reference.strip_prefix("refs/heads/").and_then(|it| Branch::new(it).ok());
    // A branch that was deleted is at no commit.
    let commit = Commit::new(after).ok().filter(|it| it.as_str().bytes().any(|it| it != b'0'));
    let by = by.unwrap_or_default().chars().take(MAX_NAME).collect();
    let both = branch.zip(commit);
    Ok(both.map(|(branch, commit)| Push { repository, branch, commit, by, at }))
}

impl Moment {
    fn time(self) -> Option<Time> {
        match self {
            Self::Seconds(seconds) => seconds.checked_mul(1_000).map(Time),
            Self::Words(text) => when::read(&text),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_it(kind: Kind, body: &serde_json::Value) -> Result<Option<Push>, Malformed> {
        read_push(kind, body.to_string().as_bytes())
    }

    #[test]
    fn each_forge_says_which_branch_is_where() {
        let gitea = json!({
            "ref": "refs/heads/main",
            "before": "b".repeat(40),
            "after": "a".repeat(40),
            "repository": {"full_name": "owner/app", "updated_at": "1970-01-01T00:00:07Z"},
            "pusher": {"login": "alice"},
            "sender": {"login": "alice"},
            "head_commit": {"timestamp": "1970-01-01T02:00:05+02:00"},
        });
        let expected = Push {
            repository: "owner/app".to_owned(),
            branch: Branch::new("main").unwrap(),
            commit: Commit::new(&"a".repeat(40)).unwrap(),
            by: "alice".to_owned(),
            at: Some(Time(7_000)),
        };
        assert_eq!(read_it(Kind::Gitea, &gitea), Ok(Some(expected.clone())));
        let gitlab = json!({
            "object_kind": "push",
            "ref": "refs/heads/main",
            "checkout_sha": "a".repeat(40),
            "after": "a".repeat(40),
            "user_username": "alice",
            "project": {"path_with_namespace": "owner/app"},
        });
        let expected = Push { at: None, ..expected };
        assert_eq!(read_it(Kind::GitLab, &gitlab), Ok(Some(expected)));
    }

    #[test]
    fn what_is_no_push_of_a_branch_is_none_and_odd_bodies_are_refused() {
        let (there, gone) = ("a".repeat(40), "0".repeat(40));
        for (reference, after) in [
            ("refs/tags/v1", &there),
            ("refs/heads/main", &gone),
            ("refs/heads/--upload-pack=x", &there),
            ("refs/heads/$(reboot)", &there),
            ("main", &there),
        ] {
            let body = json!({
                "ref": reference,
                "after": after,
                "repository": {"full_name": "owner/app"},
            });
            assert_eq!(read_it(Kind::GitHub, &body), Ok(None), "{reference}");
        }
        let long = json!({
            "ref": "refs/heads/main",
            "after": there,
            "repository": {"full_name": format!("owner/{}", "a".repeat(300))},
        });
        assert!(read_it(Kind::GitHub, &long).is_err(), "what is kept has a bound");
        for kind in Kind::ALL {
            for body in ["", "{}", "[]", "null", "{\"ref\":1}"] {
                assert!(read_push(kind, body.as_bytes()).is_err(), "{body}");
            }
        }
    }
}
