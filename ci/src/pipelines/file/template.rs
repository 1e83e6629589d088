//! Values in texts: `${matrix.os}`, `${input.version}`, `${run.branch}`, `${stages.build.tree}`. `$${` is `${` itself.
//! What is put in is never looked at again, whatever is in it.

/// Bytes of a text with its values.
pub const MAX_FILLED: usize = 64 << 10;
/// Bytes of a reference.
const MAX_REFERENCE: usize = 300;

/// What a run knows of itself.
pub const RUN: [&str; 6] = ["id", "pipeline", "trigger", "branch", "commit", "by"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference<'a> {
    Matrix(&'a str),
    Input(&'a str),
    Run(&'a str),
    /// What a stage told.
    Told(&'a str, &'a str),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("`${{` without `}}` behind it; for the two characters themselves write `$${{`")]
    Open,
    #[error(
        "`${{{0}}}` is no value: expected matrix.NAME, input.NAME, run.NAME or stages.STAGE.NAME"
    )]
    Unknown(String),
    #[error("`${{{0}}}` has no value here")]
    Missing(String),
    #[error(
        "a value that ends with `$` comes before what begins with `{{`: both would be one value"
    )]
    Joined,
    #[error(
        "with its values a text would have more than {MAX_FILLED} bytes: put it into a file of the sources"
    )]
    TooLong,
}

enum Piece<'a> {
    Text(&'a str),
    /// `$${`, which stands for `${` itself.
    Escaped,
    Value(Reference<'a>, &'a str),
}

/// Puts values in. Without a value, and with `later`, a reference stays for the next time.
pub fn fill(
    text: &str,
    later: bool,
    mut value: impl FnMut(&Reference<'_>) -> Option<String>,
) -> Result<String, TemplateError> {
    let mut filled = String::new();
    for piece in pieces(text)? {
        let before = filled.len();
        match piece {
            Piece::Text(text) => filled.push_str(text),
            Piece::Escaped => filled.push_str(if later { "$${" } else { "${" }),
            Piece::Value(reference, written) => match value(&reference) {
                // What is put in now is no reference later.
                Some(value) if later => filled.push_str(&value.replace("${", "$${")),
                Some(value) => filled.push_str(&value),
                None if later => filled.push_str(&format!("${{{written}}}")),
                None => return Err(TemplateError::Missing(written.to_owned())),
            },
        }
        if filled.len() > MAX_FILLED {
            return Err(TemplateError::TooLong);
        }
        let (known, new) = filled.split_at(before);
        if later && known.ends_with('$') && (new.starts_with('{') || new.starts_with("${")) {
            return Err(TemplateError::Joined);
        }
    }
    Ok(filled)
}

/// The values that a text asks for.
pub fn references(text: &str) -> Result<Vec<Reference<'_>>, TemplateError> {
    let pieces = pieces(text)?;
    let reference = |piece| match piece {
        Piece::Value(reference, _) => Some(reference),
        _ => None,
    };
    Ok(pieces.into_iter().filter_map(reference).collect())
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, TemplateError> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find("${") {
        let (before, behind) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            pieces.extend([Piece::Text(before), Piece::Escaped]);
            rest = behind.get(2..).unwrap_or_default();
            continue;
        }
        pieces.push(Piece::Text(before));
        let inner = behind.get(2..).unwrap_or_default();
        let end = inner.find('}').filter(|end| *end <= MAX_REFERENCE);
        let (written, behind) = inner.split_at(end.ok_or(TemplateError::Open)?);
        let unknown = || TemplateError::Unknown(written.to_owned());
        pieces.push(Piece::Value(reference(written).ok_or_else(unknown)?, written));
        rest = behind.get(1..).unwrap_or_default();
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

fn reference(written: &str) -> Option<Reference<'_>> {
    let (kind, name) = written.split_once('.')?;
    match kind {
        "matrix" => Some(Reference::Matrix(name)),
        "input" => Some(Reference::Input(name)),
        "run" => Some(Reference::Run(name)),
        // Names of stages may have points in them, what they tell has none.
        "stages" => name.rsplit_once('.').map(|(stage, name)| Reference::Told(stage, name)),
        _ => None,
    }
}
