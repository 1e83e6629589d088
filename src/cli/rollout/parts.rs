//! Reads what the commands need that try a declaration by hand: the operator's file of parts, and
//! which target serves which version.

use std::path::{Path, PathBuf};

use clap::Args;
use kiln_deploy::rollouts::parts::{Member, Place};
use kiln_deploy::toml::{Fields, TableError, document, nearest};

use crate::cli::error::CliError;

#[derive(Debug, Args)]
pub struct Versions {
    /// What is rolled out
    #[arg(long, default_value = "service")]
    service: String,

    /// The environment that it is rolled out to
    #[arg(long, default_value = "try")]
    environment: String,

    /// A target of the new version; may be given again
    #[arg(long, value_name = "NAME=HOST:PORT", value_parser = member)]
    canary: Vec<Named>,

    /// A target of the old version; may be given again
    #[arg(long, value_name = "NAME=HOST:PORT", value_parser = member)]
    baseline: Vec<Named>,
}

/// A target with its address.
#[derive(Debug, Clone)]
struct Named(Member);

fn member(text: &str) -> Result<Named, String> {
    let (name, address) = text.split_once('=').ok_or("expected NAME=HOST:PORT")?;
    Ok(Named(Member { name: name.to_owned(), address: address.to_owned() }))
}

impl Versions {
    pub fn place(&self) -> Place {
        Place { service: self.service.clone(), environment: self.environment.clone() }
    }

    pub fn canary(&self) -> Vec<Member> {
        self.canary.iter().map(|it| it.0.clone()).collect()
    }

    pub fn baseline(&self) -> Vec<Member> {
        self.baseline.iter().map(|it| it.0.clone()).collect()
    }
}

/// Reads `[kind.name]` of a file of parts by `read`. A part that is missing or wrong is a usage
/// error.
pub fn part<T>(
    file: &Path,
    kind: &str,
    name: &str,
    read: impl FnOnce(&Fields<'_>) -> Result<T, TableError>,
) -> Result<T, CliError> {
    let shown = file.display();
    let text = kiln_net::files::read_text(file);
    let text = text.map_err(|error| CliError::usage(format!("cannot read {shown}: {error}")))?;
    let found = document(&text, |top| {
        let all = top.need(kind)?.fields()?;
        let Some(field) = all.get(name) else {
            let known = all.entries(usize::MAX)?;
            let near = nearest(name, known.iter().map(|(name, _)| name.as_str()));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            return Err(all.error(format!("there is no [{kind}.{name}]{hint}")));
        };
        read(&field.fields()?)
    });
    found.map_err(|error| CliError::usage(format!("{shown}: {error}")))
}

/// The argument that is the file.
#[derive(Debug, Args)]
pub struct PartsFile {
    /// The operator's file with [traffic.NAME] and [signals.NAME]
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}
