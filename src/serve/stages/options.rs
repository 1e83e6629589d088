//! Options of stages, read from the file in which an operator lists programs and secrets.

use std::collections::BTreeMap;
use std::path::Path;

use kiln_ci::ephemeral::Kind;
use kiln_ci::stages::{ListedProgram, Programs, SecretList, SecretSource};
use kiln_net::toml::{Fields, TableError};

use super::fields::{MAX_ENTRIES, MAX_TEXTS, argv, seconds, secrets};
use super::kinds::kind;
use crate::serve::tables::{each, read_file};
use crate::serve::webhook::WebhookOptions;

/// Characters of the name of a kind: names of environments have it in them.
const MAX_KIND: usize = 20;
/// The default of how many seconds a program may take.
const TIMEOUT: u64 = 3_600;
const MAX_TIMEOUT: u64 = 24 * 3_600;

#[derive(Clone, Debug, Default)]
pub struct StagesOptions {
    pub parts: StageParts,
    /// Whether commands may ask for the network.
    pub allow_network: bool,
    /// Who is told of environments that cannot be taken down.
    pub webhook: Option<WebhookOptions>,
}

/// Programs and kinds of environments that stages may name.
#[derive(Clone, Debug, Default)]
pub struct StageParts {
    pub programs: Programs,
    /// Kinds of environments by their names.
    pub previews: BTreeMap<String, Kind>,
}

/// Reads the file of parts; errors in words.
pub fn read_stage_parts(path: &Path) -> Result<StageParts, String> {
    read_file(path, parts)
}

fn parts(top: &Fields<'_>) -> Result<StageParts, TableError> {
    top.only(&["secrets", "programs", "previews"])?;
    let secrets = SecretList(each(top, "secrets", MAX_ENTRIES, secret)?);
    let listed = each(top, "programs", MAX_ENTRIES, |fields| program(fields, &secrets))?;
    let previews = each(top, "previews", MAX_ENTRIES, |fields| kind(fields, &secrets))?;
    check_names(top)?;
    Ok(StageParts { programs: Programs { listed, secrets }, previews })
}

/// Names of kinds are parts of the names of environments.
fn check_names(top: &Fields<'_>) -> Result<(), TableError> {
    let Some(field) = top.get("previews") else { return Ok(()) };
    let fits = |name: &str| name.len() <= MAX_KIND && kiln_ci::ephemeral::is_name(name);
    let entries = field.fields()?.entries(MAX_ENTRIES)?;
    match entries.iter().find(|(name, _)| !fits(name)) {
        Some((_, field)) => Err(field.error("a kind is called by at most 20 of a-z, 0-9 and -")),
        None => Ok(()),
    }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kiln_net::toml::document;

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
