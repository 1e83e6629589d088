//! `kiln token`.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};

use crate::auth::file::stanza;
use crate::auth::policy;
use crate::auth::roles::{Role, Roles};
use crate::cli::error::{CliError, Exit};
use crate::cli::text;

/// The prefix of every token, by which scanners for leaked secrets know one.
const PREFIX: &str = "kiln_";
/// Random bytes in a token: too many to guess, so that a plain hash of it tells nothing.
const RANDOM: usize = 32;
/// Longest file that may hold a token, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// Make tokens for an access file, which holds their hashes only.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln token new ci --role write-cache --role execute --out ci.token >> access.toml
  kiln token new laptops --role execute --instances main --instances 'team/*' --out laptop.token >> access.toml
  kiln token new web-1 --role agent --service api/prod --out web-1.token >> access.toml
  kiln token new lander --role queue-runner --queue app --out lander.token >> access.toml
  kiln token hash < old.token

Roles: read-cache, write-cache, execute, worker, release-manager, agent, queue, queue-runner, admin
(docs/security.md).")]
pub struct TokenCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a token: it goes into a file of its own, its entry for the access file to stdout
    New {
        /// How logs and messages call whoever has it
        name: String,
        #[arg(long = "role", value_name = "ROLE", required = true, value_parser = role())]
        roles: Vec<Role>,
        /// Instance names or patterns, e.g. main or team/*; without, all
        #[arg(long = "instances", value_name = "PATTERN")]
        instances: Vec<String>,
        /// For whose hosts an agent may speak: a service, or SERVICE/ENVIRONMENT
        #[arg(long = "service", value_name = "SERVICE", required_if_eq("roles", "agent"))]
        services: Vec<String>,
        /// Merge queues that may be changed or run, or patterns for their names
        #[arg(long = "queue", value_name = "PATTERN", required_if_eq_any([("roles", "queue"), ("roles", "queue-runner")]))]
        queues: Vec<String>,
        /// New file for the token, which only you can read
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// The hash that stands for a token in an access file
    Hash {
        /// File that holds it; without, stdin
        file: Option<PathBuf>,
    },
}

/// Shells complete the names.
fn role() -> impl TypedValueParser<Value = Role> {
    let names = Role::ALL.map(|(_, name)| name);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Role>())
}

impl TokenCommand {
    pub fn run(self) -> Result<Exit, CliError> {
        match self.what {
            What::New { name, roles, instances, services, queues, out } => {
                let token = new_token()?;
                write(&out, &token)?;
                let roles: Roles = roles.into_iter().collect();
                let hash = policy::hash(&token);
                text::print(&stanza(&name, &hash, roles, &instances, &services, &queues))?;
            }
            What::Hash { file } => {
                let token = read(file.as_deref())?;
                let hash = policy::hash(token.trim());
                let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
                text::print(&format!("{hex}\n"))?;
            }
        }
        Ok(Exit::Done)
    }
}

fn new_token() -> Result<String, CliError> {
    let mut random = [0; RANDOM];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut random))
        .map_err(|error| CliError::machine(format!("no random bytes: {error}")))?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)))
}

fn write(path: &Path, token: &str) -> Result<(), CliError> {
    let failed = |error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            let message = format!("{} is there already", path.display());
            return CliError::machine(message).hint(
                "a token is never written over another: name a new file with --out, or remove that one",
            );
        }
        CliError::machine(format!("cannot write the token to {}: {error}", path.display()))
    };
    let mut options = OpenOptions::new();
    // Never over an earlier token, which would be lost.
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(format!("{token}\n").as_bytes()).map_err(failed)
}

fn read(path: Option<&Path>) -> Result<String, CliError> {
    let mut token = String::new();
    let read = match path {
        Some(path) => kiln_net::files::read_text(path).map(|text| token = text),
        None => std::io::stdin().take(MAX_FILE).read_to_string(&mut token).map(drop),
    };
    read.map_err(|error| CliError::machine(format!("cannot read the token: {error}")))?;
    if token.trim().is_empty() {
        return Err(CliError::usage("there is no token to hash").hint("give a file, or use stdin"));
    }
    Ok(token)
}
