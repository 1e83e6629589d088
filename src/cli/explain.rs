//! `kiln explain`.

use clap::Args;

use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use kiln_web::format::{self, encode};
use kiln_web::json::Explained;

/// Say where content comes from, and which releases hold it.
///
/// The content is named by its hash, or is that of a file on this machine. Exit code 1: nothing is known of it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln explain ./server                 # a file: its SHA-256 is asked for
  kiln explain sha256:7f3a...e1
  kiln explain 7f3a...e1/142 --json")]
pub struct ExplainCommand {
    /// A file, or a hash: sha256:HEX, HEX or HEX/SIZE
    #[arg(value_name = "FILE|DIGEST")]
    what: String,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl ExplainCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let hash = hash(&self.what)?;
        let instance = encode(&target.instance, false);
        let path = format!("/explain?instance={instance}&digest={hash}");
        let answer = Api::new(target)?.get(&path).await?;
        let found: Explained = api::read(answer.clone())?;
        api::print(answer, self.json, text)?;
        let is_known = !found.made.is_empty() || !found.releases.is_empty();
        Ok(if is_known { Exit::Done } else { Exit::Negative })
    }
}

fn hash(what: &str) -> Result<String, CliError> {
    let hex = what.rsplit(':').next().and_then(|it| it.split('/').next()).unwrap_or_default();
    if hex.len() == 64 && hex.bytes().all(|it| it.is_ascii_hexdigit()) {
        return Ok(hex.to_ascii_lowercase());
    }
    let failed = |error| {
        CliError::usage(format!("{what} is no hash, and cannot be read as a file: {error}"))
            .hint("name a file, or write sha256: and 64 hexadecimal digits")
    };
    let mut file = std::fs::File::open(what).map_err(failed)?;
    let mut hasher = kiln_cas::DigestFunction::Sha256.hasher();
    let mut chunk = vec![0; 64 << 10];
    loop {
        match std::io::Read::read(&mut file, &mut chunk).map_err(failed)? {
            0 => return Ok(hasher.finish().hex()),
            length => hasher.update(chunk.get(..length).unwrap_or_default()),
        }
    }
}

fn text(it: &Explained) -> String {
    let mut text = String::new();
    for name in &it.releases {
        let rejected = if it.rejected.contains(name) { ", which was rejected" } else { "" };
        text += &format!("in the release {name}{rejected}\n");
    }
    for made in &it.made {
        let how = if made.ran { "made by" } else { "written as the result of" };
        let paths = made.paths.join(", ");
        text += &format!(
            "{how} {} of {}{}\n  action      {}\n  invocation  {}\n  {}  {}\n  when        {}\n",
            if made.mnemonic.is_empty() { "an action" } else { &made.mnemonic },
            if made.target.is_empty() { "no target" } else { &made.target },
            if paths.is_empty() { String::new() } else { format!(", as {paths}") },
            made.action,
            made.invocation,
            if made.ran { "worker    " } else { "by        " },
            made.worker,
            format::utc(made.finished),
        );
        if made.ran {
            text += &format!("  sandbox     {}\n", made.enforced.join(", "));
        }
    }
    if text.is_empty() {
        text += "nothing here made it, and no release holds it: a client uploaded it, or its record has aged\n";
    }
    text
}
