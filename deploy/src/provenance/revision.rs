//! The commit that was built, and its branch. A server sees files and not repositories: this is what others say, and
//! each of it is named with who says it.

use crate::resource::{DigestSet, ResourceDescriptor};

/// The name of a commit among digests.
const GIT_COMMIT: &str = "gitCommit";
/// Bytes of the name of a branch, and of a URL.
const MAX_BRANCH: usize = 255;
const MAX_URI: usize = 1_000;
/// Digits of a commit that was cut short, so that it can be compared.
const MIN_COMMIT: usize = 7;
/// What stands behind a source where its branch is named with it.
const REF: &str = "?ref=";
const HEADS: &str = "refs/heads/";

/// The commit that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// `git+https://…`, without the commit.
    pub uri: String,
    /// 40 or 64 hexadecimal digits.
    pub commit: String,
}

/// Who says which commit was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaidBy {
    /// Whoever made the release.
    Release,
    /// Whoever built, in build events.
    Build,
}

/// Something that Kiln did not see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed<T> {
    pub what: T,
    pub by: SaidBy,
}

/// The source that was built, and its branch, each with who says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revision {
    pub source: Option<Claimed<Source>>,
    pub branch: Option<Claimed<String>>,
}

/// What build events say of it, as it stands there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToldRevision {
    pub repository: Option<String>,
    pub commit: Option<String>,
    pub branch: Option<String>,
}

/// Why nothing is said of what was built. What is refused is not repeated: there may be a password in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevisionError {
    #[error("the source is not named by URL and commit")]
    Source,
    #[error("no branch is called so")]
    Branch,
    #[error("the branch is named twice")]
    Branches,
    #[error("the build says in its events that its {what} was {told:?}, and not {asked:?}")]
    Differs { what: &'static str, told: String, asked: String },
}

impl SaidBy {
    /// The word for who says it in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Build => "build-events",
        }
    }
}

impl Source {
    /// Reads `git+URL@COMMIT`. A password, or a token in its place, would be signed and read by everybody, for ever: over HTTP
    /// nobody is named, and over SSH a user alone.
    pub fn parse(text: &str) -> Option<Self> {
        let (uri, commit) = text.rsplit_once('@')?;
        let (scheme, rest) = uri.strip_prefix("git+")?.split_once("://")?;
        let authority = rest.split('/').next().unwrap_or_default();
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let is_user = |it: &str| it.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_');
        let is_open = !authority.contains('@')
            || (scheme == "ssh" && (1..=32).contains(&user.len()) && is_user(user));
        let is_plain = |it: char| it.is_ascii_graphic() && !"?#\\<>\"'`".contains(it);
        let is_uri = uri.len() <= MAX_URI && uri.chars().all(is_plain);
        let is_host = !host.is_empty() || scheme == "file";
        let source = Self { uri: uri.to_owned(), commit: commit.to_owned() };
        let fits = is_open && is_uri && is_host && source.descriptor().check().is_ok();
        fits.then_some(source)
    }

    pub(super) fn descriptor(&self) -> ResourceDescriptor {
        let digest = DigestSet::from([(GIT_COMMIT.to_owned(), self.commit.clone())]);
        ResourceDescriptor { uri: self.uri.clone(), digest, ..ResourceDescriptor::default() }
    }

    /// Out of build events, which say URLs as `git remote get-url` does, with whatever is in them.
    fn told(repository: &str, commit: &str) -> Option<Self> {
        let plain = repository.strip_prefix("git+").unwrap_or(repository);
        let uri = match plain.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => {
                let (authority, path) = rest.split_once('/')?;
                let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
                format!("git+{scheme}://{host}/{path}")
            }
            Some(_) => format!("git+{plain}"),
            // user@host:path; with another `@` behind the colon it may be user:password@host
            None => {
                let (host, path) = plain.split_once(':').filter(|(_, it)| !it.contains('@'))?;
                format!("git+ssh://{host}/{}", path.trim_start_matches('/'))
            }
        };
        Self::parse(&format!("{uri}@{commit}"))
    }
}

/// Whether Git takes it for the name of a branch (git check-ref-format). What begins with `refs/` is none here: of a branch
/// that somebody called `refs/heads/main` nobody is to think that it is `main`.
fn is_branch(name: &str) -> bool {
    let odd = |it: char| it.is_control() || it.is_whitespace() || "~^:?*[\\".contains(it);
    let is_part = |it: &str| !it.is_empty() && !it.starts_with('.') && !it.ends_with(".lock");
    name.len() <= MAX_BRANCH
        && !name.chars().any(odd)
        && !["..", "@{"].iter().any(|it| name.contains(it))
        && !name.starts_with('-')
        && !name.starts_with("refs/")
        && !name.ends_with('.')
        && !["@", "HEAD"].contains(&name)
        && name.split('/').all(is_part)
}

fn branch(name: &str) -> Result<String, RevisionError> {
    is_branch(name).then(|| name.to_owned()).ok_or(RevisionError::Branch)
}

/// Whether both may be one commit: one may be cut short. What is no commit of Git says nothing.
fn may_be(told: &str, commit: &str) -> bool {
    let is_hex = told.bytes().all(|it| it.is_ascii_hexdigit());
    told.len() < MIN_COMMIT || !is_hex || commit.starts_with(&told.to_ascii_lowercase())
}

impl Revision {
    /// The revision as whoever makes a release says it.
    pub fn released(source: Option<Source>) -> Self {
        Self { source: source.map(|what| Claimed { what, by: SaidBy::Release }), branch: None }
    }

    /// What is asked for (`git+URL@COMMIT`, with or without `?ref=refs/heads/BRANCH`), and what is told where nothing is asked for.
    /// Both saying something else is an error: one of them is wrong, and which is not known here.
    pub fn of(
        source: Option<&str>,
        named: Option<&str>,
        told: &ToldRevision,
    ) -> Result<Self, RevisionError> {
        let (source, reference) = match source.and_then(|it| it.rsplit_once(REF)) {
            Some((source, reference)) => (Some(source), Some(reference)),
            None => (source, None),
        };
        let parse = |it| Source::parse(it).ok_or(RevisionError::Source);
        let source = source.map(parse).transpose()?;
        let heads = |it: &str| it.strip_prefix(HEADS).ok_or(RevisionError::Branch).and_then(branch);
        let asked = match (reference.map(heads).transpose()?, named.map(branch).transpose()?) {
            (Some(one), Some(other)) if one != other => return Err(RevisionError::Branches),
            (one, other) => one.or(other),
        };
        let told_branch = told.branch.as_deref().filter(|it| is_branch(it)).map(str::to_owned);
        differ("commit", told.commit.as_ref(), source.as_ref().map(|it| &it.commit), may_be)?;
        differ("branch", told_branch.as_ref(), asked.as_ref(), |told, asked| told == asked)?;
        let told_source = match (&told.repository, &told.commit) {
            (Some(repository), Some(commit)) => Source::told(repository, commit),
            _ => None,
        };
        Ok(Self { source: claimed(source, told_source), branch: claimed(asked, told_branch) })
    }

    /// The source in one text, as it is signed.
    pub fn source_text(&self) -> Option<String> {
        self.source.as_ref().map(|Claimed { what, .. }| format!("{}@{}", what.uri, what.commit))
    }

    pub fn branch_text(&self) -> Option<&str> {
        self.branch.as_ref().map(|it| it.what.as_str())
    }
}

fn claimed<T>(asked: Option<T>, told: Option<T>) -> Option<Claimed<T>> {
    let asked = asked.map(|what| Claimed { what, by: SaidBy::Release });
    asked.or_else(|| told.map(|what| Claimed { what, by: SaidBy::Build }))
}

fn differ(
    what: &'static str,
    told: Option<&String>,
    asked: Option<&String>,
    fits: impl Fn(&str, &str) -> bool,
) -> Result<(), RevisionError> {
    match told.zip(asked) {
        Some((told, asked)) if !fits(told, asked) => {
            let (told, asked) = (told.chars().take(MAX_BRANCH).collect(), asked.clone());
            Err(RevisionError::Differs { what, told, asked })
        }
        _ => Ok(()),
    }
}
