//! `kiln release list` and `kiln release show`.

use clap::{Args, ValueHint};
use kiln_deploy::releases::ReleaseName;

use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text::Table;
use kiln_web::format::{bytes, counted, encode, short};
use kiln_web::json::{Release, Releases};

/// Characters of a column that people read.
const SHOWN: usize = 60;

/// List releases in the order of their names
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln release list
  kiln release list --json | jq -r '.releases[] | select(.rejected == null) | .name'")]
pub struct List {
    /// Most releases
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only those behind this one
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    after: Option<ReleaseName>,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// Show a release
#[derive(Debug, Args)]
pub struct Show {
    #[arg(value_name = "NAME", value_hint = ValueHint::Other)]
    name: ReleaseName,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// The path of the API at which a release is asked for; `what` stands behind `/releases/`.
pub fn path(what: &str, target: &Target, name: &ReleaseName) -> String {
    let instance = encode(&target.instance, false);
    format!("/releases/{what}?instance={instance}&name={}", encode(&name.to_string(), false))
}

impl List {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let after = self.after.map(|it| format!("&after={}", encode(&it.to_string(), false)));
        let instance = encode(&target.instance, false);
        let path = format!(
            "/releases?instance={instance}&limit={}{}",
            self.limit,
            after.unwrap_or_default()
        );
        api::print(Api::new(target)?.get(&path).await?, self.json, table)?;
        Ok(Exit::Done)
    }
}

impl Show {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let answer = Api::new(target)?.get(&path("show", target, &self.name)).await?;
        api::print(answer, self.json, shown)?;
        Ok(Exit::Done)
    }
}

fn table(it: &Releases) -> String {
    if it.releases.is_empty() {
        return "nothing is released yet\n".to_owned();
    }
    let mut table = Table::new(&["release", "target", "level", "manifest", "made", ""], &[2]);
    for release in &it.releases {
        table.row([
            short(&release.name, SHOWN),
            short(&release.target, SHOWN),
            release.build_level.to_string(),
            release.digest.clone(),
            release.created.clone(),
            if release.rejected.is_some() { "rejected" } else { "" }.to_owned(),
        ]);
    }
    let more = it.next_after.as_ref().map(|it| format!("more with --after {it}\n"));
    table.text("") + &more.unwrap_or_default()
}

pub fn shown(it: &Release) -> String {
    let size: u64 = it.content.iter().map(|it| it.size).sum();
    let mut text = format!(
        "{}\n  manifest    {}\n  target      {}\n  source      {}{}\n  invocation  {}\n  made        {} by {}\n  \
         size        {} in {}\n  closure     {} ({} written by clients), {}, {} directories missing\n  \
         level       SLSA build level {}\n",
        it.name,
        it.digest,
        it.target,
        it.source.as_deref().unwrap_or("nobody said which commit"),
        it.branch.as_ref().map(|it| format!(", branch {it}")).unwrap_or_default(),
        it.invocation,
        it.created,
        it.made_by,
        bytes(size),
        counted(it.content.len() as u64, "blob"),
        counted(it.closure.actions as u64, "action"),
        it.closure.written,
        counted(it.closure.sources as u64, "source"),
        it.closure.missing,
        it.build_level,
    );
    for because in &it.because {
        text += &format!("              for {because}\n");
    }
    for but in &it.but {
        text += &format!("              but {but}\n");
    }
    if let Some(rejected) = &it.rejected {
        text += &format!("  REJECTED    {} by {}: {}\n", rejected.at, rejected.by, rejected.reason);
    }
    text
}
