//! The file of forges.

use std::path::{Path, PathBuf};

use kiln_ci::forges::{Binding, Forge, ForgeName, Kind, MAX_PEOPLE, Repository, Rules};
use kiln_ci::queue::serving::LaneName;
use kiln_ci::queue::{Branch, USUAL_PRIORITY};
use kiln_net::toml::{Field, Fields, TableError};
use kiln_net::{Url, urls};

use crate::serve::tables::read_file;

/// Forges, and repositories of one.
const MAX_FORGES: usize = 20;
const MAX_REPOSITORIES: usize = 200;
/// The label that asks for a change to be queued, where the file names no other.
const LABEL: &str = "queue";
const MAX_PRIORITY: u64 = 9;

const KEYS: [&str; 12] = [
    "name",
    "kind",
    "url",
    "secret_file",
    "token_file",
    "ca_file",
    "label",
    "people",
    "priority",
    "comment",
    "pushes",
    "repository",
];

#[derive(Debug, Clone, Default)]
pub struct ForgeOptions {
    pub forges: Vec<Forge>,
}

/// Reads the file of forges; errors in words. Files that it names are meant from where it is.
pub fn read_forges(path: &Path) -> Result<Vec<Forge>, String> {
    let directory = path.parent().unwrap_or(Path::new("."));
    read_file(path, |top| forges(top, directory))
}

fn forges(top: &Fields<'_>, directory: &Path) -> Result<Vec<Forge>, TableError> {
    top.only(&["forge"])?;
    let mut forges: Vec<Forge> = Vec::new();
    for field in top.need("forge")?.list(MAX_FORGES)? {
        let forge = forge(&field.fields()?, directory)?;
        if forges.iter().any(|it| it.name == forge.name) {
            return Err(field.error(&format!("there are two forges called {}", forge.name)));
        }
        forges.push(forge);
    }
    Ok(forges)
}

fn forge(fields: &Fields<'_>, directory: &Path) -> Result<Forge, TableError> {
    fields.only(&KEYS)?;
    let kind = kind(&fields.need("kind")?)?;
    let file = |field: Field<'_>| Ok::<PathBuf, TableError>(directory.join(field.text()?));
    let token_file = fields.get("token_file").map(file).transpose()?;
    let api = api(fields, kind, token_file.is_some())?;
    let comment = fields.get("comment").map(|it| it.flag()).transpose()?.unwrap_or(false);
    if let Some(field) = fields.get("comment").filter(|_| comment && token_file.is_none()) {
        return Err(field.error("comments need a token_file"));
    }
    Ok(Forge {
        name: fields.need("name")?.parsed(ForgeName::new)?,
        kind,
        api,
        rules: Rules { roles: token_file.is_some(), ..rules(fields)? },
        pushes: pushes(fields)?,
        secret_file: file(fields.need("secret_file")?)?,
        token_file,
        ca_file: fields.get("ca_file").map(file).transpose()?,
        comment,
    })
}

fn kind(field: &Field<'_>) -> Result<Kind, TableError> {
    let text = field.text()?;
    let found = Kind::ALL.into_iter().find(|it| it.word() == text);
    let all = Kind::ALL.map(Kind::word).join(", ");
    found.ok_or_else(|| field.error(&format!("expected one of {all}")))
}

/// The root of the API of a forge whose pages are at `url`.
fn api(fields: &Fields<'_>, kind: Kind, has_token: bool) -> Result<Url, TableError> {
    let Some(field) = fields.get("url") else {
        let known = match kind {
            Kind::GitHub => "https://api.github.com",
            Kind::GitLab => "https://gitlab.com/api/v4",
            Kind::Gitea => return Err(fields.error("url is missing".to_owned())),
        };
        return urls::parse(known).map_err(|error| fields.error(error.to_string()));
    };
    let url = field.parsed(urls::parse)?;
    if url.query().is_some() {
        return Err(field.error("expected the address of the forge, without a query"));
    }
    if has_token && url.scheme() != "https" && !urls::is_loopback(&url) {
        return Err(field.error("a token is sent over https:// alone, or to this machine"));
    }
    let root = url.as_str().trim_end_matches('/');
    let api = match kind {
        Kind::GitHub if url.host_str() == Some("github.com") => "https://api.github.com".to_owned(),
        Kind::GitHub => format!("{root}/api/v3"),
        Kind::GitLab => format!("{root}/api/v4"),
        Kind::Gitea => format!("{root}/api/v1"),
    };
    urls::parse(&api).map_err(|error| field.error(&error.to_string()))
}

fn rules(fields: &Fields<'_>) -> Result<Rules, TableError> {
    let label = fields.get("label").map(|it| it.text()).transpose()?.unwrap_or(LABEL);
    let people = fields.get("people").map(|it| it.texts(MAX_PEOPLE)).transpose()?;
    let priority = fields.get("priority").map(|it| it.number(0..=MAX_PRIORITY)).transpose()?;
    let mut bindings: Vec<Binding> = Vec::new();
    let repositories = match fields.get("repository") {
        // A forge may be there for its pushes alone.
        None if pushes(fields)? => Vec::new(),
        _ => fields.need("repository")?.list(MAX_REPOSITORIES)?,
    };
    for field in repositories {
        let it = binding(&field.fields()?)?;
        let same = |other: &Binding| {
            other.repository.is(it.repository.as_str()) && other.branch == it.branch
        };
        if bindings.iter().any(same) {
            let (repository, branch) = (&it.repository, &it.branch);
            return Err(field.error(&format!("two queues land on {branch} of {repository}")));
        }
        bindings.push(it);
    }
    Ok(Rules {
        bindings,
        label: (!label.is_empty()).then(|| label.to_owned()),
        people: people.unwrap_or_default(),
        roles: false,
        priority: priority.and_then(|it| u8::try_from(it).ok()).unwrap_or(USUAL_PRIORITY),
    })
}

fn pushes(fields: &Fields<'_>) -> Result<bool, TableError> {
    Ok(fields.get("pushes").map(|it| it.flag()).transpose()?.unwrap_or(false))
}

fn binding(fields: &Fields<'_>) -> Result<Binding, TableError> {
    fields.only(&["path", "branch", "queue"])?;
    Ok(Binding {
        repository: fields.need("path")?.parsed(Repository::new)?,
        branch: fields.need("branch")?.parsed(Branch::new)?,
        queue: fields.need("queue")?.parsed(LaneName::new)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORGE: &str = r#"
[[forge]]
name = "hub"
kind = "github"
secret_file = "hub.secret"
token_file = "/etc/kiln/hub.token"

[[forge.repository]]
path = "owner/app"
branch = "main"
queue = "app"
"#;

    fn read(text: &str) -> Result<Vec<Forge>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("forges.toml");
        std::fs::write(&path, text).unwrap();
        let read = read_forges(&path);
        if let Ok(forges) = &read {
            let relative = directory.path().join("hub.secret");
            assert!(forges.iter().all(|it| it.secret_file == relative));
        }
        read
    }

    #[test]
    fn a_forge_is_where_it_says_or_where_all_know_it_is() {
        let forges = read(FORGE).unwrap();
        let [forge] = &forges[..] else { panic!("{forges:?}") };
        assert_eq!(forge.api.as_str(), "https://api.github.com/");
        assert_eq!(forge.token_file.as_deref(), Some(Path::new("/etc/kiln/hub.token")));
        assert_eq!((forge.rules.label.as_deref(), forge.comment), (Some("queue"), false));
        for (kind, url, api) in [
            ("github", "https://github.com/", "https://api.github.com/"),
            ("github", "https://git.example", "https://git.example/api/v3"),
            ("gitlab", "https://git.example/gitlab/", "https://git.example/gitlab/api/v4"),
            ("gitea", "http://localhost:3000", "http://localhost:3000/api/v1"),
        ] {
            let text = FORGE.replace("\"github\"", &format!("\"{kind}\"\nurl = \"{url}\""));
            assert_eq!(read(&text).unwrap()[0].api.as_str(), api);
        }
    }

    #[test]
    fn a_forge_may_be_there_for_its_pushes_alone() {
        let (alone, _) = FORGE.split_once("\n[[forge.repository]]").unwrap();
        assert!(read(alone).unwrap_err().contains("repository is missing"));
        let forges = read(&format!("{alone}pushes = true\n")).unwrap();
        assert!(forges[0].pushes && forges[0].rules.bindings.is_empty());
        assert!(!read(FORGE).unwrap()[0].pushes);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let with = |from: &str, to: &str| read(&FORGE.replace(from, to)).unwrap_err();
        let name = "name = \"hub\"";
        for (from, to, words) in [
            (name, "name = \"Hub\"", "line 3, column 8: forge[0].name: \"Hub\" is no name"),
            (name, "name = \"hub\"\ntoken = 1", "did you mean token_file?"),
            ("\"github\"", "\"bitbucket\"", "one of github, gitlab, gitea"),
            ("\"github\"", "\"gitea\"", "url is missing"),
            ("\"github\"", "\"github\"\nurl = \"http://git.example\"", "over https:// alone"),
            ("\"github\"", "\"github\"\nurl = \"git.example\"", "no URL"),
            ("secret_file = \"hub.secret\"", "", "secret_file is missing"),
            ("\"owner/app\"", "\"app\"", "is no repository"),
            ("\"main\"", "\"--x\"", "is no name of a branch"),
            ("queue = \"app\"", "queue = \"a/b\"", "is no name of a queue"),
            ("[[forge.repository]]", "[[forge.repo]]", "unknown key"),
        ] {
            let error = with(from, to);
            assert!(error.contains(words), "{words}: {error}");
        }
        let twice = format!("{FORGE}{FORGE}");
        assert!(read(&twice).unwrap_err().contains("two forges called hub"));
        let repository = FORGE.split("\n\n").last().unwrap();
        let twice = format!("{FORGE}\n{repository}");
        assert!(read(&twice).unwrap_err().contains("two queues land on main of owner/app"));
    }
}
