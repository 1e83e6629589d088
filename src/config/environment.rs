//! Variables of the environment that begin as Kiln's do and set no key.

use std::fmt;

use super::keys;

const PREFIX: &str = "KILN_";

/// Variables that commands of the client read, beside those of the keys (`src/cli/target.rs`).
const OF_COMMANDS: [&str; 9] = [
    "KILN_CA_FILE",
    "KILN_CLIENT_CERT",
    "KILN_CLIENT_KEY",
    "KILN_CONFIG",
    "KILN_INSTANCE",
    "KILN_QUEUE_STATE",
    "KILN_SERVER",
    "KILN_TOKEN",
    "KILN_TOKEN_FILE",
];

/// A variable that nobody reads.
#[derive(Debug, PartialEq, Eq)]
pub struct Unknown<'a> {
    variable: &'a str,
    /// Whether the variable begins with the name of a section, so that it can only be meant as a
    /// key.
    pub is_of_a_section: bool,
    pub nearest: Option<&'static str>,
}

impl<'a> Unknown<'a> {
    /// The variable, if it begins as Kiln's do and nobody reads it; `None`: it is for somebody
    /// else, or for a command.
    pub fn of(variable: &'a str) -> Option<Self> {
        let rest = variable.strip_prefix(PREFIX).filter(|_| !OF_COMMANDS.contains(&variable))?;
        let name = rest.to_lowercase();
        let is_of_a_section = sections()
            .any(|section| name.strip_prefix(section).is_some_and(|rest| rest.starts_with('_')));
        Some(Self { variable, is_of_a_section, nearest: nearest(&name) })
    }
}

impl fmt::Display for Unknown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in the environment sets nothing", self.variable)?;
        match self.nearest {
            Some(key) => write!(f, "; did you mean {} (the key {key})?", keys::variable(key)),
            None => Ok(()),
        }
    }
}

fn sections() -> impl Iterator<Item = &'static str> {
    let renamed = keys::RENAMED.iter().map(|(before, _)| *before);
    let names = keys::all().map(|key| key.name).chain(renamed);
    names.filter_map(|name| name.split_once('.')).map(|(section, _)| section)
}

/// The name of the key that is most like `name`: `data_dir` means `storage.data_dir`, and `workers`
/// the first key of that section.
fn nearest(name: &str) -> Option<&'static str> {
    let parts = |key: &&keys::Key| key.name.split_once('.').unwrap_or(("", key.name));
    let entry = keys::all().find(|key| parts(key).1 == name);
    let section = || keys::all().find(|key| parts(key).0 == name);
    let exact = entry.or_else(section).map(|key| key.name);
    exact.or_else(|| keys::nearest(&name.replacen('_', ".", 1)))
}

/// Whether a variable is one that Kubernetes or Docker's links set in every container for a service
/// named `kiln` or `kiln-...`: `KILN_REDIS_SERVICE_HOST`, `KILN_WORKER_PORT=tcp://10.0.0.1:80`,
/// `KILN_SERVER_PORT_8980_TCP_ADDR`.
pub fn is_of_a_service(variable: &str, value: &str) -> bool {
    let Some(rest) = variable.strip_prefix("KILN") else { return false };
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let of_port = |(_, port): (&str, &str)| {
        let mut parts = port.split('_');
        let is_number = parts.next().is_some_and(|number| number.parse::<u16>().is_ok());
        is_number && parts.next().is_some_and(|it| matches!(it, "TCP" | "UDP" | "SCTP"))
    };
    rest.ends_with("_SERVICE_HOST")
        || rest.ends_with("_SERVICE_PORT")
        || rest.contains("_SERVICE_PORT_")
        || (rest.ends_with("_PORT") && is_url)
        || rest.split_once("_PORT_").is_some_and(of_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_orchestrators_set_is_none_of_ours() {
        for (variable, value) in [
            ("KILN_SERVICE_HOST", "10.0.0.1"),
            ("KILN_PORT", "tcp://10.0.0.1:80"),
            ("KILN_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("KILN_REDIS_SERVICE_HOST", "10.0.0.1"),
            ("KILN_REDIS_SERVICE_PORT", "6379"),
            ("KILN_REDIS_SERVICE_PORT_CLIENT", "6379"),
            ("KILN_WORKER_PORT", "tcp://10.0.0.1:80"),
            ("KILN_SERVER_PORT_8980_TCP", "tcp://10.0.0.1:8980"),
            ("KILN_SERVER_PORT_8980_TCP_ADDR", "10.0.0.1"),
            ("KILN_S3_PORT_53_UDP_PROTO", "udp"),
        ] {
            assert!(is_of_a_service(variable, value), "{variable}");
        }
        for (variable, value) in [
            ("KILN_SERVER_LISTEN", "tcp://x"),
            ("KILN_SERVER_PORT", "8980"),
            ("KILN_WORKER_PORT_NUMBER", "1"),
            ("OTHER_SERVICE_HOST", "10.0.0.1"),
        ] {
            assert!(!is_of_a_service(variable, value), "{variable}");
        }
    }

    #[test]
    fn the_nearest_key_is_named() {
        for (variable, key) in [
            ("KILN_LISTEN", "server.listen"),
            ("KILN_DATA_DIR", "storage.data_dir"),
            ("KILN_BASE_URL", "server.base_url"),
            ("KILN_WORKERS", "workers.count"),
            ("KILN_WORKRS_COUNT", "workers.count"),
        ] {
            let unknown = Unknown::of(variable).unwrap();
            assert_eq!(
                (unknown.nearest, unknown.is_of_a_section),
                (Some(key), false),
                "{variable}"
            );
            let variable = keys::variable(key);
            assert!(unknown.to_string().contains(&format!("did you mean {variable}")), "{unknown}");
        }
        assert!(Unknown::of("KILN_STORAGE_LEESE").unwrap().is_of_a_section);
        assert!(Unknown::of("KILN_AUDIT_RATE").unwrap().is_of_a_section);
        assert_eq!(Unknown::of("KILN_SERVER"), None);
        assert_eq!(Unknown::of("PATH"), None);
    }
}
