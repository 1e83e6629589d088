//! Tables of a TOML document, read key by key. What is wrong is told with its line and column, and a key that nobody
//! knows with the one that is spelled most alike.

mod times;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::toml::Spanned;
use ::toml::de::{DeTable, DeValue};
use serde_json::Value;

use self::times::parse_time;

/// How alike two words have to be for one to be meant by the other.
const LIKENESS: f64 = 0.7;
/// Characters of what was found that a message repeats.
const SHOWN: usize = 100;

/// What is wrong with a document, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct TableError {
    pub line: usize,
    pub column: usize,
    pub message: String,
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{length} bytes are more than the {most} that {what} may have: shorten it")]
    TooLarge { what: &'static str, length: usize, most: usize },
    #[error(transparent)]
    At(TableError),
}

/// A table with what is needed to say where something of it stands.
#[derive(Clone)]
pub struct Fields<'a> {
    text: &'a str,
    /// The table's name as a user writes it, `environments.prod`; empty at the top of the file.
    path: String,
    span: Range<usize>,
    table: &'a DeTable<'a>,
}

/// A value with its place.
pub struct Field<'a> {
    text: &'a str,
    path: String,
    value: &'a Spanned<DeValue<'a>>,
}

pub fn error_at(text: &str, at: usize, message: String) -> TableError {
    let before = text.get(..at.min(text.len())).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    TableError { line, column, message }
}

/// The known word that `word` was probably meant to be.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    known
        .into_iter()
        .map(|it| (strsim::jaro_winkler(word, it), it))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > LIKENESS)
        .map(|(_, it)| it)
}

/// Reads a whole document. Errors: also where it is no TOML.
pub fn document<T>(
    text: &str,
    read: impl FnOnce(&Fields<'_>) -> Result<T, TableError>,
) -> Result<T, TableError> {
    let parsed = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        error_at(text, at, error.message().to_owned())
    })?;
    read(&Fields::top(text, &parsed))
}

/// Reads a document of at most so many bytes. `what`: as people call it, with its article.
pub fn file<T>(
    text: &str,
    (what, most): (&'static str, usize),
    read: impl FnOnce(&Fields<'_>) -> Result<T, TableError>,
) -> Result<T, FileError> {
    let length = text.len();
    if length > most {
        return Err(FileError::TooLarge { what, length, most });
    }
    document(text, read).map_err(FileError::At)
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

impl<'a> Fields<'a> {
    pub fn top(text: &'a str, table: &'a Spanned<DeTable<'a>>) -> Self {
        Self { text, path: String::new(), span: table.span(), table: table.get_ref() }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { shown(key) } else { format!("{}.{}", self.path, shown(key)) }
    }

    /// Refuses keys that are not among these.
    pub fn only(&self, known: &[&str]) -> Result<(), TableError> {
        let unknown = |(key, _): &(&Spanned<_>, _)| {
            let key: &std::borrow::Cow<'_, str> = key.get_ref();
            !known.contains(&&**key)
        };
        let Some((key, _)) = self.table.iter().find(unknown) else { return Ok(()) };
        let hint = match nearest(key.get_ref(), known.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("known are {}", known.join(", ")),
        };
        let message = format!("{}: unknown key; {hint}", self.path_of(key.get_ref()));
        Err(error_at(self.text, key.span().start, message))
    }

    pub fn get(&self, key: &str) -> Option<Field<'a>> {
        let (_, value) = self.table.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(Field { text: self.text, path: self.path_of(key), value })
    }

    pub fn need(&self, key: &str) -> Result<Field<'a>, TableError> {
        self.get(key).ok_or_else(|| self.error(format!("{key} is missing")))
    }

    /// The keys with what they stand for; at most `most`.
    pub fn entries(&self, most: usize) -> Result<Vec<(String, Field<'a>)>, TableError> {
        if self.table.len() > most {
            return Err(self.error(format!("{} entries; at most {most} are", self.table.len())));
        }
        let field = |(key, value): (&'a Spanned<_>, &'a Spanned<DeValue<'a>>)| {
            let name: &std::borrow::Cow<'_, str> = key.get_ref();
            let field = Field { text: self.text, path: self.path_of(name), value };
            (name.to_string(), field)
        };
        Ok(self.table.iter().map(field).collect())
    }

    pub fn error(&self, message: String) -> TableError {
        let message =
            if self.path.is_empty() { message } else { format!("{}: {message}", self.path) };
        error_at(self.text, self.span.start, message)
    }
}

impl<'a> Field<'a> {
    pub fn error(&self, message: &str) -> TableError {
        error_at(self.text, self.value.span().start, format!("{}: {message}", self.path))
    }

    fn expected(&self, what: &str) -> TableError {
        self.error(&format!("expected {what}, found {}", self.value.get_ref().type_str()))
    }

    pub fn text(&self) -> Result<&'a str, TableError> {
        self.value.get_ref().as_str().ok_or_else(|| self.expected("text in quotes"))
    }

    /// The value as one of `words`. Errors: it is no text, or none of them.
    pub fn one_of<'w>(&self, words: &[&'w str]) -> Result<&'w str, TableError> {
        let text = self.text()?;
        let found = words.iter().find(|word| **word == text);
        found.copied().ok_or_else(|| self.error(&format!("expected one of {}", words.join(", "))))
    }

    pub fn flag(&self) -> Result<bool, TableError> {
        self.value.get_ref().as_bool().ok_or_else(|| self.expected("true or false"))
    }

    /// A whole number of this range.
    pub fn number(&self, range: std::ops::RangeInclusive<u64>) -> Result<u64, TableError> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let number = self.value.get_ref().as_integer().ok_or_else(|| self.expected(&expected))?;
        let read = u64::from_str_radix(number.as_str(), number.radix()).ok();
        let wrong = || self.error(&format!("expected {expected}"));
        read.filter(|it| range.contains(it)).ok_or_else(wrong)
    }

    /// A number, whole or not; `None` of anything else, and of what is no number.
    pub fn decimal(&self) -> Option<f64> {
        let value = self.value.get_ref();
        let whole = || value.as_integer()?.as_str().parse::<f64>().ok();
        let float = || value.as_float()?.as_str().parse::<f64>().ok();
        float().or_else(whole).filter(|number| number.is_finite())
    }

    pub fn list(&self, most: usize) -> Result<Vec<Field<'a>>, TableError> {
        let list = self.value.get_ref().as_array().ok_or_else(|| self.expected("a list"))?;
        if list.len() > most {
            return Err(self.error(&format!("{} entries; at most {most} are", list.len())));
        }
        let field = |(index, value)| Field {
            text: self.text,
            path: format!("{}[{index}]", self.path),
            value,
        };
        Ok(list.iter().enumerate().map(field).collect())
    }

    pub fn texts(&self, most: usize) -> Result<Vec<String>, TableError> {
        self.list(most)?.iter().map(|it| it.text().map(str::to_owned)).collect()
    }

    pub fn fields(&self) -> Result<Fields<'a>, TableError> {
        let table = self.value.get_ref().as_table().ok_or_else(|| self.expected("a table"))?;
        Ok(Fields { text: self.text, path: self.path.clone(), span: self.value.span(), table })
    }

    /// The value as JSON; a date is its text, and a number that JSON cannot say is null.
    pub fn json(&self) -> Value {
        json(self.value.get_ref())
    }

    pub fn absolute_path(&self) -> Result<PathBuf, TableError> {
        let path = Path::new(self.text()?);
        let absolute = path.is_absolute().then(|| path.to_owned());
        absolute.ok_or_else(|| self.error("expected an absolute path"))
    }

    /// What `T` makes of a text.
    pub fn parsed<T, E: std::error::Error + 'static>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, TableError> {
        parse(self.text()?).map_err(|it| self.error(&crate::causes::chain(&it).to_string()))
    }
}

fn json(value: &DeValue<'_>) -> Value {
    let number = |text: &str| text.parse().map_or(Value::Null, Value::Number);
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Integer(whole) => {
            i64::from_str_radix(whole.as_str(), whole.radix()).map_or(Value::Null, Value::from)
        }
        DeValue::Float(float) => number(float.as_str().trim_start_matches('+')),
        DeValue::Datetime(it) => Value::String(it.to_string()),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            let member = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                let name: &std::borrow::Cow<'_, str> = key.get_ref();
                (name.to_string(), json(value.get_ref()))
            };
            Value::Object(table.iter().map(member).collect())
        }
    }
}

/// The offset in bytes at which each key of a table stands, for errors that show only when all of it was read.
pub fn places(fields: &Fields<'_>) -> BTreeMap<String, usize> {
    fields.table.iter().map(|(key, _)| (key.get_ref().to_string(), key.span().start)).collect()
}

/// A time such as `10m`; `None`: there is none.
pub fn time(fields: &Fields<'_>, key: &str) -> Result<Option<Duration>, TableError> {
    let Some(field) = fields.get(key) else { return Ok(None) };
    let wrong = || field.error("expected a time like \"90s\", \"10m\", \"6h\" or \"7d\"");
    parse_time(field.text()?).map(Some).ok_or_else(wrong)
}
