//! Pins as records: `pins/FUNCTION.HASH.SIZE/KIND/NAME`, so that those of one blob lie together.

use super::pin::Pin;
use crate::digest::{Digest, DigestFunction};
use crate::records::Record;

pub const PINS: &str = "pins/";

/// Most bytes of a pin's kind, and of its name.
pub const MAX_NAME: usize = 200;

/// `None`: kind or name are no names.
pub fn key(pin: &Pin) -> Option<String> {
    let is_name = |text: &str| {
        let is_sign = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'.' | b'-' | b'_');
        (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_sign)
    };
    let Pin { digest, kind, name, .. } = pin;
    (is_name(kind) && is_name(name)).then(|| format!("{}{kind}/{name}", of_blob(digest)))
}

/// What all keys of pins of a blob begin with.
pub fn of_blob(digest: &Digest) -> String {
    format!("{PINS}{}.{}.{}/", digest.function, digest.hex(), digest.size)
}

/// `None`: it is no pin.
pub fn parse(record: &Record) -> Option<Pin> {
    let mut parts = record.key.strip_prefix(PINS)?.split('/');
    let digest = digest(parts.next()?)?;
    let (kind, name) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let at = std::str::from_utf8(&record.value).ok()?.parse().ok()?;
    Some(Pin { digest, kind, name, at })
}

fn digest(text: &str) -> Option<Digest> {
    let mut parts = text.split('.');
    let function = parts.next()?;
    let function = DigestFunction::ALL.into_iter().find(|it| it.to_string() == function)?;
    let (hash, size) = (parts.next()?, parts.next()?.parse().ok()?);
    Digest::from_hex(hash.as_bytes(), size, function).ok()
}
