//! Turns the bytes of a report into text.

use quick_xml::XmlVersion;
use quick_xml::errors::Error;
use quick_xml::events::attributes::Attribute;
use quick_xml::events::{BytesDecl, BytesStart};

use super::Reason;

/// What a report says it is encoded in, where that is not UTF-8. Reports that say so are read as long as they
/// are written in ASCII alone.
#[derive(Default)]
pub struct Encoding(Option<String>);

impl Encoding {
    pub fn declared(declaration: &BytesDecl) -> Self {
        Self(match declaration.encoding() {
            Some(Ok(name)) => Some(name.into_owned()).filter(|name| {
                !["utf-8", "utf8", "us-ascii", "ascii"].contains(&&*name.to_ascii_lowercase())
            }),
            _ => None,
        })
    }

    /// The text of an element. Bytes that are no text are shown as such: what a test printed says nothing
    /// against its report.
    pub fn text(&self, bytes: &[u8]) -> Result<String, Reason> {
        if self.0.is_some() && !bytes.is_ascii() {
            return Err(self.error());
        }
        let text = String::from_utf8_lossy(bytes);
        let text = match quick_xml::escape::unescape(&text) {
            Ok(plain) => plain.into_owned(),
            Err(_) => text.into_owned(),
        };
        Ok(text.trim().to_owned())
    }

    /// Hands each attribute's name and value to `each`, the first one first.
    pub fn attributes(
        &self,
        tag: &BytesStart,
        mut each: impl FnMut(&str, String),
    ) -> Result<(), Reason> {
        const KNOWN: [&str; 8] =
            ["name", "classname", "class", "time", "status", "result", "message", "type"];
        // To look for an attribute that is there twice takes the square of their number.
        for attribute in tag.attributes().with_checks(false) {
            let attribute = attribute.map_err(|error| Reason::Xml(error.into()))?;
            let key: &str = attribute.key.as_ref();
            if KNOWN.contains(&key) {
                each(key, self.value(&attribute)?);
            }
        }
        Ok(())
    }

    fn value(&self, attribute: &Attribute) -> Result<String, Reason> {
        let value = attribute.normalized_value(XmlVersion::Implicit1_0);
        let value = value.map_err(|error| match error {
            Error::Escape(quick_xml::escape::EscapeError::UnrecognizedEntity(_, name)) => {
                Reason::Entity(name.chars().take(80).collect())
            }
            other => Reason::Xml(other),
        })?;
        match self.0.is_some() && !value.is_ascii() {
            true => Err(self.error()),
            false => Ok(value.into_owned()),
        }
    }

    /// Why bytes are refused that are not in UTF-8.
    pub fn error(&self) -> Reason {
        self.0.clone().map_or(Reason::NotUtf8, Reason::Encoding)
    }
}
