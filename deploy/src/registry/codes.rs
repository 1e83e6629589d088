//! Codes of errors, as the distribution specification lists them, and the document that carries one.

use serde::Serialize;

/// What went wrong, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    #[serde(rename = "TOOMANYREQUESTS")]
    TooManyRequests,
    /// The specification has none for what is the registry's own fault; others write this.
    Unknown,
}

#[derive(Debug, Serialize)]
pub struct ErrorDocument<'a> {
    errors: [ErrorEntry<'a>; 1],
}

#[derive(Debug, Serialize)]
struct ErrorEntry<'a> {
    code: Code,
    message: &'a str,
}

impl<'a> ErrorDocument<'a> {
    pub fn new(code: Code, message: &'a str) -> Self {
        Self { errors: [ErrorEntry { code, message }] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_written_as_the_specification_says() {
        let written = |code| serde_json::to_string(&ErrorDocument::new(code, "no")).unwrap();
        let expected = r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"no"}]}"#;
        assert_eq!(written(Code::ManifestBlobUnknown), expected);
        assert!(written(Code::TooManyRequests).contains("\"TOOMANYREQUESTS\""));
    }
}
