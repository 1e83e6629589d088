//! A pipeline's file, and what a run of it is begun with.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use kiln_ci::pipelines::file::{Declared, MAX_BYTES, read};
use kiln_net::causes::chain;

use crate::cli::error::CliError;

/// The text of a file, and what it declares. What is wrong with it is said before a server is asked.
pub fn declared(path: &Path) -> Result<(String, Declared), CliError> {
    let shown = path.display();
    let failed = |error| CliError::usage(format!("cannot read {shown}: {error}"));
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    // One byte more than it may have, so that what is longer is told as that.
    file.take(MAX_BYTES as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    let declared = read(&text).map_err(|error| {
        CliError::usage(format!("{shown}: {}", chain(&error)))
            .hint("docs/pipelines.md has every key of a pipeline")
    })?;
    Ok((text, declared))
}

/// Reads an input that is written as `NAME=VALUE`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Collects inputs by name; a name that is given twice is a usage error.
pub fn values(pairs: Vec<(String, String)>) -> Result<BTreeMap<String, String>, CliError> {
    let mut values = BTreeMap::new();
    for (name, value) in pairs {
        if values.insert(name.clone(), value).is_some() {
            return Err(CliError::usage(format!("the input {name:?} is given twice"))
                .hint("an input has one value"));
        }
    }
    Ok(values)
}
