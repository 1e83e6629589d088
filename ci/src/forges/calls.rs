//! What forges are told and asked, as requests to their APIs: of GitHub <https://docs.github.com/en/rest/commits/statuses>,
//! of GitLab <https://docs.gitlab.com/api/commits/#set-commit-pipeline-status>, of Gitea its `/api/v1`.

use kiln_net::urls::component;
use serde::Deserialize;
use serde_json::{Value, json};

use super::event::Person;
use super::forge::{Binding, Kind, Repository};
use super::status::{Status, StatusState};
use crate::queue::Branch;

/// What the status is called beside a commit.
pub const CONTEXT: &str = "kiln/queue";

/// A request to an API.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The path below the root of the API, with its query.
    pub path: String,
    /// `None`: it only reads.
    pub body: Option<Value>,
}

fn repo(kind: Kind, repository: &Repository) -> String {
    match kind {
        Kind::GitHub | Kind::Gitea => format!("/repos/{repository}"),
        Kind::GitLab => format!("/projects/{}", component(repository.as_str())),
    }
}

/// Sets the status of a commit.
pub fn status(kind: Kind, repository: &Repository, status: &Status) -> Call {
    let path = format!("{}/statuses/{}", repo(kind, repository), status.commit);
    let state = word(kind, status.state);
    let body = match kind {
        Kind::GitHub | Kind::Gitea => json!({
            "state": state,
            "context": CONTEXT,
            "description": status.description,
            "target_url": status.link,
        }),
        Kind::GitLab => json!({
            "state": state,
            "name": CONTEXT,
            "ref": status.branch.as_ref().map(Branch::as_str),
            "description": status.description,
            "target_url": status.link,
        }),
    };
    Call { path, body: Some(body) }
}

fn word(kind: Kind, state: StatusState) -> &'static str {
    match (kind, state) {
        (_, StatusState::Success) => "success",
        (_, StatusState::Pending) => "pending",
        (Kind::GitLab, StatusState::Running) => "running",
        (_, StatusState::Running) => "pending",
        (Kind::GitLab, StatusState::Failure) => "failed",
        (_, StatusState::Failure) => "failure",
        (Kind::GitLab, StatusState::Left) => "canceled",
        (_, StatusState::Left) => "error",
    }
}

/// Asks for the open change of a branch.
pub fn changes_of(kind: Kind, binding: &Binding, branch: &Branch) -> Call {
    let (head, base) = (component(branch.as_str()), component(binding.branch.as_str()));
    let owner = binding.repository.as_str().split('/').next().unwrap_or_default();
    let repo = repo(kind, &binding.repository);
    let path = match kind {
        Kind::GitHub => {
            format!("{repo}/pulls?state=open&per_page=1&head={owner}:{head}&base={base}")
        }
        Kind::Gitea => format!("{repo}/pulls/{base}/{head}"),
        Kind::GitLab => format!(
            "{repo}/merge_requests?state=opened&per_page=1&source_branch={head}&target_branch={base}"
        ),
    };
    Call { path, body: None }
}

#[derive(Deserialize)]
struct Numbered {
    #[serde(alias = "iid")]
    number: u64,
}

/// GitLab's have an `id` and an `iid`; who else has a number has no `iid`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Found {
    One(Numbered),
    Many(Vec<Numbered>),
}

/// The number of the change in the answer to [`changes_of`]; nothing where there is none.
pub fn number(body: &[u8]) -> Option<u64> {
    match serde_json::from_slice(body).ok()? {
        Found::One(it) => Some(it.number),
        Found::Many(all) => all.first().map(|it| it.number),
    }
}

/// Asks for one change as it is now.
pub fn change(kind: Kind, repository: &Repository, number: u64) -> Call {
    let what = if kind == Kind::GitLab { "merge_requests" } else { "pulls" };
    Call { path: format!("{}/{what}/{number}", repo(kind, repository)), body: None }
}

#[derive(Deserialize)]
struct Stands {
    state: String,
}

/// Whether the answer to [`change`] is of one that is open; nothing where it does not say.
pub fn is_open(body: &[u8]) -> Option<bool> {
    let it: Stands = serde_json::from_slice(body).ok()?;
    Some(matches!(it.state.as_str(), "open" | "opened"))
}

/// GitLab's lowest access level that may push: Developer.
const GITLAB_PUSHES: u64 = 30;

#[derive(Deserialize)]
struct Role {
    permission: Option<String>,
    access_level: Option<u64>,
}

/// Asks what somebody may do in a repository; nothing where it is not known who it is.
pub fn role(kind: Kind, repository: &Repository, by: &Person) -> Option<Call> {
    let repo = repo(kind, repository);
    let path = match kind {
        Kind::GitHub | Kind::Gitea if by.name.is_empty() => return None,
        Kind::GitHub | Kind::Gitea => {
            format!("{repo}/collaborators/{}/permission", component(&by.name))
        }
        Kind::GitLab => format!("{repo}/members/all/{}", by.id?),
    };
    Some(Call { path, body: None })
}

/// Whether the answer to [`role`] is that of somebody who may push.
pub fn writes(body: &[u8]) -> bool {
    let Ok(role) = serde_json::from_slice::<Role>(body) else { return false };
    let permission = role.permission.as_deref();
    matches!(permission, Some("write" | "maintain" | "admin" | "owner"))
        || role.access_level.is_some_and(|it| it >= GITLAB_PUSHES)
}

/// Says something below a change.
pub fn comment(kind: Kind, repository: &Repository, number: u64, text: &str) -> Call {
    let repo = repo(kind, repository);
    let path = match kind {
        Kind::GitHub | Kind::Gitea => format!("{repo}/issues/{number}/comments"),
        Kind::GitLab => format!("{repo}/merge_requests/{number}/notes"),
    };
    Call { path, body: Some(json!({ "body": text })) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Commit;
    use crate::queue::serving::LaneName;

    fn binding(repository: &str) -> Binding {
        Binding {
            repository: Repository::new(repository).unwrap(),
            branch: Branch::new("main").unwrap(),
            queue: LaneName::new("app").unwrap(),
        }
    }

    fn a_status(state: StatusState) -> Status {
        Status {
            commit: Commit::new(&"a".repeat(40)).unwrap(),
            branch: Branch::new("feature/ü").ok(),
            state,
            description: "waits".to_owned(),
            link: "http://kiln/merge-queues/app".to_owned(),
        }
    }

    #[test]
    fn a_status_is_set_as_each_forge_has_it() {
        let sha = "a".repeat(40);
        let github = Repository::new("owner/app").unwrap();
        let call = status(Kind::GitHub, &github, &a_status(StatusState::Failure));
        assert_eq!(call.path, format!("/repos/owner/app/statuses/{sha}"));
        let body = call.body.unwrap();
        assert_eq!((&body["state"], &body["context"]), (&json!("failure"), &json!(CONTEXT)));
        assert_eq!(body["target_url"], "http://kiln/merge-queues/app");
        let gitlab = Repository::new("group/sub/app").unwrap();
        let call = status(Kind::GitLab, &gitlab, &a_status(StatusState::Running));
        assert_eq!(call.path, format!("/projects/group%2Fsub%2Fapp/statuses/{sha}"));
        let body = call.body.unwrap();
        assert_eq!((&body["state"], &body["name"]), (&json!("running"), &json!(CONTEXT)));
        assert_eq!(body["ref"], "feature/ü");
        let states = [
            StatusState::Pending,
            StatusState::Running,
            StatusState::Success,
            StatusState::Failure,
            StatusState::Left,
        ];
        let words = |kind| states.map(|it| word(kind, it));
        assert_eq!(words(Kind::GitHub), ["pending", "pending", "success", "failure", "error"]);
        assert_eq!(words(Kind::GitLab), ["pending", "running", "success", "failed", "canceled"]);
    }

    #[test]
    fn a_branch_is_a_value_and_never_more_of_a_query() {
        let branch = Branch::new("a=b,c+d%2e").unwrap();
        let of = |kind, repository| changes_of(kind, &binding(repository), &branch).path;
        assert_eq!(
            of(Kind::GitHub, "owner/app"),
            "/repos/owner/app/pulls?state=open&per_page=1&head=owner:a%3Db%2Cc%2Bd%252e&base=main"
        );
        assert_eq!(of(Kind::Gitea, "owner/app"), "/repos/owner/app/pulls/main/a%3Db%2Cc%2Bd%252e");
        assert!(
            of(Kind::GitLab, "g/app")
                .ends_with("source_branch=a%3Db%2Cc%2Bd%252e&target_branch=main")
        );
    }

    #[test]
    fn who_may_push_is_what_the_forge_says() {
        let github = Repository::new("owner/app").unwrap();
        let person = |name: &str, id| Person { name: name.to_owned(), id };
        let path = |kind, by: &Person| role(kind, &github, by).map(|it| it.path);
        let odd = path(Kind::GitHub, &person("a/../b", None));
        let expected = "/repos/owner/app/collaborators/a%2F..%2Fb/permission";
        assert_eq!(odd.as_deref(), Some(expected));
        let gitlab = path(Kind::GitLab, &person("alice", Some(51)));
        assert_eq!(gitlab.as_deref(), Some("/projects/owner%2Fapp/members/all/51"));
        assert_eq!(path(Kind::GitLab, &person("alice", None)), None);
        assert_eq!(path(Kind::GitHub, &person("", None)), None);
        for (body, expected) in [
            ("{\"permission\":\"admin\"}", true),
            ("{\"permission\":\"write\",\"role_name\":\"write\"}", true),
            ("{\"permission\":\"read\"}", false),
            ("{\"permission\":\"none\"}", false),
            ("{\"id\":51,\"access_level\":30}", true),
            ("{\"id\":51,\"access_level\":20}", false),
            ("{}", false),
            ("no JSON", false),
        ] {
            assert_eq!(writes(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn a_change_is_open_where_the_forge_says_so() {
        for (body, expected) in [
            ("{\"number\":7,\"state\":\"open\"}", Some(true)),
            ("{\"iid\":7,\"state\":\"opened\"}", Some(true)),
            ("{\"number\":7,\"state\":\"closed\"}", Some(false)),
            ("{\"iid\":7,\"state\":\"merged\"}", Some(false)),
            ("{}", None),
            ("no JSON", None),
        ] {
            assert_eq!(is_open(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn the_number_is_that_of_the_first_change() {
        for (body, expected) in [
            ("[]", None),
            ("[{\"number\":7,\"id\":1},{\"number\":8}]", Some(7)),
            ("{\"number\":7}", Some(7)),
            ("[{\"id\":5,\"iid\":9}]", Some(9)),
            ("{\"message\":\"404\"}", None),
            ("no JSON", None),
        ] {
            assert_eq!(number(body.as_bytes()), expected, "{body}");
        }
        let repository = Repository::new("owner/app").unwrap();
        let call = comment(Kind::GitHub, &repository, 7, "rejected");
        assert_eq!(call.path, "/repos/owner/app/issues/7/comments");
        assert_eq!(change(Kind::Gitea, &repository, 7).path, "/repos/owner/app/pulls/7");
    }
}
