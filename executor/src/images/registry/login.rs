//! Credentials from a docker `config.json`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kiln_net::http::header::HeaderValue;
use serde::Deserialize;

use crate::images::problem::Problem;
use crate::images::reference::DOCKER_HUB;

/// The key under which `docker login` writes the credentials for Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    user: String,
    password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({})", self.user)
    }
}

impl Login {
    pub fn basic(&self) -> Result<HeaderValue, Problem> {
        let encoded = STANDARD.encode(format!("{}:{}", self.user, self.password));
        let mut value = HeaderValue::from_str(&format!("Basic {encoded}"))
            .map_err(|_| Problem::Local("the credentials fit no header".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireFile {
    #[serde(default)]
    auths: BTreeMap<String, WireAuth>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct WireAuth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

/// The credentials in `file` for `host`; `None`: it has none. The file is read for every pull:
/// credentials that are renewed in place count at once.
pub fn find(file: &Path, host: &str) -> Result<Option<Login>, Problem> {
    let wire = read(file)?;
    let found = wire.auths.iter().find(|(key, _)| is_for(key, host));
    match found {
        Some((_, auth)) => login(auth).map(Some).ok_or_else(|| {
            Problem::Local(format!(
                "images.auth_file {} has an entry for {host} without user and password (auth, or \
                 username and password)",
                file.display()
            ))
        }),
        None if wire.cred_helpers.keys().any(|key| is_for(key, host)) => {
            Err(Problem::Local(format!(
                "images.auth_file {} names a credential helper for {host}, which is not \
                 supported: write user and password under auths",
                file.display()
            )))
        }
        None => Ok(None),
    }
}

/// Fails where `file` cannot be read as a docker `config.json`.
pub fn check(file: &Path) -> Result<(), Problem> {
    read(file).map(drop)
}

fn read(file: &Path) -> Result<WireFile, Problem> {
    let text = kiln_net::files::read(file).map_err(|error| {
        Problem::Local(format!("cannot read images.auth_file {}: {error}", file.display()))
    })?;
    // The parser's message could show what is in the file.
    serde_json::from_slice(&text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let file = file.display();
        Problem::Local(format!(
            "images.auth_file {file} is not a docker config.json: line {line}, column {column}"
        ))
    })
}

fn is_for(key: &str, host: &str) -> bool {
    if host == DOCKER_HUB && key == DOCKER_HUB_KEY {
        return true;
    }
    let name = key.split_once("://").map_or(key, |(_, rest)| rest);
    name.split('/').next().is_some_and(|name| name.eq_ignore_ascii_case(host))
}

fn login(auth: &WireAuth) -> Option<Login> {
    if let (Some(user), Some(password)) = (&auth.username, &auth.password) {
        return Some(Login { user: user.clone(), password: password.clone() });
    }
    let decoded = STANDARD.decode(auth.auth.as_deref()?.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Login { user: user.to_owned(), password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_in(text: &str, host: &str) -> Result<Option<Login>, Problem> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        std::fs::write(&file, text).unwrap();
        find(&file, host)
    }

    #[test]
    fn entries_are_found_as_docker_writes_them() {
        let text = r#"{"auths": {"registry.example:5000": {"auth": "dXNlcjpwYTpzcw=="},
            "https://index.docker.io/v1/": {"username": "hub", "password": "x"}}}"#;
        let login = find_in(text, "registry.example:5000").unwrap().unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("user", "pa:ss"));
        assert_eq!(login.basic().unwrap(), "Basic dXNlcjpwYTpzcw==");
        assert_eq!(find_in(text, "docker.io").unwrap().unwrap().user, "hub");
        assert_eq!(find_in(text, "registry.example").unwrap(), None);
        assert_eq!(format!("{login:?}"), "Login(user)", "no password in logs");
    }

    #[test]
    fn what_cannot_be_used_says_so_without_saying_what_is_in_it() {
        for (text, said) in [
            ("{\"auths\": secret", "config.json"),
            (r#"{"auths": {"r.example": {"auth": "secret!"}}}"#, "without user"),
            (r#"{"auths": {"r.example": {}}}"#, "without user"),
            (r#"{"credHelpers": {"r.example": "secret"}}"#, "credential helper"),
        ] {
            let error = find_in(text, "r.example").unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("secret"), "{error}");
        }
        let error = find(Path::new("/nowhere/config.json"), "r.example").unwrap_err();
        assert!(error.to_string().contains("/nowhere/config.json"), "{error}");
    }
}
