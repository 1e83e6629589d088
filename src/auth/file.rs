//! Access files (TOML): static tokens by their hashes, and grants of roles.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::value::Datetime;

use super::access::Scope;
use super::pattern::Pattern;
use super::policy::{Grant, Policy, StaticToken, Who};
use super::roles::{Role, Roles};

/// Most tokens and most grants in all files together.
const MAX_ENTRIES: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessFileError {
    #[error("cannot read the access file {path}: {message}")]
    Unreadable { path: PathBuf, message: String },
    #[error("access file {path}: {message}")]
    Malformed { path: PathBuf, message: String },
    #[error("access file {path}: {entry}: {problem}")]
    Entry { path: PathBuf, entry: String, problem: String },
    #[error(
        "the access files hold more than {MAX_ENTRIES} tokens or grants: take out those that are over, or grant by \
         patterns"
    )]
    TooMany,
    #[error(
        "the access files {files} give no role to anybody: add a [[token]] or a [[grant]] \
         (`kiln token new --help`)"
    )]
    Empty { files: String },
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<Token>,
    #[serde(default)]
    grant: Vec<Granted>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    name: String,
    sha256: String,
    roles: Vec<Role>,
    instances: Option<Vec<Pattern>>,
    services: Option<Vec<String>>,
    queues: Option<Vec<Pattern>>,
    expires: Option<Datetime>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Granted {
    anonymous: Option<bool>,
    certificate: Option<Pattern>,
    jwt: Option<BTreeMap<String, Pattern>>,
    roles: Vec<Role>,
    instances: Option<Vec<Pattern>>,
    services: Option<Vec<String>>,
    queues: Option<Vec<Pattern>>,
}

/// Reads all files into one policy.
pub fn read(paths: &[PathBuf]) -> Result<Policy, AccessFileError> {
    let (mut tokens, mut grants) = (Vec::new(), Vec::new());
    for path in paths {
        let text = kiln_net::files::read_text(path).map_err(|error| {
            AccessFileError::Unreadable { path: path.clone(), message: error.to_string() }
        })?;
        parse(path, &text, &mut tokens, &mut grants)?;
        if tokens.len() > MAX_ENTRIES || grants.len() > MAX_ENTRIES {
            return Err(AccessFileError::TooMany);
        }
    }
    if tokens.is_empty() && grants.is_empty() {
        let files: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(AccessFileError::Empty { files: files.join(", ") });
    }
    Ok(Policy::new(tokens, grants))
}

fn parse(
    path: &Path,
    text: &str,
    tokens: &mut Vec<StaticToken>,
    grants: &mut Vec<Grant>,
) -> Result<(), AccessFileError> {
    let file: File = toml::from_str(text).map_err(|error| AccessFileError::Malformed {
        path: path.to_owned(),
        // Its text quotes the line, which may hold a hash but never a token.
        message: error.to_string(),
    })?;
    let in_entry = |entry: String, problem: String| AccessFileError::Entry {
        path: path.to_owned(),
        entry,
        problem,
    };
    for token in file.token {
        let entry = format!("token {:?}", token.name);
        let token = token.checked().map_err(|problem| in_entry(entry.clone(), problem))?;
        if tokens.iter().any(|other: &StaticToken| other.name == token.name) {
            return Err(in_entry(entry, "the name is given twice".to_owned()));
        }
        tokens.push(token);
    }
    for (index, granted) in file.grant.into_iter().enumerate() {
        let grant = granted.checked();
        grants.push(grant.map_err(|problem| in_entry(format!("grant {}", index + 1), problem))?);
    }
    Ok(())
}

impl Token {
    fn checked(self) -> Result<StaticToken, String> {
        if self.name.is_empty() {
            return Err("the name is empty".to_owned());
        }
        let hash = parse_hash(&self.sha256).ok_or_else(|| {
            "sha256 is not the SHA-256 of a token in 64 hexadecimal digits; `kiln token hash` \
             prints it"
                .to_owned()
        })?;
        Ok(StaticToken {
            name: format!("token {}", self.name).into(),
            hash,
            scope: scope(self.roles, self.instances, self.services, self.queues)?,
            expires: self.expires.as_ref().map(seconds).transpose()?,
        })
    }
}

impl Granted {
    fn checked(self) -> Result<Grant, String> {
        let who = match (self.anonymous, self.certificate, self.jwt) {
            (Some(true), None, None) => Who::Anybody,
            (None, Some(name), None) => Who::Certificate(name),
            (None, None, Some(claims)) => Who::Jwt(claims.into_iter().collect()),
            _ => {
                return Err("say who gets the roles: one of anonymous = true, certificate = \
                            \"CN=…\" or jwt = { CLAIM = \"VALUE\" }"
                    .to_owned());
            }
        };
        Ok(Grant { who, scope: scope(self.roles, self.instances, self.services, self.queues)? })
    }
}

fn scope(
    roles: Vec<Role>,
    instances: Option<Vec<Pattern>>,
    services: Option<Vec<String>>,
    queues: Option<Vec<Pattern>>,
) -> Result<Scope, String> {
    let roles: Roles = roles.into_iter().collect();
    if roles.is_empty() {
        let names = Role::ALL.map(|(_, name)| name).join(", ");
        return Err(format!("roles is empty; there are {names}"));
    }
    let instances = instances.unwrap_or_else(|| vec![Pattern::everything()]);
    if instances.is_empty() {
        return Err("instances is empty; leave it out for all".to_owned());
    }
    if roles.contains(Role::Worker) && !instances.iter().any(Pattern::is_everything) {
        return Err("a worker runs actions of all instances: leave instances out".to_owned());
    }
    let services = hosts(roles, services)?;
    let queues = lanes(roles, queues.unwrap_or_default())?;
    Ok(Scope { roles, instances, services, queues })
}

/// The merge queues that an entry's roles are for. Roles for queues without names of queues are an
/// error, as are names without such roles.
fn lanes(roles: Roles, queues: Vec<Pattern>) -> Result<Vec<Pattern>, String> {
    let wanted = roles.contains(Role::Queue) || roles.contains(Role::QueueRunner);
    match (wanted, queues.is_empty()) {
        (true, true) => {
            Err("the merge queues are to be named: add queues = [\"app\"], or [\"*\"] for all"
                .to_owned())
        }
        (false, false) => Err("queues is for the roles queue and queue-runner".to_owned()),
        _ => Ok(queues),
    }
}

/// The services for whose hosts an agent speaks. A service that is named without an environment is
/// meant in all of them.
fn hosts(roles: Roles, services: Option<Vec<String>>) -> Result<Vec<Pattern>, String> {
    let services = services.unwrap_or_default();
    match (roles.contains(Role::Agent), services.is_empty()) {
        (true, true) => {
            Err("an agent runs releases of the services that are named: add services = \
                             [\"api\"], or [\"api/prod\"] for one environment"
                .to_owned())
        }
        (false, false) => Err("services is for the role agent".to_owned()),
        _ => Ok(services
            .into_iter()
            .map(|it| Pattern::from(if it.contains('/') { it } else { format!("{it}/*") }))
            .collect()),
    }
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u32> = text.chars().map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
    if digits.len() != 64 {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
        *byte = (pair[0] << 4 | pair[1]) as u8;
    }
    Some(hash)
}

/// A time as seconds since the Unix epoch: for a date its end, in UTC where no offset is given.
fn seconds(time: &Datetime) -> Result<i64, String> {
    let date = time.date.ok_or("expires has no date, e.g. 2027-01-31")?;
    let days = days_since_epoch(i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let of_day = time.time.map_or(86_400, |time| {
        let (hour, minute) = (i64::from(time.hour), i64::from(time.minute));
        hour * 3600 + minute * 60 + i64::from(time.second.unwrap_or(0))
    });
    let offset = match time.offset {
        Some(toml::value::Offset::Custom { minutes }) => i64::from(minutes) * 60,
        _ => 0,
    };
    Ok(days * 86_400 + of_day - offset)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years begin in March here, so that
/// the leap day is the last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// Writes the entry of an access file that `kiln token new` prints.
pub fn stanza(
    name: &str,
    hash: &[u8; 32],
    roles: Roles,
    instances: &[String],
    services: &[String],
    queues: &[String],
) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let list = |items: Vec<String>| {
        let items: Vec<_> = items.iter().map(|item| quoted(item)).collect();
        format!("[{}]", items.join(", "))
    };
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let roles = list(roles.iter().map(|role| role.to_string()).collect());
    let mut text =
        format!("[[token]]\nname = {}\nsha256 = \"{hex}\"\nroles = {roles}\n", quoted(name));
    if !instances.is_empty() {
        text.push_str(&format!("instances = {}\n", list(instances.to_vec())));
    }
    if !services.is_empty() {
        text.push_str(&format!("services = {}\n", list(services.to_vec())));
    }
    if !queues.is_empty() {
        text.push_str(&format!("queues = {}\n", list(queues.to_vec())));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn parsed(text: &str) -> Result<(Vec<StaticToken>, Vec<Grant>), String> {
        let (mut tokens, mut grants) = (Vec::new(), Vec::new());
        let result = parse(Path::new("access.toml"), text, &mut tokens, &mut grants);
        result.map(|()| (tokens, grants)).map_err(|error| error.to_string())
    }

    #[test]
    fn tokens_and_grants_are_read() {
        let text = format!(
            "[[token]]\nname = \"ci\"\nsha256 = \"{HASH}\"\nroles = [\"write-cache\"]\n\
             expires = 2027-01-31\n\
             [[grant]]\njwt = {{ groups = \"dev-*\" }}\nroles = [\"execute\"]\n\
             instances = [\"main\", \"team/*\"]\n\
             [[grant]]\ncertificate = \"CN=worker-*\"\nroles = [\"worker\"]\n\
             [[grant]]\nanonymous = true\nroles = [\"read-cache\"]\n"
        );
        let (tokens, grants) = parsed(&text).unwrap();
        assert_eq!(&*tokens[0].name, "token ci");
        assert_eq!(tokens[0].hash[..2], [0x9f, 0x86]);
        assert_eq!(tokens[0].expires, Some(1_801_440_000), "2027-02-01T00:00:00Z");
        assert!(tokens[0].scope.instances[0].is_everything());
        assert_eq!(grants.len(), 3);
        assert!(matches!(&grants[0].who, Who::Jwt(claims) if claims[0].0 == "groups"));
        assert_eq!(grants[0].scope.instances.len(), 2);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_entry() {
        let token = |rest: &str| format!("[[token]]\nname = \"ci\"\n{rest}");
        let hash = format!("sha256 = \"{HASH}\"\n");
        for (text, said) in [
            (token("sha256 = \"abc\"\nroles = [\"admin\"]"), "token \"ci\": sha256 is not"),
            (token(&format!("{hash}roles = []")), "token \"ci\": roles is empty"),
            (token(&format!("{hash}roles = [\"boss\"]")), "boss"),
            (token(&format!("{hash}rolls = [\"admin\"]")), "rolls"),
            (token(&format!("{hash}roles = [\"worker\"]\ninstances = [\"a\"]")), "all instances"),
            (token(&format!("{hash}roles = [\"admin\"]\ninstances = []")), "instances is empty"),
            (token(&format!("{hash}roles = [\"agent\"]")), "add services"),
            (token(&format!("{hash}roles = [\"execute\"]\nservices = [\"a\"]")), "role agent"),
            (token(&format!("{hash}roles = [\"queue\"]")), "add queues"),
            (token(&format!("{hash}roles = [\"execute\"]\nqueues = [\"a\"]")), "roles queue"),
            ("[[grant]]\nroles = [\"admin\"]".to_owned(), "grant 1: say who"),
            ("[[grant]]\nanonymous = false\nroles = [\"admin\"]".to_owned(), "grant 1: say who"),
            ("not toml".to_owned(), "access.toml"),
        ] {
            let error = parsed(&text).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        let one = token(&format!("{hash}roles = [\"admin\"]\n"));
        assert!(parsed(&format!("{one}{one}")).unwrap_err().contains("twice"));
    }

    #[test]
    fn what_is_printed_for_a_new_token_is_read_back() {
        let roles = [Role::Execute, Role::WriteCache].into_iter().collect();
        let text = stanza("a \"b\"", &[7; 32], roles, &["main".to_owned()], &[], &[]);
        let (tokens, _) = parsed(&text).unwrap();
        assert_eq!((&*tokens[0].name, tokens[0].hash), ("token a \"b\"", [7; 32]));
        assert_eq!(tokens[0].scope.roles, roles);
        assert_eq!(tokens[0].scope.instances, [Pattern::from("main".to_owned())]);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2024-12-31", 1_735_689_600),
            ("2027-01-31T01:00:00+01:00", 1_801_353_600),
        ] {
            assert_eq!(seconds(&text.parse().unwrap()), Ok(expected), "{text}");
        }
        assert!(seconds(&"10:00:00".parse().unwrap()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_text_never_panics(text: String) {
            let _ = parsed(&text);
        }
    }
}
