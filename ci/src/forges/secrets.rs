//! Secrets and tokens in files. They are read again when these change, and never shown.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kiln_net::files;
use kiln_net::reload::Reload;

use super::forge::{Forge, ForgeName, Kind};

/// Secrets that count at the same time: while one takes the place of another.
const MAX_SECRETS: usize = 8;
/// Characters; fewer can be guessed from one delivery.
const SHORTEST: usize = 16;
/// Bytes of a signing token.
const SHORTEST_KEY: usize = 24;
/// Bytes of a token for an API.
const LONGEST_TOKEN: usize = 4_096;
/// What GitLab's signing tokens begin with.
const SIGNING: &str = "whsec_";

/// What a delivery is proven by.
pub enum Secret {
    /// A text: the key of an HMAC, or GitLab's secret token.
    Text(String),
    /// The key of GitLab's signatures.
    Signing(Vec<u8>),
}

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("{path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{0}: it holds no secret")]
    Empty(String),
    #[error("{0}: more than {MAX_SECRETS} lines; each is a secret that counts")]
    Many(String),
    #[error(
        "{0}: a secret of fewer than {SHORTEST} characters can be guessed: make one with `openssl rand -hex 32`"
    )]
    Short(String),
    #[error("{0}: what begins with {SIGNING} is a signing token, and goes on in base64")]
    Signing(String),
    #[error("{0}: a token is one line of printable characters")]
    Token(String),
}

/// The secrets of a webhook: one a line.
fn secrets(kind: Kind, path: &Path) -> Result<Vec<Secret>, SecretError> {
    let shown = || path.display().to_string();
    let text = read(path)?;
    let lines: Vec<_> = text.lines().map(str::trim).filter(|it| !it.is_empty()).collect();
    match lines.len() {
        0 => return Err(SecretError::Empty(shown())),
        it if it > MAX_SECRETS => return Err(SecretError::Many(shown())),
        _ => {}
    }
    lines.into_iter().map(|line| secret(kind, line, &shown)).collect()
}

fn secret(kind: Kind, line: &str, shown: &dyn Fn() -> String) -> Result<Secret, SecretError> {
    if let Some(rest) = line.strip_prefix(SIGNING).filter(|_| kind == Kind::GitLab) {
        let key = STANDARD.decode(rest).ok().filter(|it| it.len() >= SHORTEST_KEY);
        return key.map(Secret::Signing).ok_or_else(|| SecretError::Signing(shown()));
    }
    match line.len() >= SHORTEST {
        true => Ok(Secret::Text(line.to_owned())),
        false => Err(SecretError::Short(shown())),
    }
}

fn token(path: &Path) -> Result<String, SecretError> {
    let text = read(path)?;
    let token = text.trim();
    let fine = !token.is_empty()
        && token.len() <= LONGEST_TOKEN
        && token.bytes().all(|it| it.is_ascii_graphic());
    match fine {
        true => Ok(token.to_owned()),
        false => Err(SecretError::Token(path.display().to_string())),
    }
}

fn read(path: &Path) -> Result<String, SecretError> {
    let failed = |source| SecretError::Read { path: path.display().to_string(), source };
    files::read_text(path).map_err(failed)
}

/// A token for an API.
#[derive(Clone)]
pub struct Token(pub String);

/// What is in force of one forge.
#[derive(Clone, Default)]
struct Current {
    secrets: Arc<Vec<Secret>>,
    token: Option<Token>,
}

/// The secrets and tokens of all forges.
pub struct Secrets {
    files: Vec<(ForgeName, Kind, PathBuf, Option<PathBuf>)>,
    /// The secrets of forges, in the order of `files`.
    current: RwLock<Vec<Current>>,
}

impl Secrets {
    /// Reads the files of all forges. Errors: one of them cannot be used.
    pub fn load(forges: &[Forge]) -> Result<Self, SecretError> {
        let files =
            |it: &Forge| (it.name.clone(), it.kind, it.secret_file.clone(), it.token_file.clone());
        let read = Self { files: forges.iter().map(files).collect(), current: RwLock::default() };
        read.replace()?;
        Ok(read)
    }

    fn replace(&self) -> Result<(), SecretError> {
        let mut all = Vec::new();
        for (_, kind, secret, of_api) in &self.files {
            let secrets = Arc::new(secrets(*kind, secret)?);
            let token = of_api.as_deref().map(token).transpose()?.map(Token);
            all.push(Current { secrets, token });
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = all;
        Ok(())
    }

    fn of(&self, name: &ForgeName) -> Current {
        let at = self.files.iter().position(|(it, ..)| it == name);
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        at.and_then(|at| current.get(at).cloned()).unwrap_or_default()
    }

    /// What proves deliveries of a forge now.
    pub fn secrets(&self, name: &ForgeName) -> Arc<Vec<Secret>> {
        self.of(name).secrets
    }

    pub fn token(&self, name: &ForgeName) -> Option<Token> {
        self.of(name).token
    }
}

impl Reload for Secrets {
    fn what(&self) -> &'static str {
        "secrets and tokens of forges"
    }

    fn label(&self) -> &'static str {
        "forges"
    }

    fn files(&self) -> Vec<PathBuf> {
        let of = |(_, _, secret, token): &(_, _, PathBuf, Option<PathBuf>)| {
            [Some(secret.clone()), token.clone()]
        };
        self.files.iter().flat_map(of).flatten().collect()
    }

    fn reload(&self) -> Result<(), String> {
        self.replace().map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_secrets_line_by_line_and_none_that_can_be_guessed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let read = |kind, text: &str| {
            std::fs::write(&path, text).unwrap();
            secrets(kind, &path).map_err(|error| error.to_string())
        };
        let two = read(Kind::GitHub, "0123456789abcdef\r\n\n fedcba9876543210 \n").unwrap();
        let texts: Vec<_> = two
            .iter()
            .map(|it| match it {
                Secret::Text(text) => text.as_str(),
                Secret::Signing(_) => "",
            })
            .collect();
        assert_eq!(texts, ["0123456789abcdef", "fedcba9876543210"]);
        let signing = format!("whsec_{}", STANDARD.encode([7; 32]));
        let read_signing = read(Kind::GitLab, &signing).unwrap();
        assert!(matches!(&read_signing[..], [Secret::Signing(key)] if *key == [7; 32]));
        assert!(matches!(&read(Kind::GitHub, &signing).unwrap()[..], [Secret::Text(_)]));
        let many = "0123456789abcdef\n".repeat(9);
        for (text, words) in [
            ("", "no secret"),
            ("short", "guessed"),
            ("whsec_!", "base64"),
            (many.as_str(), "more than 8"),
        ] {
            let error = read(Kind::GitLab, text).err().unwrap();
            assert!(error.contains(words) && !error.contains("0123"), "{error}");
        }
    }
}
