//! Resource names of the ByteStream service (REAPI: `ContentAddressableStorage`).

use crate::digest::{Digest, DigestError, DigestFunction};

/// Longest resource name taken, in bytes.
pub const MAX_RESOURCE_NAME: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Identity,
    Zstd,
}

/// What a resource name to read from means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadName<'a> {
    Blob {
        instance: &'a str,
        digest: Digest,
        compression: Compression,
    },
    /// The whole name is the key of the log.
    Log(&'a str),
}

/// What a resource name to write to means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteName<'a> {
    Blob {
        instance: &'a str,
        uuid: &'a str,
        digest: Digest,
        compression: Compression,
    },
    /// `{parent}/logstreams/{id}/{token}`
    Log {
        name: &'a str,
        token: &'a str,
    },
}

impl<'a> ReadName<'a> {
    pub fn instance(&self) -> &'a str {
        match self {
            Self::Blob { instance, .. } => instance,
            Self::Log(name) => parent(name),
        }
    }
}

impl<'a> WriteName<'a> {
    pub fn instance(&self) -> &'a str {
        match self {
            Self::Blob { instance, .. } => instance,
            Self::Log { name, .. } => parent(name),
        }
    }
}

/// The instance that a log belongs to.
fn parent(log: &str) -> &str {
    splits(log).find(|(_, segment, _)| *segment == "logstreams").map_or("", |(before, ..)| before)
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("resource_name: it is not UTF-8")]
    NotUtf8,
    #[error("resource_name: it is longer than {MAX_RESOURCE_NAME} bytes")]
    TooLong,
    #[error("resource_name: {name:?} is malformed; expected {expected}")]
    Malformed { name: String, expected: &'static str },
    #[error("resource_name: compressor {0:?} is not supported; zstd is")]
    Compressor(String),
    #[error("resource_name: {0}")]
    Digest(DigestError),
    #[error("resource_name: size {0:?} is not a number of bytes")]
    Size(String),
}

const READ_FORM: &str = "{instance}/blobs/[blake3/]{hash}/{size}, \
    {instance}/compressed-blobs/zstd/[blake3/]{hash}/{size}, {parent}/logstreams/{id} \
    or {parent}/logstreams/{id}/{part}";
const WRITE_FORM: &str = "{instance}/uploads/{uuid}/blobs/[blake3/]{hash}/{size}, \
    {instance}/uploads/{uuid}/compressed-blobs/zstd/[blake3/]{hash}/{size} \
    or {parent}/logstreams/{id}/{token}";

/// Parses the `resource_name` of a `ReadRequest`.
pub fn parse_read(name: &[u8]) -> Result<ReadName<'_>, NameError> {
    let name = text(name)?;
    let malformed = || NameError::Malformed { name: name.to_owned(), expected: READ_FORM };
    for (instance, segment, rest) in splits(name) {
        match segment {
            "blobs" | "compressed-blobs" => {
                let (digest, compression, rest) =
                    blob(segment, rest).map_err(|error| error.unwrap_or_else(malformed))?;
                if rest.is_some() {
                    return Err(malformed());
                }
                return Ok(ReadName::Blob { instance, digest, compression });
            }
            "logstreams" if is_log(rest) => return Ok(ReadName::Log(name)),
            "logstreams" | "uploads" => return Err(malformed()),
            _ => {}
        }
    }
    Err(malformed())
}

/// Parses the `resource_name` of a `WriteRequest` or a `QueryWriteStatusRequest`. Metadata
/// after the size is ignored.
pub fn parse_write(name: &[u8]) -> Result<WriteName<'_>, NameError> {
    let name = text(name)?;
    let malformed = || NameError::Malformed { name: name.to_owned(), expected: WRITE_FORM };
    for (instance, segment, rest) in splits(name) {
        match segment {
            "uploads" => {
                let (uuid, rest) = rest.split_once('/').ok_or_else(malformed)?;
                let (kind, rest) = rest.split_once('/').ok_or_else(malformed)?;
                if uuid.is_empty() {
                    return Err(malformed());
                }
                let (digest, compression, _) =
                    blob(kind, rest).map_err(|error| error.unwrap_or_else(malformed))?;
                return Ok(WriteName::Blob { instance, uuid, digest, compression });
            }
            "logstreams" => {
                let (id, token) = rest.split_once('/').ok_or_else(malformed)?;
                if id.is_empty() || !is_one_segment(token) {
                    return Err(malformed());
                }
                let name = &name[..name.len() - token.len() - 1];
                return Ok(WriteName::Log { name, token });
            }
            "blobs" | "compressed-blobs" => return Err(malformed()),
            _ => {}
        }
    }
    Err(malformed())
}

fn text(name: &[u8]) -> Result<&str, NameError> {
    if name.len() > MAX_RESOURCE_NAME {
        return Err(NameError::TooLong);
    }
    std::str::from_utf8(name).map_err(|_| NameError::NotUtf8)
}

/// Each segment with what stands before it (without the slash) and after it.
fn splits(name: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    let mut start = Some(0);
    std::iter::from_fn(move || {
        let begin = start?;
        let end = name[begin..].find('/').map_or(name.len(), |at| begin + at);
        start = (end < name.len()).then_some(end + 1);
        let before = &name[..begin.saturating_sub(1)];
        Some((before, &name[begin..end], name.get(end + 1..).unwrap_or("")))
    })
}

/// `{id}`, or `{id}/stdout` and the like for the logs of one action. With a token behind the id
/// the name is for writing only (LogStream: reading it "must return an INVALID_ARGUMENT error").
fn is_log(rest: &str) -> bool {
    match rest.split_once('/') {
        None => !rest.is_empty(),
        Some((id, part)) => !id.is_empty() && is_one_segment(part) && !is_token(part),
    }
}

/// The form of tokens: 64 hexadecimal digits.
fn is_token(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_one_segment(text: &str) -> bool {
    !text.is_empty() && !text.contains('/')
}

/// What follows `blobs/` or `compressed-blobs/`. `Err(None)`: not of that form at all.
fn blob<'a>(
    kind: &str,
    rest: &'a str,
) -> Result<(Digest, Compression, Option<&'a str>), Option<NameError>> {
    let (compression, rest) = match kind {
        "blobs" => (Compression::Identity, rest),
        "compressed-blobs" => match rest.split_once('/').ok_or(None)? {
            ("zstd", rest) => (Compression::Zstd, rest),
            (other, _) => return Err(Some(NameError::Compressor(other.to_owned()))),
        },
        _ => return Err(None),
    };
    let (first, after) = rest.split_once('/').ok_or(None)?;
    let (function, hash, after) = match function_named(first)? {
        Some(function) => {
            let (hash, after) = after.split_once('/').ok_or(None)?;
            (function, hash, after)
        }
        None => (DigestFunction::Sha256, first, after),
    };
    let (size, metadata) = match after.split_once('/') {
        Some((size, metadata)) => (size, Some(metadata)),
        None => (after, None),
    };
    let bytes = parse_size(size).ok_or_else(|| NameError::Size(size.to_owned()))?;
    let digest = Digest::from_hex(hash.as_bytes(), bytes, function).map_err(NameError::Digest)?;
    Ok((digest, compression, metadata))
}

/// `None`: the segment is a hash. SHA-256 has no segment (REAPI: it "MUST be omitted").
fn function_named(segment: &str) -> Result<Option<DigestFunction>, NameError> {
    match segment {
        "blake3" => Ok(Some(DigestFunction::Blake3)),
        "md5" | "murmur3" | "sha1" | "sha256" | "sha256tree" | "sha384" | "sha512" | "vso"
        | "gitsha1" => {
            Err(NameError::Digest(DigestError::UnsupportedFunction(format!("segment {segment:?}"))))
        }
        _ => Ok(None),
    }
}

fn parse_size(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse::<i64>().ok().map(|size| size as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sha() -> Digest {
        DigestFunction::Sha256.digest(b"kiln")
    }

    #[test]
    fn names_to_read() {
        let digest = sha();
        let blake = DigestFunction::Blake3.digest(b"kiln");
        let blob = |instance, digest, compression| ReadName::Blob { instance, digest, compression };
        let cases = [
            (format!("blobs/{digest}"), blob("", digest, Compression::Identity)),
            (format!("a/b/blobs/{digest}"), blob("a/b", digest, Compression::Identity)),
            (format!("a/blobs/{blake}"), blob("a", blake, Compression::Identity)),
            (format!("compressed-blobs/zstd/{blake}"), blob("", blake, Compression::Zstd)),
            (format!("x/y/compressed-blobs/zstd/{digest}"), blob("x/y", digest, Compression::Zstd)),
        ];
        for (name, expected) in cases {
            assert_eq!(parse_read(name.as_bytes()), Ok(expected), "{name}");
        }
        for log in ["a/b/logstreams/xyz", "logstreams/xyz/stdout"] {
            assert_eq!(parse_read(log.as_bytes()), Ok(ReadName::Log(log)));
        }
    }

    #[test]
    fn names_to_write() {
        let digest = sha();
        let plain = format!("a/b/uploads/u-1/blobs/{digest}");
        let expected = WriteName::Blob {
            instance: "a/b",
            uuid: "u-1",
            digest,
            compression: Compression::Identity,
        };
        assert_eq!(parse_write(plain.as_bytes()), Ok(expected.clone()));
        assert_eq!(parse_write(format!("{plain}/some/file.o").as_bytes()), Ok(expected));
        let zstd = format!("uploads/u/compressed-blobs/zstd/{digest}/meta");
        assert!(matches!(
            parse_write(zstd.as_bytes()),
            Ok(WriteName::Blob { instance: "", compression: Compression::Zstd, .. })
        ));
        assert_eq!(parse_read(b"p/q/logstreams/id").unwrap().instance(), "p/q");
        assert_eq!(parse_write(b"logstreams/id/token").unwrap().instance(), "");
        assert_eq!(parse_write(plain.as_bytes()).unwrap().instance(), "a/b");
        assert_eq!(
            parse_write(b"p/q/logstreams/id/token"),
            Ok(WriteName::Log { name: "p/q/logstreams/id", token: "token" })
        );
    }

    #[test]
    fn malformed_names_are_refused_with_the_field() {
        let digest = sha();
        let hash = digest.hex();
        let read = [
            String::new(),
            "blobs".into(),
            format!("blobs/{hash}"),
            format!("blobs/{hash}/"),
            format!("blobs/{hash}/-1"),
            format!("blobs/{hash}/+1"),
            format!("blobs/{hash}/1/extra"),
            format!("blobs/{hash}/99999999999999999999"),
            format!("blobs/{}/4", hash.to_uppercase()),
            format!("blobs/sha1/{hash}/4"),
            format!("blobs/sha256/{hash}/4"),
            format!("compressed-blobs/brotli/{hash}/4"),
            format!("uploads/u/blobs/{hash}/4"),
            format!("logstreams/id/{hash}"),
            "logstreams/".into(),
            "logstreams/id/a/b".into(),
            "no/such/thing".into(),
        ];
        for name in read {
            let error = parse_read(name.as_bytes()).expect_err(&name).to_string();
            assert!(error.starts_with("resource_name: "), "{error}");
        }
        let write = [
            format!("blobs/{hash}/4"),
            format!("uploads/blobs/{hash}/4"),
            format!("uploads//blobs/{hash}/4"),
            format!("uploads/u/things/{hash}/4"),
            "logstreams/id".into(),
            "uploads/u".into(),
        ];
        for name in write {
            assert!(parse_write(name.as_bytes()).is_err(), "{name}");
        }
        assert_eq!(parse_read(b"\xff"), Err(NameError::NotUtf8));
        assert_eq!(parse_read(&[b'a'; MAX_RESOURCE_NAME + 1]), Err(NameError::TooLong));
    }

    proptest! {
        #[test]
        fn arbitrary_names_never_panic(name: Vec<u8>) {
            let _ = (parse_read(&name), parse_write(&name));
        }

        #[test]
        fn names_of_the_right_words_never_panic(
            words in proptest::collection::vec(
                prop_oneof![
                    Just("blobs".to_owned()), Just("uploads".into()), Just("zstd".into()),
                    Just("compressed-blobs".into()), Just("blake3".into()), Just("".into()),
                    Just("logstreams".into()), Just("ab".repeat(32)), "[0-9]{1,3}", "[a-zä]{1,3}",
                ],
                0..9,
            ),
        ) {
            let name = words.join("/");
            let _ = (parse_read(name.as_bytes()), parse_write(name.as_bytes()));
        }

        #[test]
        fn what_is_printed_is_read_back(
            instance in "([a-z]{1,5}(/[a-z]{1,5}){0,3})?", hash: [u8; 32],
            size in 0..=i64::MAX as u64, blake3: bool,
        ) {
            prop_assume!(!instance.split('/').any(|part| part == "blobs"));
            let function = if blake3 { DigestFunction::Blake3 } else { DigestFunction::Sha256 };
            let digest = Digest { hash, size, function };
            let slash = if instance.is_empty() { "" } else { "/" };
            let name = format!("{instance}{slash}blobs/{digest}");
            prop_assert_eq!(
                parse_read(name.as_bytes()),
                Ok(ReadName::Blob {
                    instance: &instance, digest, compression: Compression::Identity,
                })
            );
        }
    }
}
