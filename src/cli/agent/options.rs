//! The options of `kiln agent`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Args, ValueHint};
use kiln_deploy::agent::{Hook, Hooks, Program};
use kiln_deploy::fleet::{check_address, check_label, check_name};
use kiln_deploy::oci::Repository;
use kiln_deploy::releases::Expected;

use crate::cli::error::CliError;
use crate::config::{parse_size, parse_time};

#[derive(Debug, Args)]
pub struct Options {
    /// The service whose releases run here
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    pub service: Option<String>,
    /// Its environment
    #[arg(long, value_name = "NAME", default_value = "prod", value_hint = ValueHint::Other)]
    pub environment: String,
    /// How this host is called; without, by its host name
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Hostname)]
    pub name: Option<String>,
    /// What rollouts choose hosts by
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Where the service is reached: balancers and probes use it
    #[arg(long, value_name = "HOST:PORT", value_hint = ValueHint::Other, value_parser = address)]
    pub address: Option<String>,
    /// Where versions are kept: `current` in it leads to the one that runs
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
    /// Whom to trust: a public key in PEM, or a policy of keys in JSON. It is read anew for each version
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// Releases of another repository are refused
    #[arg(long, value_name = "REPOSITORY", value_hint = ValueHint::Other)]
    pub repository: Option<Repository>,
    /// The builder that must have built a release
    #[arg(long, value_name = "URI", value_hint = ValueHint::Other)]
    pub builder: Option<String>,
    /// The source that it must be built from: git+URL, or git+URL@COMMIT
    #[arg(long, value_name = "URI", value_hint = ValueHint::Other)]
    pub source: Option<String>,
    /// The branch that must be named in it; the server does not see it
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    pub branch: Option<String>,
    /// The lowest SLSA build level that it must reach
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=3))]
    pub level: Option<u64>,
    /// The program of a version, kept running; without, hooks tell whoever keeps it running
    #[arg(long, value_name = "COMMAND", value_hint = ValueHint::CommandString)]
    pub run: Option<String>,
    /// How long the program may take to end after SIGTERM, before it is killed
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = ValueParser::from(parse_time))]
    pub grace: Duration,
    /// Run before the switch: where it fails, nothing is switched
    #[arg(long, value_name = "COMMAND", value_hint = ValueHint::CommandString)]
    pub before: Option<String>,
    /// Run after it: where it fails, the version before is switched back
    #[arg(long, value_name = "COMMAND", value_hint = ValueHint::CommandString)]
    pub after: Option<String>,
    /// How long either of them may take, before it is killed with all that it started
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = ValueParser::from(parse_time))]
    pub hook_timeout: Duration,
    /// Says whether what runs is well: an address (200 to 399 is well) or a command (exit code 0 is)
    #[arg(long, value_name = "URL|COMMAND", value_hint = ValueHint::Other)]
    pub health: Option<String>,
    /// How often it is asked
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = ValueParser::from(parse_time))]
    pub health_every: Duration,
    /// How long it may take
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = ValueParser::from(parse_time))]
    pub health_timeout: Duration,
    /// Share pieces of releases with other agents of the service: this is where they connect to; without, nothing is shared
    #[arg(long, value_name = "ADDR", value_hint = ValueHint::Other)]
    pub peers_listen: Option<SocketAddr>,
    /// How others reach that address, if it is not as it is written
    #[arg(long, value_name = "HOST:PORT", value_hint = ValueHint::Other, value_parser = address, requires = "peers_listen")]
    pub peers_address: Option<String>,
    /// The label by which agents are near each other: those of one value share before others
    #[arg(long, value_name = "LABEL", default_value = "zone", value_hint = ValueHint::Other)]
    pub near: String,
    /// Bytes in a second that are given to other agents, all together
    #[arg(long, value_name = "SIZE", value_parser = size, value_hint = ValueHint::Other)]
    pub upload_rate: Option<u64>,
    /// Bytes in a second that are fetched
    #[arg(long, value_name = "SIZE", value_parser = size, value_hint = ValueHint::Other)]
    pub download_rate: Option<u64>,
    /// Bytes that are kept of versions as they came, for other agents and for what the next version has in common with them
    #[arg(long, value_name = "SIZE", default_value = "8GiB", value_parser = size, value_hint = ValueHint::Other)]
    pub keep_content: u64,
    /// Within it a version has to be well that was switched to; else the one before it is switched back
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = ValueParser::from(parse_time))]
    pub ready_within: Duration,
}

fn address(text: &str) -> Result<String, String> {
    check_address(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| "write it as 512MiB, or 10GB".to_owned())
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    check_label(name, value).map_err(|error| error.to_string())?;
    Ok((name.to_owned(), value.to_owned()))
}

fn needed<T>(given: Option<T>, flag: &str, why: &str) -> Result<T, CliError> {
    given.ok_or_else(|| {
        CliError::usage(format!("{flag} is missing: {why}"))
            .hint("`kiln agent --help` has examples; `kiln agent list` shows the hosts of a server")
    })
}

/// A command line, as the shell reads it.
pub fn shell(command: &str, timeout: Duration) -> Hook {
    let arguments = vec!["-c".to_owned(), command.to_owned(), "kiln-agent".to_owned()];
    Hook { program: "/bin/sh".to_owned(), arguments, timeout }
}

impl Options {
    pub fn service(&self) -> Result<String, CliError> {
        needed(self.service.clone(), "--service", "whose releases are to run here?")
    }

    pub fn dir(&self) -> Result<PathBuf, CliError> {
        let dir = needed(self.dir.clone(), "--dir", "where are versions to be kept?")?;
        // What runs in a version is somewhere else.
        std::path::absolute(&dir)
            .map_err(|error| CliError::usage(format!("--dir {}: {error}", dir.display())))
    }

    pub fn key(&self) -> Result<PathBuf, CliError> {
        let why = "without a key that is trusted nothing may run";
        let key = needed(self.key.clone(), "--key", why)?;
        std::path::absolute(&key)
            .map_err(|error| CliError::usage(format!("--key {}: {error}", key.display())))
    }

    /// The name of this host that the options give, else the machine's own.
    pub fn name(&self) -> Result<String, CliError> {
        let machine = || nix::unistd::gethostname().ok()?.into_string().ok();
        let name =
            needed(self.name.clone().or_else(machine), "--name", "this machine has no name")?;
        check_name(&name).map_err(|error| {
            CliError::usage(error.to_string()).hint("name this host with --name")
        })?;
        Ok(name)
    }

    pub fn labels(&self) -> BTreeMap<String, String> {
        self.labels.iter().cloned().collect()
    }

    pub fn expected(&self) -> Expected {
        Expected {
            name: None,
            builder: self.builder.clone(),
            source: self.source.clone(),
            branch: self.branch.clone(),
            level: self.level,
        }
    }

    pub fn hooks(&self) -> Hooks {
        let hook = |it: &Option<String>| it.as_ref().map(|it| shell(it, self.hook_timeout));
        Hooks { before: hook(&self.before), after: hook(&self.after) }
    }

    /// The shell becomes the program: what is told to end is the program itself.
    pub fn program(&self) -> Option<Program> {
        let run = self.run.as_ref()?;
        let arguments = vec!["-c".to_owned(), format!("exec {run}")];
        Some(Program { program: "/bin/sh".to_owned(), arguments, grace: self.grace })
    }
}
