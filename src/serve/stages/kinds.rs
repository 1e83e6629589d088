//! Kinds of environments, as an operator lists them.

use std::time::Duration;

use kiln_ci::ephemeral::{Commands, How, Kind, Kubernetes, Netns, is_quota};
use kiln_ci::stages::SecretList;
use kiln_net::toml::{Fields, TableError};

use super::fields::{MAX_TEXTS, argv, seconds, secrets};

/// The default of how many seconds bringing an environment up, or taking it down, may take.
const TIMEOUT: u64 = 600;
const MAX_TIMEOUT: u64 = 3_600;
/// The default of how many seconds an environment stays at most.
const LONGEST: u64 = 4 * 3_600;
const MAX_LONGEST: u64 = 7 * 24 * 3_600;
/// The default of how many environments of a kind there may be at a time.
const MOST: u64 = 10;
const MAX_MOST: u64 = 1_000;
const KEYS: [&str; 10] = [
    "kind",
    "timeout_s",
    "down_timeout_s",
    "longest_s",
    "most",
    "env",
    "secrets",
    "pipelines",
    "describe",
    "stands_for",
];

/// Reads one kind of environments: the fields that all have, and those that belong to its `kind`.
pub fn kind(fields: &Fields<'_>, known: &SecretList) -> Result<Kind, TableError> {
    let word = fields.get("kind").map(|it| it.text()).transpose()?.unwrap_or("commands");
    let (how, own): (How, &[&str]) = match word {
        "commands" => (How::Commands(commands(fields)?), &["up", "down", "check", "list"]),
        "kubernetes" => (
            How::Kubernetes(kubernetes(fields)?),
            &["kubectl", "context", "manifests", "quota", "address", "ready_s"],
        ),
        "netns" => (How::Netns(netns(fields)?), &["run", "check", "address"]),
        _ => {
            let field = fields.need("kind")?;
            return Err(field.error("expected \"commands\", \"kubernetes\" or \"netns\""));
        }
    };
    fields.only(&[&KEYS[..], own].concat())?;
    let texts = |key: &str| fields.get(key).map(|it| it.texts(MAX_TEXTS)).transpose();
    let most = fields.get("most").map(|it| it.number(1..=MAX_MOST)).transpose()?.unwrap_or(MOST);
    let stands_for = fields.get("stands_for").map(|it| it.text()).transpose()?;
    Ok(Kind {
        how,
        up_limit: seconds(fields, "timeout_s", TIMEOUT, MAX_TIMEOUT)?,
        down_limit: seconds(fields, "down_timeout_s", TIMEOUT, MAX_TIMEOUT)?,
        longest: longest(fields)?,
        most: usize::try_from(most).unwrap_or(usize::MAX),
        env: texts("env")?.unwrap_or_default(),
        secrets: secrets(fields, known)?,
        pipelines: texts("pipelines")?.unwrap_or_default(),
        describe: optional(fields, "describe")?,
        stands_for: stands_for.unwrap_or("prod").to_owned(),
    })
}

fn longest(fields: &Fields<'_>) -> Result<Duration, TableError> {
    seconds(fields, "longest_s", LONGEST, MAX_LONGEST)
}

/// Reads a program that may be left out: it is empty then.
fn optional(fields: &Fields<'_>, key: &str) -> Result<Vec<String>, TableError> {
    Ok(fields.get(key).map(|it| argv(&it)).transpose()?.unwrap_or_default())
}

fn commands(fields: &Fields<'_>) -> Result<Commands, TableError> {
    Ok(Commands {
        up: argv(&fields.need("up")?)?,
        down: argv(&fields.need("down")?)?,
        check: optional(fields, "check")?,
        list: optional(fields, "list")?,
    })
}

fn kubernetes(fields: &Fields<'_>) -> Result<Kubernetes, TableError> {
    let text = |key: &str| fields.get(key).map(|it| it.text().map(str::to_owned)).transpose();
    let mut quota = Vec::new();
    if let Some(field) = fields.get("quota") {
        for (name, most) in field.fields()?.entries(MAX_TEXTS)? {
            let quantity = most.text()?;
            if !is_quota(&name, quantity) {
                return Err(most.error(&format!(
                    "no quota of Kubernetes: {name} = {quantity:?} (as limits.memory = \"4Gi\")"
                )));
            }
            quota.push((name, quantity.to_owned()));
        }
    }
    Ok(Kubernetes {
        kubectl: text("kubectl")?.unwrap_or_else(|| "kubectl".to_owned()),
        context: text("context")?,
        manifests: fields.need("manifests")?.absolute_path()?,
        quota,
        address: fields.need("address")?.text()?.to_owned(),
        ready_s: seconds(fields, "ready_s", TIMEOUT / 2, MAX_TIMEOUT)?.as_secs(),
    })
}

fn netns(fields: &Fields<'_>) -> Result<Netns, TableError> {
    Ok(Netns {
        run: argv(&fields.need("run")?)?,
        check: optional(fields, "check")?,
        address: fields.need("address")?.text()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use kiln_net::toml::document;

    use super::*;

    fn read(text: &str) -> Result<Kind, String> {
        document(text, |top| kind(top, &SecretList::default())).map_err(|error| error.to_string())
    }

    #[test]
    fn each_kind_has_keys_of_its_own() {
        let it = read("up = [\"up\"]\ndown = [\"down\", \"x\"]\nmost = 3\n").unwrap();
        assert_eq!(
            (it.most, it.up_limit, it.stands_for.as_str()),
            (3, Duration::from_secs(600), "prod")
        );
        let How::Commands(commands) = it.how else { panic!("{it:?}") };
        assert_eq!(commands.down, ["down", "x"]);
        let it = read(
            "kind = \"kubernetes\"\nmanifests = \"/etc/kiln/web\"\naddress = \"http://web.{name}.svc\"\n\
             quota = { pods = \"20\" }\n",
        )
        .unwrap();
        let How::Kubernetes(cluster) = it.how else { panic!("{it:?}") };
        assert_eq!(cluster.quota, [("pods".to_owned(), "20".to_owned())]);
        let it =
            read("kind = \"netns\"\nrun = [\"start\"]\naddress = \"http://127.0.0.1\"\n").unwrap();
        assert!(matches!(it.how, How::Netns(_)));
        for (text, said) in [
            ("up = [\"up\"]\n", "down is missing"),
            ("kind = \"netns\"\nrun = [\"x\"]\naddress = \"a\"\nup = [\"x\"]\n", "unknown key"),
            (
                "kind = \"kubernetes\"\nmanifests = \"/m\"\naddress = \"a\"\nquota = { pods = \"4 GB\" }\n",
                "line 4",
            ),
            ("kind = \"docker\"\n", "expected \"commands\""),
            ("up = [\"up\"]\ndown = [\"x\"]\nlongest_s = 9999999\n", "line 3"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
