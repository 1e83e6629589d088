//! Names that agents choose. They stand in keys of records, on pages and in configurations of balancers.

use crate::rollouts::parts::Place;

/// Bytes of a name of a service, an environment or a host.
const MAX_NAME: usize = 100;
/// Labels of one agent, and bytes of the value of one.
pub const MAX_LABELS: usize = 32;
const MAX_VALUE: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameProblem {
    #[error(
        "{0:?} is no name: 1 to {MAX_NAME} letters, digits, dots, hyphens and underscores, with a letter or digit first"
    )]
    Name(String),
    #[error("the value of the label {0:?} is no line of text of at most {MAX_VALUE} bytes")]
    Value(String),
    #[error("an agent has {0} labels; at most {MAX_LABELS} are taken")]
    Labels(usize),
    #[error("{0:?} is no address such as host:8080")]
    Address(String),
    #[error("a fingerprint of a certificate is 64 lowercase hexadecimal digits")]
    Fingerprint,
    #[error("{0} is too long")]
    TooLong(&'static str),
}

fn shown(text: &str) -> String {
    text.chars().take(160).collect()
}

pub fn check_name(name: &str) -> Result<(), NameProblem> {
    let first = name.bytes().next().is_some_and(|it| it.is_ascii_alphanumeric());
    let all = name.bytes().all(|it| it.is_ascii_alphanumeric() || b"._-".contains(&it));
    (first && all && name.len() <= MAX_NAME)
        .then_some(())
        .ok_or_else(|| NameProblem::Name(shown(name)))
}

/// The name of an agent, and those of its place.
pub fn check_agent(place: &Place, name: &str) -> Result<(), NameProblem> {
    check_name(&place.service)?;
    check_name(&place.environment)?;
    check_name(name)
}

pub fn check_label(name: &str, value: &str) -> Result<(), NameProblem> {
    check_name(name)?;
    let is_line = value.len() <= MAX_VALUE && !value.chars().any(char::is_control);
    is_line.then_some(()).ok_or_else(|| NameProblem::Value(shown(name)))
}

/// `host:port`, where the host may be an address in brackets.
pub fn check_address(address: &str) -> Result<(), NameProblem> {
    let parts = address.rsplit_once(':');
    let is_host = |it: &str| {
        !it.is_empty()
            && it.len() <= 253
            && it.bytes().all(|it| it.is_ascii_alphanumeric() || b".-_:[]%".contains(&it))
    };
    parts
        .filter(|(host, port)| is_host(host) && port.parse::<u16>().is_ok_and(|it| it > 0))
        .map(drop)
        .ok_or_else(|| NameProblem::Address(shown(address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_wherever_they_stand() {
        for good in ["a", "web-1.example", "A_1"] {
            assert_eq!(check_name(good), Ok(()));
        }
        let long = "a".repeat(101);
        for bad in ["", ".", "..", "-x", "_x", "a/b", "a b", "ä", "a\n", "*", long.as_str()] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert!(check_label("zone", "eu west 1").is_ok());
        assert!(check_label("zone", "a\nb").is_err() && check_label("a=b", "").is_err());
        for good in ["web-1:80", "10.0.0.1:8080", "[::1]:65535"] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for bad in ["", ":80", "web", "web:0", "web:65536", "web:80; rm", "a b:1"] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }
}
