//! Secrets that an operator lists: each is in a file, or is what a program prints. They are read when they are needed and
//! kept nowhere.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use kiln_net::files;
use kiln_net::process::{self, Keep, ProcessError};

use super::mask::{Forms, MAX_SECRET, MIN_SECRET};

/// How long a program may take that prints a secret.
const LIMIT: Duration = Duration::from_secs(30);
/// Secrets that are read for one stage.
pub const MAX_SECRETS: usize = 32;

/// Where the value of a secret is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    File(PathBuf),
    /// A program with its arguments: what it prints.
    Command(Vec<String>),
}

/// The secrets that an operator lists, by the names that he gave them.
#[derive(Debug, Clone, Default)]
pub struct SecretList(pub BTreeMap<String, SecretSource>);

/// A secret that was read. It is never part of a message.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("no secret {0:?} is listed")]
    Unknown(String),
    #[error("more than {MAX_SECRETS} secrets, or too long ones")]
    Many,
    #[error("the file of secret {name} cannot be read")]
    File {
        name: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the program of secret {name} did not run")]
    Program {
        name: String,
        #[source]
        source: ProcessError,
    },
    /// The program ended with an error. What it printed is left out, since that may be a part of the secret.
    #[error("the program of secret {name} ended with {status}")]
    Ended { name: String, status: std::process::ExitStatus },
    #[error("secret {0} is no text, or has a NUL byte in it")]
    NoText(String),
    #[error(
        "secret {name} has {length} bytes: only one of {MIN_SECRET} to {MAX_SECRET} can be told from what else is printed"
    )]
    Length { name: String, length: usize },
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl Secret {
    /// Line breaks at its end are no part of it: files and programs end with one.
    fn new(name: &str, bytes: Vec<u8>) -> Result<Self, SecretError> {
        let text = String::from_utf8(bytes).map_err(|_| SecretError::NoText(name.to_owned()))?;
        let text = text.trim_end_matches(['\n', '\r']).to_owned();
        if text.contains('\0') {
            return Err(SecretError::NoText(name.to_owned()));
        }
        match text.len() {
            MIN_SECRET..=MAX_SECRET => Ok(Self(text)),
            length => Err(SecretError::Length { name: name.to_owned(), length }),
        }
    }

    /// The value of the secret, for the one place where it is handed over.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl SecretList {
    /// Reads secrets by their names, each with what it is called where it is handed over. Errors never hold any of them.
    pub async fn read(
        &self,
        wanted: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, Secret>, SecretError> {
        if wanted.len() > MAX_SECRETS {
            return Err(SecretError::Many);
        }
        let mut read = BTreeMap::new();
        for (handed_as, name) in wanted {
            read.insert(handed_as.clone(), self.one(name).await?);
        }
        Ok(read)
    }

    async fn one(&self, name: &str) -> Result<Secret, SecretError> {
        let unknown = || SecretError::Unknown(name.chars().take(80).collect());
        match self.0.get(name).ok_or_else(unknown)? {
            SecretSource::File(path) => {
                let path = path.clone();
                let reading = tokio::task::spawn_blocking(move || files::read(&path)).await;
                let bytes = reading.unwrap_or_else(|gone| Err(std::io::Error::other(gone)));
                let failed = |source| SecretError::File { name: name.to_owned(), source };
                Secret::new(name, bytes.map_err(failed)?)
            }
            SecretSource::Command(argv) => Secret::new(name, printed(name, argv).await?),
        }
    }
}

async fn printed(name: &str, argv: &[String]) -> Result<Vec<u8>, SecretError> {
    let command = process::bare(argv, &[]);
    let ran = process::run(command, Some(b""), LIMIT, Keep::All(MAX_SECRET + 2)).await;
    let ran = ran.map_err(|source| SecretError::Program {
        name: name.to_owned(),
        // What a program printed may be a part of the secret.
        source: match source {
            ProcessError::Slow { program, limit, .. } => {
                ProcessError::Slow { program, limit, printed: Vec::new() }
            }
            other => other,
        },
    })?;
    match ran.status.success() {
        true => Ok(ran.stdout),
        false => Err(SecretError::Ended { name: name.to_owned(), status: ran.status }),
    }
}

/// What is not to be seen of these.
pub fn forms(secrets: &BTreeMap<String, Secret>) -> Result<Forms, SecretError> {
    let bytes = secrets.values().map(|it| it.reveal().as_bytes());
    Forms::of(bytes).ok_or(SecretError::Many)
}

#[cfg(test)]
mod tests {
    use kiln_net::causes::chain;

    use super::*;

    fn list(entries: &[(&str, SecretSource)]) -> SecretList {
        SecretList(entries.iter().map(|(name, it)| ((*name).to_owned(), it.clone())).collect())
    }

    fn wanted(name: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("TOKEN".to_owned(), name.to_owned())])
    }

    fn shell(script: &str) -> SecretSource {
        SecretSource::Command(["sh", "-c", script].map(str::to_owned).to_vec())
    }

    #[tokio::test]
    async fn a_secret_is_in_a_file_or_is_what_a_program_prints() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a token");
        std::fs::write(&file, "0123456789\n").unwrap();
        let list = list(&[
            ("file", SecretSource::File(file)),
            ("program", shell("printf 'abc def ghi\\n'")),
        ]);
        for (name, expected) in [("file", "0123456789"), ("program", "abc def ghi")] {
            let read = list.read(&wanted(name)).await.unwrap();
            assert_eq!(read["TOKEN"].reveal(), expected);
            assert!(!format!("{read:?}").contains(expected));
        }
    }

    #[tokio::test]
    async fn what_cannot_be_hidden_is_no_secret_and_errors_hold_none() {
        let list = list(&[
            ("short", shell("echo 1234567")),
            ("long", shell("head -c 70000 /dev/zero | tr '\\0' x")),
            ("odd", shell("printf 'a\\000bcdefghij'")),
            ("fails", shell("echo part-of-a-secret; echo part-of-a-secret >&2; exit 3")),
            ("gone", SecretSource::File("/nowhere/at/all".into())),
        ]);
        for (name, said) in [
            ("short", "has 7 bytes"),
            ("long", "printed more than"),
            ("odd", "NUL"),
            ("fails", "exit status: 3"),
            ("gone", "cannot be read"),
            ("other", "no secret \"other\""),
        ] {
            let error = list.read(&wanted(name)).await.unwrap_err();
            let text = format!("{} {error:?}", chain(&error));
            assert!(text.contains(said), "{name}: {text}");
            assert!(!text.contains("part-of-a-secret"), "{text}");
        }
    }
}
