//! Values of a document with their place in it.

use serde_json::{Map, Value};

use super::error::ReadError;
use crate::toml::nearest;

/// Characters of what was found that a message repeats.
const SHOWN: usize = 60;

/// A limit so large that it is no matter for a message.
const MANY: f64 = 1e15;

/// The place of a value in a document. It is written out only when something is wrong with it.
pub enum Place<'a> {
    Top,
    Member(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl Place<'_> {
    fn path(&self) -> String {
        match self {
            Self::Top => String::new(),
            Self::Member(Self::Top, name) => shown(name),
            Self::Member(of, name) => format!("{}.{}", of.path(), shown(name)),
            Self::Item(of, at) => format!("{}[{at}]", of.path()),
        }
    }

    pub fn error(&self, problem: impl Into<String>) -> ReadError {
        let place = match self {
            Self::Top => "the document".to_owned(),
            inner => inner.path(),
        };
        ReadError::At { place, problem: problem.into() }
    }

    pub fn expected(&self, what: &str, found: &Value) -> ReadError {
        let found = match found {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Number(number) => number.to_string(),
            Value::String(text) => format!("the text {:?}", shown(text)),
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
        };
        self.error(format!("expected {what}, found {found}"))
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// The members of an object. A member that is null is one that is not there.
pub struct Fields<'a> {
    pub place: &'a Place<'a>,
    members: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub fn of(value: &'a Value, place: &'a Place<'a>) -> Result<Self, ReadError> {
        let members = value.as_object().ok_or_else(|| place.expected("an object", value))?;
        Ok(Self { place, members })
    }

    /// Refuses members that are not among these.
    pub fn only(&self, known: &[&str]) -> Result<(), ReadError> {
        let unknown = |name: &&String| !known.contains(&name.as_str());
        let Some(name) = self.members.keys().find(unknown) else { return Ok(()) };
        let hint = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("known are {}", known.join(", ")),
        };
        Err(Place::Member(self.place, name).error(format!("unknown member; {hint}")))
    }

    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    pub fn value(&self, name: &str) -> Option<&'a Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    pub fn names(&self, most: usize) -> Result<Vec<String>, ReadError> {
        if self.members.len() > most {
            return Err(self.place.error(format!("more than {most} members")));
        }
        Ok(self.members.keys().cloned().collect())
    }

    fn read<T>(
        &self,
        name: &str,
        what: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ReadError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let wrong = || Place::Member(self.place, name).expected(what, value);
        read(value).map(Some).ok_or_else(wrong)
    }

    fn need<T>(&self, name: &str, value: Option<T>) -> Result<T, ReadError> {
        value.ok_or_else(|| self.place.error(format!("{name} is missing")))
    }

    pub fn text(&self, name: &str) -> Result<Option<&'a str>, ReadError> {
        self.read(name, "text", Value::as_str)
    }

    pub fn need_text(&self, name: &str) -> Result<&'a str, ReadError> {
        self.need(name, self.text(name)?)
    }

    pub fn flag(&self, name: &str) -> Result<Option<bool>, ReadError> {
        self.read(name, "true or false", Value::as_bool)
    }

    pub fn number(&self, name: &str, least: f64, most: f64) -> Result<Option<f64>, ReadError> {
        let what = match (least > -MANY, most < MANY) {
            (true, true) => format!("a number from {least} to {most}"),
            (true, false) => format!("a number from {least} on"),
            _ => "a number".to_owned(),
        };
        let in_range = |value: &Value| value.as_f64().filter(|it| (least..=most).contains(it));
        self.read(name, &what, in_range)
    }

    pub fn need_number(&self, name: &str, least: f64, most: f64) -> Result<f64, ReadError> {
        self.need(name, self.number(name, least, most)?)
    }

    pub fn whole(&self, name: &str, most: u64) -> Result<Option<u64>, ReadError> {
        let what = format!("a whole number from 0 to {most}");
        self.read(name, &what, |value| value.as_u64().filter(|it| *it <= most))
    }

    pub fn need_whole(&self, name: &str, most: u64) -> Result<u64, ReadError> {
        self.need(name, self.whole(name, most)?)
    }

    /// What `read` makes of an object.
    pub fn object<T>(
        &self,
        name: &str,
        read: impl FnOnce(&Fields<'_>) -> Result<T, ReadError>,
    ) -> Result<Option<T>, ReadError> {
        let place = Place::Member(self.place, name);
        let of = |value| read(&Fields::of(value, &place)?);
        self.value(name).map(of).transpose()
    }

    pub fn need_object<T>(
        &self,
        name: &str,
        read: impl FnOnce(&Fields<'_>) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let found = self.object(name, read)?;
        self.need(name, found)
    }

    /// A list that must be there.
    pub fn list(&self, name: &str, most: usize) -> Result<&'a [Value], ReadError> {
        let list = self.read(name, "a list", |value| value.as_array().map(Vec::as_slice))?;
        let list = self.need(name, list)?;
        if list.len() > most {
            let problem = format!("{} entries; at most {most} are", list.len());
            return Err(Place::Member(self.place, name).error(problem));
        }
        Ok(list)
    }

    /// The member `name`, which has to be one of these words, as what that word stands for; `None`: it is not there.
    pub fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, ReadError> {
        let what: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        let find = |value: &Value| {
            let text = value.as_str()?;
            words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, it)| *it)
        };
        self.read(name, &what.join(" or "), find)
    }
}
