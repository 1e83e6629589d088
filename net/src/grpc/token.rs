//! Bearer tokens: from the environment or a file, never from the command line, and never shown.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::causes::chain;
/// A file is read again after this time: short-lived tokens are renewed in place.
const FILE_LIFETIME: Duration = Duration::from_secs(10);
/// Longest token in bytes; what headers can carry.
const MAX_TOKEN: usize = 16 << 10;

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("cannot read the token in {path}: {error}")]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("the token in {origin} is empty")]
    Empty { origin: String },
    #[error("the token in {origin} is not one line of visible ASCII of at most {MAX_TOKEN} bytes")]
    Malformed { origin: String },
}

/// A secret that says who calls. `Debug` shows where it comes from only.
#[derive(Clone)]
pub struct Token(Arc<Source>);

struct Source {
    /// `None`: the token does not change.
    file: Option<PathBuf>,
    current: Mutex<(Instant, Arc<str>)>,
}

impl Token {
    /// `origin`: where `text` comes from, for errors.
    pub fn new(text: &str, origin: &str) -> Result<Self, TokenError> {
        Ok(Self::from(None, check(text, origin)?))
    }

    /// Read now, and again while it is used.
    pub fn from_file(path: &Path) -> Result<Self, TokenError> {
        let token = read(path)?;
        Ok(Self::from(Some(path.to_owned()), token))
    }

    fn from(file: Option<PathBuf>, token: Arc<str>) -> Self {
        Self(Arc::new(Source { file, current: Mutex::new((Instant::now(), token)) }))
    }

    /// The value of an `authorization` header. Mark it as sensitive where it is kept.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.0.current())
    }
}

impl Source {
    fn current(&self) -> Arc<str> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = &self.file
            && current.0.elapsed() >= FILE_LIFETIME
        {
            current.0 = Instant::now();
            match read(path) {
                Ok(token) => current.1 = token,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "the earlier token is used on")
                }
            }
        }
        current.1.clone()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.file {
            Some(path) => write!(f, "Token(from {})", path.display()),
            None => f.write_str("Token(..)"),
        }
    }
}

fn read(path: &Path) -> Result<Arc<str>, TokenError> {
    let text = crate::files::read_text(path)
        .map_err(|error| TokenError::Unreadable { path: path.to_owned(), error })?;
    check(&text, &path.display().to_string())
}

fn check(text: &str, origin: &str) -> Result<Arc<str>, TokenError> {
    let token = text.trim();
    if token.is_empty() {
        return Err(TokenError::Empty { origin: origin.to_owned() });
    }
    if token.len() > MAX_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::Malformed { origin: origin.to_owned() });
    }
    Ok(token.into())
}

/// Puts the token, if there is one, into every request.
#[derive(Clone)]
pub struct Authorization(pub Option<Token>);

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let mut value: MetadataValue<Ascii> = token
                .authorization()
                .parse()
                .map_err(|_| Status::internal("the token cannot be sent in a header"))?;
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_shown() {
        let token = Token::new("  very-secret\n", "KILN_TOKEN").unwrap();
        assert_eq!(token.authorization(), "Bearer very-secret");
        let request = Authorization(Some(token.clone())).call(Request::new(())).unwrap();
        for shown in [format!("{token:?}"), format!("{request:?}")] {
            assert!(!shown.contains("very-secret"), "{shown}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_shown() {
        for bad in ["", " \n", "two words", "two\nlines", "umläut", &"x".repeat(MAX_TOKEN + 1)] {
            let Err(error) = Token::new(bad, "KILN_TOKEN") else { panic!("{bad:?} was taken") };
            let error = error.to_string();
            assert!(error.contains("KILN_TOKEN"), "{error}");
            assert!(bad.trim().is_empty() || !error.contains(bad), "{error}");
        }
        let missing = Token::from_file(Path::new("/nowhere/token")).err().unwrap().to_string();
        assert!(missing.contains("/nowhere/token"), "{missing}");
    }
}
