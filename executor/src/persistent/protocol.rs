//! Requests and responses as they go through a tool's stdin and stdout.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes};
use kiln_protos::persistent::{WorkRequest, WorkResponse};
use prost::Message as _;
use serde_json::{Value, json};

use super::json::{Scan, from_json};

/// Most bytes of one response.
pub const MAX_RESPONSE_BYTES: usize = 64 << 20;
/// The tags with which an encoded WorkResponse can begin: those of its exit code, its output and
/// its number.
const FIRST_BYTES: [u8; 3] = [0x08, 0x12, 0x18];
/// Most bytes of the length before a response.
const LONGEST_LENGTH: usize = 10;
/// Bytes of what a tool printed that are shown where that was no response.
const SHOWN_BYTES: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Each message is encoded as protobuf and comes after its length, a varint.
    Protobuf,
    /// Each message is a JSON object in protobuf's own mapping, one after the other.
    Json,
}

impl Protocol {
    /// The protocol that `persistentWorkerProtocol` names; without a name it is protobuf. `None`:
    /// an unknown name.
    pub fn named(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("" | "proto" | "protobuf") => Some(Self::Protobuf),
            Some("json") => Some(Self::Json),
            Some(_) => None,
        }
    }

    pub fn encode(self, request: &WorkRequest) -> Bytes {
        match self {
            Self::Protobuf => request.encode_length_delimited_to_vec().into(),
            Self::Json => {
                let input = |input: &kiln_protos::persistent::Input| json!({ "path": input.path, "digest": STANDARD.encode(&input.digest) });
                let inputs: Vec<Value> = request.inputs.iter().map(input).collect();
                let request = json!({ "arguments": request.arguments, "inputs": inputs });
                let mut line = request.to_string();
                line.push('\n');
                line.into()
            }
        }
    }
}

/// The error that what a tool printed is no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}; its stdout begins with {head:?}")]
pub struct Malformed {
    pub fault: String,
    /// The beginning of what came after the response before, shortened.
    pub head: String,
}

/// Puts responses together from what a tool prints.
#[derive(Debug)]
pub struct Responses {
    protocol: Protocol,
    limit: usize,
    buffer: Vec<u8>,
    scan: Scan,
    /// Bytes since the last response, the space before the next included.
    received: usize,
}

impl Responses {
    /// A reader that has seen no byte yet. `limit`: most bytes of one response.
    pub fn new(protocol: Protocol, limit: usize) -> Self {
        Self { protocol, limit, buffer: Vec::new(), scan: Scan::default(), received: 0 }
    }

    /// Takes what was printed, and returns the response that it completes. There is one to each
    /// request: nothing may come after it before the next.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<WorkResponse>, Malformed> {
        self.buffer.extend_from_slice(bytes);
        self.received = self.received.saturating_add(bytes.len());
        let response = match self.next() {
            Ok(Some((response, length))) => {
                let rest = self.buffer.split_off(length);
                let head = std::mem::replace(&mut self.buffer, rest);
                self.scan = Scan::default();
                self.received = 0;
                self.skip_space();
                if self.buffer.is_empty() {
                    Ok(Some(response))
                } else {
                    self.buffer = head;
                    Err("more than one response came to a request".to_owned())
                }
            }
            Ok(None) => self.check(self.received.saturating_sub(LONGEST_LENGTH)).map(|()| None),
            Err(fault) => Err(fault),
        };
        response.map_err(|fault| Malformed { fault, head: self.head() })
    }

    /// Whether nothing has come since the last whole response.
    pub fn is_between(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The error for a response that came while so many bytes of its request were still to be sent.
    pub fn too_early(&self, unwritten: usize) -> Malformed {
        let fault = format!("it came before the last {unwritten} bytes of the request were read");
        Malformed { fault, head: self.head() }
    }

    /// Whether a tool that has left `unread` bytes has read its request. The end of a line after
    /// an object is no part of it, and may be left to the next.
    pub fn is_read(&self, unread: usize) -> bool {
        unread <= usize::from(self.protocol == Protocol::Json)
    }

    /// The beginning of what has come since the last response.
    fn head(&self) -> String {
        let shown = &self.buffer[..self.buffer.len().min(SHOWN_BYTES)];
        String::from_utf8_lossy(shown).into_owned()
    }

    fn next(&mut self) -> Result<Option<(WorkResponse, usize)>, String> {
        let Some((start, end)) = self.frame()? else { return Ok(None) };
        let body = &self.buffer[start..end];
        let response = match self.protocol {
            Protocol::Protobuf => WorkResponse::decode(body)
                .map_err(|error| format!("it is not a WorkResponse: {error}"))?,
            Protocol::Json => from_json(body)?,
        };
        if response.request_id != 0 {
            return Err(format!("it answers request {}, not 0", response.request_id));
        }
        if response.was_cancelled {
            return Err("it says that the request was cancelled".to_owned());
        }
        Ok(Some((response, end)))
    }

    /// The start and the end of the first whole message in `buffer`; `None`: it has not come whole
    /// yet. Fails with the reason why it cannot be a response.
    fn frame(&mut self) -> Result<Option<(usize, usize)>, String> {
        match self.protocol {
            Protocol::Protobuf => self.delimited(),
            Protocol::Json => self.object(),
        }
    }

    fn delimited(&self) -> Result<Option<(usize, usize)>, String> {
        let mut rest = &self.buffer[..];
        let length = match prost::decode_length_delimiter(&mut rest) {
            Ok(length) => length,
            Err(_) if self.buffer.len() < LONGEST_LENGTH => {
                let unfinished = self.buffer.iter().all(|byte| byte & 0x80 != 0);
                return if unfinished { Ok(None) } else { Err("it has no length".to_owned()) };
            }
            Err(_) => return Err("it has no length".to_owned()),
        };
        self.check(length)?;
        // Most texts look like a length with less than that behind it: nobody is to wait for more.
        if rest.first().is_some_and(|first| length > 0 && !FIRST_BYTES.contains(first)) {
            return Err("it does not begin as a WorkResponse".to_owned());
        }
        let start = self.buffer.len() - rest.remaining();
        Ok((rest.remaining() >= length).then_some((start, start + length)))
    }

    fn check(&self, length: usize) -> Result<(), String> {
        match length > self.limit {
            true => Err(format!("it has more than {} bytes", self.limit)),
            false => Ok(()),
        }
    }

    fn skip_space(&mut self) {
        if self.protocol == Protocol::Json {
            let space = self.buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.buffer.drain(..space);
        }
    }

    fn object(&mut self) -> Result<Option<(usize, usize)>, String> {
        if self.scan.at == 0 {
            self.skip_space();
        }
        while let Some(&byte) = self.buffer.get(self.scan.at) {
            if self.scan.at == 0 && byte != b'{' {
                return Err("it is not an object".to_owned());
            }
            self.scan.at += 1;
            if self.scan.step(byte) {
                return Ok(Some((0, self.scan.at)));
            }
            self.check(self.scan.at)?;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use kiln_protos::persistent::Input;
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1 << 10;

    fn json(text: &str) -> Result<Option<WorkResponse>, Malformed> {
        Responses::new(Protocol::Json, LIMIT).push(text.as_bytes())
    }

    fn encoded(protocol: Protocol, response: &WorkResponse) -> Vec<u8> {
        match protocol {
            Protocol::Protobuf => response.encode_length_delimited_to_vec(),
            Protocol::Json => {
                let (code, output) = (response.exit_code, &response.output);
                json!({ "exitCode": code, "output": output, "later": { "x": ["}"] } })
                    .to_string()
                    .into_bytes()
            }
        }
    }

    #[test]
    fn a_request_says_the_same_in_both() {
        let inputs = vec![Input { path: "a/b".into(), digest: "00ff".into() }];
        let arguments = vec!["-x".to_owned(), "a \"b\"\n".to_owned()];
        let request = WorkRequest { arguments, inputs, ..Default::default() };
        let bytes = Protocol::Protobuf.encode(&request);
        assert_eq!(WorkRequest::decode_length_delimited(bytes).unwrap(), request);
        let line = Protocol::Json.encode(&request);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert!(line.ends_with(b"\n"), "what may be left unread");
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["arguments"], json!(["-x", "a \"b\"\n"]));
        assert_eq!(value["inputs"], json!([{ "path": "a/b", "digest": "MDBmZg==" }]));
    }

    #[test]
    fn names_of_protocols() {
        for name in [None, Some("proto"), Some("protobuf"), Some("")] {
            assert_eq!(Protocol::named(name), Some(Protocol::Protobuf));
        }
        assert_eq!(Protocol::named(Some("json")), Some(Protocol::Json));
        assert_eq!(Protocol::named(Some("xml")), None);
    }

    #[test]
    fn both_spellings_and_absent_fields_are_understood() {
        let response = json(r#" {"exit_code": "3", "request_id": 0, "output": null} "#);
        let expected = WorkResponse { exit_code: 3, ..Default::default() };
        assert_eq!(response.unwrap(), Some(expected));
        assert_eq!(json("{}").unwrap(), Some(WorkResponse::default()));
    }

    #[test]
    fn what_is_no_response_is_shown() {
        for (text, fault) in [
            ("Compiling a\n", "not an object"),
            ("{\"exitCode\": x}", "not JSON"),
            ("{\"exitCode\": 1.5}", "expected a whole number of 32 bits"),
            ("{\"exitCode\": 99999999999}", "expected a whole number of 32 bits"),
            ("{\"exitCode\": \"x\"}", "a text is no whole number"),
            ("{\"exitCode\": [1]}", "expected a whole number of 32 bits"),
            ("{\"output\": 1}", "expected a string"),
            ("{\"requestId\": 7}", "request 7, not 0"),
            ("{\"wasCancelled\": true}", "cancelled"),
            ("{}{}", "more than one"),
            ("{} done", "more than one"),
        ] {
            let error = json(text).unwrap_err();
            assert!(error.fault.contains(fault), "{text}: {error}");
            assert!(error.to_string().contains(&format!("{:?}", &text[..2])[..2]), "{error}");
        }
        let space = " ".repeat(LIMIT + LONGEST_LENGTH + 1);
        assert!(json(&space).unwrap_err().fault.contains("more than 1024 bytes"));
        let long = format!("{{\"output\": \"{}", "x".repeat(LIMIT));
        assert!(json(&long).unwrap_err().fault.contains("more than 1024 bytes"));
    }

    #[test]
    fn lengths_that_are_none_or_too_large_are_refused() {
        let push = |bytes: &[u8]| Responses::new(Protocol::Protobuf, LIMIT).push(bytes);
        assert!(push(&[0xff; 11]).unwrap_err().fault.contains("no length"));
        assert!(push(&[0x81, 0x08]).unwrap_err().fault.contains("more than 1024 bytes"));
        assert!(
            push(b"\x05\x08\xff\xff\xff\xff").unwrap_err().fault.contains("not a WorkResponse")
        );
        assert!(push(b"Compiling").unwrap_err().fault.contains("does not begin as a WorkResponse"));
        assert_eq!(push(&[0xff; 4]).unwrap(), None);
        assert!(push(b"Hello, world!").unwrap_err().head.starts_with("Hello, world!"));
    }

    proptest! {
        #[test]
        fn responses_come_back_however_they_are_cut(
            responses in prop::collection::vec((any::<i32>(), ".{0,40}"), 1..5),
            cut in 1_usize..9,
            json in any::<bool>(),
        ) {
            let protocol = if json { Protocol::Json } else { Protocol::Protobuf };
            let mut parser = Responses::new(protocol, LIMIT);
            for (exit_code, output) in responses {
                let response = WorkResponse { exit_code, output, ..Default::default() };
                let bytes = encoded(protocol, &response);
                let mut answer = None;
                for piece in bytes.chunks(cut) {
                    prop_assert!(answer.is_none());
                    answer = parser.push(piece).unwrap();
                }
                // A response without content is one byte, or two.
                prop_assert_eq!(answer, Some(response));
                prop_assert!(parser.is_between());
                if json {
                    prop_assert_eq!(parser.push(b"\r\n").unwrap(), None);
                    prop_assert!(parser.is_between());
                }
            }
        }

        #[test]
        fn noise_is_never_more_than_the_limit(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            json in any::<bool>(),
        ) {
            let protocol = if json { Protocol::Json } else { Protocol::Protobuf };
            let mut parser = Responses::new(protocol, LIMIT);
            for piece in pieces {
                if parser.push(&piece).is_err() {
                    break;
                }
                prop_assert!(parser.buffer.len() <= LIMIT + 10 + 300);
            }
        }
    }
}
