//! Errors of the SDK as errors of storage, in words that say what to do.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStreamError;

use crate::digest::Digest;
use crate::error::{Reason, StoreError};

/// The bucket that a failed request was for.
#[derive(Debug)]
pub struct Site {
    pub bucket: String,
    pub endpoint: String,
}

/// What an error means to whoever made the request.
#[derive(Debug)]
pub enum Failure {
    /// There is no such object, upload or bucket.
    Absent {
        code: String,
        error: StoreError,
    },
    Other(StoreError),
}

impl Failure {
    /// The error of a request about one blob: what is absent is the blob.
    pub fn about(self, digest: &Digest) -> StoreError {
        match self {
            Self::Absent { code, .. } if code != "NoSuchBucket" => StoreError::NotFound(*digest),
            failure => failure.into(),
        }
    }

    pub fn is_absent(&self, code: &str) -> bool {
        matches!(self, Self::Absent { code: absent, .. } if absent == code)
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Absent { error, .. } | Failure::Other(error) => error,
        }
    }
}

impl Site {
    /// `doing`: what was being done, e.g. `"put an object"`.
    pub fn failure<E>(&self, doing: &str, error: SdkError<E, HttpResponse>) -> Failure
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        match &error {
            SdkError::ServiceError(answer) => {
                let (code, message) = (answer.err().code(), answer.err().message());
                self.answer(doing, answer.raw(), code, message)
            }
            _ if lacks_credentials(&error) => Failure::Other(self.not_signed(doing, error)),
            _ => Failure::Other(self.no_answer(doing, error)),
        }
    }

    fn answer(
        &self,
        doing: &str,
        response: &HttpResponse,
        code: Option<&str>,
        message: Option<&str>,
    ) -> Failure {
        let status = response.status().as_u16();
        let Some(code) = code.filter(|code| !code.is_empty()) else {
            return self.foreign(doing, status);
        };
        let message = message.unwrap_or("no reason given");
        let region = response.headers().get("x-amz-bucket-region");
        let said = format!("{self}: {message} ({status} {code})");
        let lasting = |hint: &str| {
            let context = format!("S3: cannot {doing}");
            let reason = if hint.is_empty() { said.clone() } else { format!("{said}; {hint}") };
            StoreError::Io { context, reason: reason.into() }
        };
        if is_transient(status, code) {
            return Failure::Other(StoreError::unavailable(format!("S3: cannot {doing}: {said}")));
        }
        match (code, status) {
            ("NoSuchBucket", _) => Failure::Absent {
                code: code.to_owned(),
                error: lasting("create the bucket, or correct its name, endpoint or region"),
            },
            ("PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed", _)
            | (_, 301 | 307) => Failure::Other(lasting(&match region {
                Some(region) => format!("the bucket is in region {region}: set it"),
                None => "the bucket is in another region: set region or AWS_REGION".to_owned(),
            })),
            ("RequestTimeTooSkewed", _) => Failure::Other(lasting("set the clock of this machine")),
            ("ExpiredToken" | "ExpiredTokenException", _) => {
                Failure::Other(lasting("the session token has expired: renew the credentials"))
            }
            ("InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken", _) | (_, 401) => {
                Failure::Other(lasting(
                    "check the access key and secret in AWS_ACCESS_KEY_ID and \
                     AWS_SECRET_ACCESS_KEY, the profile or the role in use",
                ))
            }
            (_, 403) => Failure::Other(lasting(
                "the credentials in use must allow s3:ListBucket, GetObject, PutObject, \
                 DeleteObject, AbortMultipartUpload and ListBucketMultipartUploads",
            )),
            (_, 404) => Failure::Absent { code: code.to_owned(), error: lasting("") },
            _ => Failure::Other(lasting("")),
        }
    }

    /// S3 names a code with every error, other servers and proxies do not. Nothing is taken for
    /// absent by their word.
    fn foreign(&self, doing: &str, status: u16) -> Failure {
        let said = format!("{self}: the answer is {status} without a reason of S3");
        if is_transient(status, "") {
            return Failure::Other(StoreError::unavailable(format!("S3: cannot {doing}: {said}")));
        }
        Failure::Other(StoreError::Io {
            context: format!("S3: cannot {doing}"),
            reason: format!(
                "{said}; perhaps another server or a proxy is there, or a store that wants \
                 https://: correct s3.endpoint"
            )
            .into(),
        })
    }

    fn not_signed(&self, doing: &str, error: impl Error + Send + Sync + 'static) -> StoreError {
        let reasons = reasons(&error).join(": ");
        let hint = credentials_hint(&reasons);
        let message = format!("no credentials for {self}: {reasons}; {hint}");
        let context = format!("S3: cannot {doing}");
        StoreError::Io { context, reason: Reason::caused(message, error) }
    }

    fn no_answer(&self, doing: &str, error: impl Error + Send + Sync + 'static) -> StoreError {
        let reasons = reasons(&error).join(": ");
        let hint = self.connection_hint(&reasons);
        let message = format!("S3: cannot {doing}: no answer from {self}: {reasons}; {hint}");
        StoreError::unavailable(Reason::caused(message, error))
    }

    /// What to do about a store that cannot be spoken to.
    fn connection_hint(&self, reasons: &str) -> &'static str {
        let says = |word: &str| reasons.contains(word);
        if says("UnknownIssuer") {
            return "set s3.ca (or AWS_CA_BUNDLE) to a PEM file with the authority of its \
                    certificate";
        }
        if says("invalid peer certificate") {
            return "renew its certificate, or write s3.endpoint with a name that is in it";
        }
        if says("InvalidContentType") {
            return "it may not speak TLS: write http:// in s3.endpoint";
        }
        match self.endpoint.starts_with("http://") {
            true => "start it, or correct s3.endpoint (https:// where it speaks TLS)",
            false => "start it, or correct s3.endpoint",
        }
    }

    /// The body of an answer broke off.
    pub fn broken_body(&self, error: ByteStreamError) -> StoreError {
        let reasons = reasons(&error).join(": ");
        let message = format!("S3: the answer of {self} broke off: {reasons}");
        StoreError::unavailable(Reason::caused(message, error))
    }
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bucket {} at {}", self.bucket, self.endpoint)
    }
}

/// What to do about credentials that cannot be had.
fn credentials_hint(reasons: &str) -> &'static str {
    let says = |word: &str| reasons.contains(word);
    if says("cargo feature") {
        return "profiles of this kind are not supported: name one with keys, a role, SSO or \
                credential_process (which may run `aws configure export-credentials \
                --format process`)";
    }
    if says("SSO") || says("sso") {
        return "log in with `aws sso login` as the user that Kiln runs as, or give it another \
                profile";
    }
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or give this machine a role"
}

fn lacks_credentials(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source())
        .filter_map(|error| error.downcast_ref::<CredentialsError>())
        .any(|error| !matches!(error, CredentialsError::ProviderTimedOut(_)))
}

fn is_transient(status: u16, code: &str) -> bool {
    const CODES: [&str; 6] = [
        "SlowDown",
        "RequestTimeout",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "OperationAborted",
    ];
    matches!(status, 408 | 429 | 500 | 502..=504) || CODES.contains(&code)
}

/// An error and what caused it, outermost first, without repetitions.
fn reasons(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut reasons: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !reasons.iter().any(|reason| reason.contains(&text)) {
            reasons.push(text);
        }
        next = error.source();
    }
    reasons
}
