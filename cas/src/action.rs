//! The Action message, checked: scheduler and worker read it alike.

use std::time::Duration;

use bytes::Bytes;
use kiln_protos::{protobuf, reapi};
use prost::Message;

use crate::{Digest, DigestFunction};

/// Largest Action message, in bytes.
pub const MAX_ACTION_BYTES: u64 = 1 << 20;
/// Largest Command message, in bytes.
pub const MAX_COMMAND_BYTES: u64 = 16 << 20;

/// What is to be executed.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    pub command: Digest,
    pub input_root: Digest,
    /// `None`: the action names no timeout.
    pub timeout: Option<Duration>,
    /// `None`: clients before REAPI 2.2, and Buck2, name it in the Command alone.
    pub platform: Option<reapi::Platform>,
    pub do_not_cache: bool,
}

/// What is wrong with an Action message, with the name of the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidAction(String);

impl Action {
    /// Reads the blob with this digest, whose function is that of all digests in it.
    pub fn decode(data: Bytes, digest: &Digest) -> Result<Self, InvalidAction> {
        let action = reapi::Action::decode(data)
            .map_err(|error| InvalidAction(format!("blob {digest} is not an Action: {error}")))?;
        let function = digest.function;
        Ok(Self {
            command: checked("Action.command_digest", action.command_digest, function)?,
            input_root: checked("Action.input_root_digest", action.input_root_digest, function)?,
            timeout: timeout(action.timeout)?,
            platform: action.platform,
            do_not_cache: action.do_not_cache,
        })
    }
}

fn checked(
    field: &str,
    digest: Option<reapi::Digest>,
    function: DigestFunction,
) -> Result<Digest, InvalidAction> {
    let digest = digest.ok_or_else(|| InvalidAction(format!("{field} is not set")))?;
    Digest::from_wire(&digest, function).map_err(|error| InvalidAction(format!("{field}: {error}")))
}

/// Zero is how some clients write "none".
fn timeout(timeout: Option<protobuf::Duration>) -> Result<Option<Duration>, InvalidAction> {
    let Some(protobuf::Duration { seconds, nanos }) = timeout else { return Ok(None) };
    match (u64::try_from(seconds), u32::try_from(nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => {
            Ok(Some(Duration::new(seconds, nanos)).filter(|timeout| !timeout.is_zero()))
        }
        _ => Err(InvalidAction(format!(
            "Action.timeout: {seconds} s and {nanos} ns is not a duration that can be waited for"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(action: &reapi::Action) -> Result<Action, InvalidAction> {
        let data = Bytes::from(action.encode_to_vec());
        let digest = DigestFunction::Blake3.digest(&data);
        Action::decode(data, &digest)
    }

    fn whole() -> reapi::Action {
        let digest = Some(DigestFunction::Blake3.digest(b"x").to_wire());
        reapi::Action {
            command_digest: digest.clone(),
            input_root_digest: digest,
            ..Default::default()
        }
    }

    fn after(seconds: i64, nanos: i32) -> reapi::Action {
        reapi::Action { timeout: Some(protobuf::Duration { seconds, nanos }), ..whole() }
    }

    #[test]
    fn digests_are_of_the_actions_own_function() {
        let action = decoded(&whole()).unwrap();
        assert_eq!(action.command, DigestFunction::Blake3.digest(b"x"));
        assert_eq!((action.timeout, action.platform, action.do_not_cache), (None, None, false));
    }

    #[test]
    fn the_field_that_is_wrong_is_named() {
        let short = Some(reapi::Digest { hash: "ab".to_owned(), size_bytes: 1 });
        for (action, said) in [
            (reapi::Action { command_digest: None, ..whole() }, "Action.command_digest is not set"),
            (reapi::Action { input_root_digest: short, ..whole() }, "Action.input_root_digest: "),
            (after(-1, 0), "Action.timeout: -1 s"),
            (after(1, 1_000_000_000), "Action.timeout"),
        ] {
            let error = decoded(&action).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error} lacks {said}");
        }
        let noise = Bytes::from_static(b"noise\x01");
        let digest = DigestFunction::Sha256.digest(&noise);
        let error = Action::decode(noise, &digest).unwrap_err().to_string();
        assert!(error.contains("is not an Action"), "{error}");
    }

    #[test]
    fn a_timeout_of_zero_is_none() {
        assert_eq!(decoded(&after(0, 0)).unwrap().timeout, None);
        assert_eq!(decoded(&after(2, 5)).unwrap().timeout, Some(Duration::new(2, 5)));
    }
}
