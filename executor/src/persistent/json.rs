//! Responses of tools that speak JSON.

use std::fmt;

use kiln_protos::persistent::WorkResponse;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

/// How far an object has been read.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) at: usize,
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Scan {
    /// Takes the next byte; true at the end of the object.
    pub(super) fn step(&mut self, byte: u8) -> bool {
        if self.in_text {
            match (self.escaped, byte) {
                (true, _) => self.escaped = false,
                (false, b'\\') => self.escaped = true,
                (false, b'"') => self.in_text = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_text = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.depth == 0
    }
}

/// A WorkResponse in protobuf's own mapping. Names that are not known are ignored, as of a protocol
/// newer than this, and take no memory.
#[derive(Default, Deserialize)]
#[serde(default)]
struct JsonResponse {
    #[serde(alias = "exitCode")]
    exit_code: Number,
    output: Option<String>,
    #[serde(alias = "requestId")]
    request_id: Number,
    #[serde(alias = "wasCancelled")]
    was_cancelled: Option<bool>,
}

/// A number in protobuf's JSON mapping, which may be a text as well, or null.
#[derive(Default)]
struct Number(i32);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a whole number of 32 bits")
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Number, E> {
        let wrong = || E::invalid_value(de::Unexpected::Signed(value), &self);
        i32::try_from(value).map(Number).map_err(|_| wrong())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Number, E> {
        let wrong = || E::invalid_value(de::Unexpected::Unsigned(value), &self);
        i32::try_from(value).map(Number).map_err(|_| wrong())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Number, E> {
        value.parse().map(Number).map_err(|_| E::custom("a text is no whole number of 32 bits"))
    }

    fn visit_unit<E>(self) -> Result<Number, E> {
        Ok(Number(0))
    }
}

pub(super) fn from_json(body: &[u8]) -> Result<WorkResponse, String> {
    let response: JsonResponse = serde_json::from_slice(body).map_err(|error| {
        let what = if error.is_data() { "no WorkResponse" } else { "not JSON" };
        format!("it is {what}: {error}")
    })?;
    Ok(WorkResponse {
        exit_code: response.exit_code.0,
        output: response.output.unwrap_or_default(),
        request_id: response.request_id.0,
        was_cancelled: response.was_cancelled.unwrap_or_default(),
    })
}
