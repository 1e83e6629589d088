//! `kiln man`: the manual pages, made from the same definitions as the help texts.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};

use crate::cli::error::{CliError, Exit};
use crate::cli::text;

/// Write the manual pages.
///
/// With --output, one page a command into a directory; else the page of `kiln` itself to stdout.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln man | man -l -
  kiln man --output ~/.local/share/man/man1")]
pub struct ManCommand {
    /// Directory to write kiln.1, kiln-serve.1, ... into; it is made if it is not there
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

impl ManCommand {
    pub fn run(self, command: Command) -> Result<Exit, CliError> {
        let command = without_help(command);
        match self.output {
            Some(directory) => {
                std::fs::create_dir_all(&directory)
                    .and_then(|()| write(&command, &directory))
                    .map_err(|error| {
                        let at = directory.display();
                        CliError::machine(format!("cannot write manual pages to {at}: {error}"))
                    })?;
            }
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(command).render(&mut page).map_err(|error| {
                    CliError::machine(format!("cannot make the manual page: {error}"))
                })?;
                text::print(&String::from_utf8_lossy(&page))?;
            }
        }
        Ok(Exit::Done)
    }
}

/// `kiln help status` is for terminals: `man kiln-status` says the same.
fn without_help(command: Command) -> Command {
    command.mut_subcommands(|inner| match inner.get_name() {
        "help" => inner.hide(true),
        _ => without_help(inner),
    })
}

/// A page for a command, and one for each below it.
fn write(command: &Command, directory: &Path) -> io::Result<()> {
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        write(inner, directory)?;
    }
    clap_mangen::Man::new(command.clone()).generate_to(directory).map(drop)
}
