//! `kiln pipeline run`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueHint};

use super::inputs::{declared, pair, values};
use super::watch;
use crate::cli::api::{self, Api};
use crate::cli::cas::put_directory;
use crate::cli::error::{CliError, Exit};
use crate::cli::impact::process::{ProcessError, ask};
use crate::cli::say::say;
use crate::cli::target::Target;
use kiln_web::json::{PipelineRequest, PipelineShown};

/// How long git may take to say at which branch or commit the sources are.
const LIMIT: Duration = Duration::from_secs(60);

/// Begin a run on a server, and watch it: what its stages print, line by line, until it ends
///
/// The run is the server's: it goes on when this command is ended, and when any frontend is. With --source the directory is stored
/// and is what commands find where they run.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln pipeline run kiln-pipeline.toml --source .
  kiln pipeline run kiln-pipeline.toml --source . --branch main --input version=1.4.2
  kiln pipeline run --name nightly --detach       # one that the server's operator declares
  kiln pipeline run --name app --trigger push --branch main --source . --detach   # in a hook of git
  id=$(kiln pipeline run kiln-pipeline.toml --detach --json | jq -r .run.id)

Exit codes:
  0  it passed; with --detach: it was begun
  1  it failed, was cancelled, or another run took its place
  6  it waits for people (--no-wait)

It takes the role execute; where stages release, promote, roll out, or run programs of the operator, release-manager or admin.")]
pub struct RunCommand {
    /// The file, in TOML
    #[arg(value_name = "FILE", required_unless_present = "name", conflicts_with = "name")]
    file: Option<PathBuf>,
    /// A pipeline that the server's operator declares
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    name: Option<String>,
    /// Say that this has happened, to a pipeline that waits for it
    #[arg(long, value_name = "TRIGGER", requires = "name", value_parser = ["push", "webhook"])]
    trigger: Option<String>,
    /// The directory of the sources: all of it is stored, so take a clean checkout
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    source: Option<PathBuf>,
    /// The branch [default: as git says of the sources]
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    branch: Option<String>,
    /// The commit [default: as git says of the sources]
    #[arg(long, value_name = "COMMIT", value_hint = ValueHint::Other)]
    commit: Option<String>,
    /// Where the sources come from
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    repository: Option<String>,
    /// A value of an input
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, value_hint = ValueHint::Other)]
    input: Vec<(String, String)>,
    /// Only begin it
    #[arg(long)]
    detach: bool,
    /// End when it waits for people
    #[arg(long, conflicts_with = "detach")]
    no_wait: bool,
    /// For programs: the run as JSON, when it was begun or has ended
    #[arg(long)]
    json: bool,
}

impl RunCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let text = self.file.as_deref().map(declared).transpose()?.map(|(text, _)| text);
        let root = match &self.source {
            Some(source) if source.is_dir() => Some(put_directory(target, source).await?),
            Some(source) => {
                let message = format!("{} is no directory", source.display());
                return Err(CliError::usage(message)
                    .hint("--source names the directory whose files stages see"));
            }
            None => None,
        };
        let source = self.source.as_deref();
        let branch = match self.branch {
            Some(branch) => branch,
            None => git(source, &["symbolic-ref", "--short", "HEAD"]).await,
        };
        let commit = match self.commit {
            Some(commit) => commit,
            None => git(source, &["rev-parse", "HEAD"]).await,
        };
        let request = PipelineRequest {
            text,
            name: self.name,
            trigger: self.trigger,
            instance: target.instance.clone(),
            root: root.map(|it| format!("{}/{}", it.hex(), it.size)),
            repository: self.repository,
            branch,
            commit,
            inputs: values(self.input)?,
        };
        let api = Api::new(target)?;
        let answer = api.post("/pipelines", &request).await?;
        let begun: PipelineShown = api::read(answer.clone())?;
        let id = &begun.run.id;
        if self.detach {
            let line = format!("{id}: {}/pipelines/{id}\n", api.base());
            api::print(answer, self.json, |_: &PipelineShown| line)?;
            return Ok(Exit::Done);
        }
        let until = if self.no_wait { watch::Until::Person } else { watch::Until::End };
        watch::until(&api, id, until, self.json).await
    }
}

/// The output of a git command in the directory of sources; empty where there is none or git fails.
async fn git(source: Option<&Path>, what: &[&str]) -> String {
    let Some(source) = source else { return String::new() };
    let arguments: Vec<OsString> = what.iter().map(OsString::from).collect();
    match ask(Path::new("git"), &arguments, source, LIMIT).await {
        Ok(said) => String::from_utf8_lossy(&said).trim().to_owned(),
        Err(error) => {
            // Sources need not be in a repository; one that does not answer is worth a word.
            if matches!(error, ProcessError::Slow { .. }) {
                say(&format!("warning: the branch or commit of the sources is not known: {error}"));
            }
            String::new()
        }
    }
}
