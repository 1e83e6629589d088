//! What forges are told and asked, as requests to their APIs: of GitHub <https://docs.github.com/en/rest/commits/statuses>,
//! of GitLab <https://docs.gitlab.com/api/commits/#set-commit-pipeline-status>, of Gitea its `/api/v1`.

use kiln_net::urls::component;
use serde::Deserialize;
use serde_json::{Value, json};

use super::forge::{Binding, Kind, Repository};
use super::status::{State, Status};
use crate::queue::Branch;

/// What the status is called beside a commit.
pub const CONTEXT: &str = "kiln/queue";

/// A request to an API.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Below the root of the API, with its query.
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

fn word(kind: Kind, state: State) -> &'static str {
    match (kind, state) {
        (_, State::Success) => "success",
        (_, State::Pending) => "pending",
        (Kind::GitLab, State::Running) => "running",
        (_, State::Running) => "pending",
        (Kind::GitLab, State::Failure) => "failed",
        (_, State::Failure) => "failure",
        (Kind::GitLab, State::Left) => "canceled",
        (_, State::Left) => "error",
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

/// Asks for one change; only GitHub's and Gitea's webhooks leave it out.
pub fn change(kind: Kind, repository: &Repository, number: u64) -> Call {
    let what = if kind == Kind::GitLab { "merge_requests" } else { "pulls" };
    Call { path: format!("{}/{what}/{number}", repo(kind, repository)), body: None }
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

    fn a_status(state: State) -> Status {
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
        let call = status(Kind::GitHub, &github, &a_status(State::Failure));
        assert_eq!(call.path, format!("/repos/owner/app/statuses/{sha}"));
        let body = call.body.unwrap();
        assert_eq!((&body["state"], &body["context"]), (&json!("failure"), &json!(CONTEXT)));
        assert_eq!(body["target_url"], "http://kiln/merge-queues/app");
        let gitlab = Repository::new("group/sub/app").unwrap();
        let call = status(Kind::GitLab, &gitlab, &a_status(State::Running));
        assert_eq!(call.path, format!("/projects/group%2Fsub%2Fapp/statuses/{sha}"));
        let body = call.body.unwrap();
        assert_eq!((&body["state"], &body["name"]), (&json!("running"), &json!(CONTEXT)));
        assert_eq!(body["ref"], "feature/ü");
        let states = [State::Pending, State::Running, State::Success, State::Failure, State::Left];
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
