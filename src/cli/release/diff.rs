//! `kiln release diff`.

use clap::{Args, ValueHint};
use kiln_deploy::releases::ReleaseName;

use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use kiln_web::format::encode;
use kiln_web::json::{ReleaseChanges, ReleaseDifference};

/// Say what differs between what two releases were made of; exit code 1 where something does
#[derive(Debug, Args)]
pub struct Diff {
    #[arg(value_name = "OLD", value_hint = ValueHint::Other)]
    old: ReleaseName,
    #[arg(value_name = "NEW", value_hint = ValueHint::Other)]
    new: ReleaseName,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl Diff {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let of = |it: &ReleaseName| encode(&it.to_string(), false);
        let instance = encode(&target.instance, false);
        let path = format!(
            "/releases/diff?instance={instance}&old={}&new={}",
            of(&self.old),
            of(&self.new)
        );
        let answer = Api::new(target)?.get(&path).await?;
        let found: ReleaseDifference = api::read(answer.clone())?;
        api::print(answer, self.json, text)?;
        let parts = [&found.sources, &found.actions, &found.images, &found.packages];
        let differs = parts.iter().any(|it| it.added + it.removed + it.changed > 0);
        let same = found.same_content && found.old_source == found.new_source && !differs;
        Ok(if same { Exit::Done } else { Exit::Negative })
    }
}

fn text(it: &ReleaseDifference) -> String {
    let mut text = match it.same_content {
        true => format!("{} and {} are the same content\n", it.old, it.new),
        false => String::new(),
    };
    if it.old_source != it.new_source {
        let [old, new] =
            [&it.old_source, &it.new_source].map(|it| it.as_deref().unwrap_or("nobody said"));
        text += &format!("commit: {old} -> {new}\n");
    }
    for (what, changes) in [
        ("packages", &it.packages),
        ("sources", &it.sources),
        ("actions", &it.actions),
        ("images", &it.images),
    ] {
        text += &lines(what, changes);
    }
    text
}

fn lines(what: &str, it: &ReleaseChanges) -> String {
    let mut text =
        format!("{what}: {} added, {} removed, {} changed\n", it.added, it.removed, it.changed);
    for change in &it.first {
        let sign = match change.kind.as_str() {
            "added" => '+',
            "removed" => '-',
            _ => '~',
        };
        let how = change.what.join(", ");
        let how = if how.is_empty() { how } else { format!(" ({how})") };
        text += &format!("  {sign} {}{how}\n", change.name);
    }
    text
}
