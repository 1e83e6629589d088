//! Paths in layers: none leads out, and none means two things.

/// Bytes of a path, and of the target of a link.
const MAX_PATH: usize = 4096;
/// Names that mean "remove what is below" to whoever unpacks a layer.
const WHITEOUT: &str = ".wh.";

/// Why a path is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    #[error("{0:?} is absolute")]
    Absolute(String),
    #[error("{0:?} leads out of the layer")]
    Out(String),
    #[error("{0:?} has an empty part, or one that says nothing")]
    Empty(String),
    #[error("{0:?} is too long or has a character that no path has")]
    Characters(String),
    #[error("{0:?} would remove a file of another layer")]
    Whiteout(String),
}

/// A path of a file to be packed: relative, each part a name.
pub(super) fn check_path(path: &str) -> Result<(), PathProblem> {
    if path.len() > MAX_PATH || path.contains('\0') {
        return Err(PathProblem::Characters(path.chars().take(160).collect()));
    }
    if path.starts_with('/') {
        return Err(PathProblem::Absolute(path.to_owned()));
    }
    for part in path.split('/') {
        match part {
            ".." => return Err(PathProblem::Out(path.to_owned())),
            "" | "." => return Err(PathProblem::Empty(path.to_owned())),
            _ if part.starts_with(WHITEOUT) => {
                return Err(PathProblem::Whiteout(path.to_owned()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the target of a symbolic link at `path` stays within the layer. An absolute one starts at the root of
/// the image.
pub(super) fn stays_within(path: &str, target: &str) -> bool {
    let depth = match target.starts_with('/') {
        true => 0,
        false => {
            path.split('/').filter(|it| !it.is_empty() && *it != ".").count().saturating_sub(1)
        }
    };
    let mut depth = depth as i64;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return false;
        }
    }
    target.len() <= MAX_PATH && !target.contains('\0')
}

/// The name of a member of an archive, without a leading `./` and a trailing `/`; empty for the root.
pub(super) fn normal(name: &str) -> Result<&str, PathProblem> {
    let rest = name.trim_end_matches('/');
    if name.starts_with('/') {
        return Err(PathProblem::Absolute(name.to_owned()));
    }
    let mut rest = rest;
    while let Some(behind) = rest.strip_prefix("./") {
        rest = behind.trim_start_matches('/');
    }
    if rest == "." { Ok("") } else { Ok(rest) }
}

/// A name in an archive of somebody else: it may remove files of other layers, and may not lead out.
pub(super) fn check_name(name: &str) -> Result<&str, PathProblem> {
    if name.len() > MAX_PATH || name.contains('\0') {
        return Err(PathProblem::Characters(name.chars().take(160).collect()));
    }
    let path = normal(name)?;
    if path.split('/').any(|it| it == "..") {
        return Err(PathProblem::Out(name.to_owned()));
    }
    Ok(path)
}
