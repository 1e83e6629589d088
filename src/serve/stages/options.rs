//! What stages are started with: the file in which an operator lists programs and secrets.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use kiln_ci::stages::{ListedProgram, Programs, SecretList, SecretSource};
use kiln_deploy::toml::{Field, Fields, TableError, document};

/// Entries of one kind, and texts of one list.
const MAX_ENTRIES: usize = 200;
const MAX_TEXTS: usize = 100;
/// Seconds of a program.
const TIMEOUT: u64 = 3_600;
const MAX_TIMEOUT: u64 = 24 * 3_600;

#[derive(Clone, Debug, Default)]
pub struct StagesOptions {
    pub parts: StageParts,
    /// Whether commands may ask for the network.
    pub allow_network: bool,
}

/// What stages may name.
#[derive(Clone, Debug, Default)]
pub struct StageParts {
    pub programs: Programs,
}

/// Reads the file of parts; errors in words.
pub fn read_stage_parts(path: &Path) -> Result<StageParts, String> {
    let shown = path.display();
    let text = kiln_net::files::read_text(path).map_err(|error| format!("{shown}: {error}"))?;
    document(&text, parts).map_err(|error| format!("{shown}: {error}"))
}

fn parts(top: &Fields<'_>) -> Result<StageParts, TableError> {
    top.only(&["secrets", "programs"])?;
    let secrets = SecretList(each(top, "secrets", secret)?);
    let known = |fields: &Fields<'_>| program(fields, &secrets);
    let listed = each(top, "programs", known)?;
    Ok(StageParts { programs: Programs { listed, secrets } })
}

fn each<T>(
    top: &Fields<'_>,
    key: &str,
    read: impl Fn(&Fields<'_>) -> Result<T, TableError>,
) -> Result<BTreeMap<String, T>, TableError> {
    let Some(field) = top.get(key) else { return Ok(BTreeMap::new()) };
    let entries = field.fields()?.entries(MAX_ENTRIES)?;
    entries.into_iter().map(|(name, field)| Ok((name, read(&field.fields()?)?))).collect()
}

/// `file`, or `command`: a program that prints it.
fn secret(fields: &Fields<'_>) -> Result<SecretSource, TableError> {
    fields.only(&["file", "command"])?;
    match (fields.get("file"), fields.get("command")) {
        (Some(file), None) => Ok(SecretSource::File(file.absolute_path()?)),
        (None, Some(command)) => Ok(SecretSource::Command(argv(&command)?)),
        _ => Err(fields.error("a secret has either file or command".to_owned())),
    }
}

fn program(fields: &Fields<'_>, known: &SecretList) -> Result<ListedProgram, TableError> {
    fields.only(&[
        "run",
        "directory",
        "timeout_s",
        "env",
        "secrets",
        "arguments",
        "again",
        "pipelines",
    ])?;
    let texts = |key: &str| fields.get(key).map(|it| it.texts(MAX_TEXTS)).transpose();
    let flag = |key: &str| fields.get(key).map(|it| it.flag()).transpose();
    Ok(ListedProgram {
        argv: argv(&fields.need("run")?)?,
        directory: fields.get("directory").map(|it| it.absolute_path()).transpose()?,
        timeout: seconds(fields, "timeout_s", TIMEOUT, MAX_TIMEOUT)?,
        env: texts("env")?.unwrap_or_default(),
        secrets: secrets(fields, known)?,
        arguments: flag("arguments")?.unwrap_or(false),
        again: flag("again")?.unwrap_or(false),
        pipelines: texts("pipelines")?.unwrap_or_default(),
    })
}

pub fn seconds(
    fields: &Fields<'_>,
    key: &str,
    default: u64,
    most: u64,
) -> Result<Duration, TableError> {
    let given = fields.get(key).map(|it| it.number(1..=most)).transpose()?;
    Ok(Duration::from_secs(given.unwrap_or(default)))
}

/// A program with its arguments.
pub fn argv(field: &Field<'_>) -> Result<Vec<String>, TableError> {
    let argv = field.texts(MAX_TEXTS)?;
    let named = argv.first().is_some_and(|it| !it.is_empty());
    let whole = argv.iter().all(|it| !it.contains('\0'));
    let wrong = "expected a program with its arguments, as [\"/usr/bin/program\", \"argument\"]";
    (named && whole).then_some(argv).ok_or_else(|| field.error(wrong))
}

/// `secrets = { VARIABLE = "name" }`, each of which is listed.
pub fn secrets(
    fields: &Fields<'_>,
    known: &SecretList,
) -> Result<BTreeMap<String, String>, TableError> {
    let Some(field) = fields.get("secrets") else { return Ok(BTreeMap::new()) };
    let mut secrets = BTreeMap::new();
    for (variable, name) in field.fields()?.entries(MAX_ENTRIES)? {
        let is_name = |it: char| it.is_ascii_alphanumeric() || it == '_';
        let fits = variable.chars().all(is_name) && !variable.is_empty();
        let listed = name.text()?;
        if !fits || !known.0.contains_key(listed) {
            let message = match fits {
                true => "no such secret is listed under [secrets]",
                false => "what comes before it is no name of a variable",
            };
            return Err(name.error(message));
        }
        secrets.insert(variable, listed.to_owned());
    }
    Ok(secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<StageParts, String> {
        document(text, parts).map_err(|error| error.to_string())
    }

    #[test]
    fn programs_and_secrets_are_read_and_mistakes_are_named_with_their_place() {
        let parts = read(
            "[secrets.token]\nfile = \"/etc/kiln/token\"\n[secrets.other]\ncommand = [\"pass\", \"x\"]\n\
             [programs.deploy]\nrun = [\"/bin/deploy\"]\nsecrets = { TOKEN = \"token\" }\nagain = true\n",
        )
        .unwrap();
        let deploy = &parts.programs.listed["deploy"];
        assert_eq!((deploy.argv.as_slice(), deploy.again), (&["/bin/deploy".to_owned()][..], true));
        assert_eq!(deploy.secrets["TOKEN"], "token");
        assert_eq!(deploy.timeout, Duration::from_secs(3_600));
        for (text, said) in [
            ("[secrets.a]\n", "either file or command"),
            ("[secrets.a]\nfile = \"relative\"\n", "line 2"),
            ("[programs.a]\nrun = []\n", "a program with its arguments"),
            ("[programs.a]\nrun = [\"x\"]\nsecrets = { T = \"none\" }\n", "line 3"),
            ("[programs.a]\nrun = [\"x\"]\nsecret = 1\n", "did you mean secrets?"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
