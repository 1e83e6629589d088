//! `kiln index`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use kiln_cas::StoreError;
use kiln_cas::stores::SharedIndex;
use kiln_cas::stores::indexed::Rebuilt;

use super::flags::{Flag, FlagTable, Flags};
use crate::cli::error::{CliError, Exit};
use crate::cli::process::settings;
use crate::cli::say::say;
use crate::cli::text;
use crate::config::{Settings, shared_storage};
use kiln_web::format::{bytes, count, counted};

/// Look at and rebuild a fleet's index of blobs.
///
/// Asks Redis and S3 themselves, so it works while no server runs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln index show --redis redis://redis:6379 --s3 s3://builds/kiln
  kiln index rebuild --config kiln.toml     # after Redis lost its data")]
pub struct IndexCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// How many blobs the index knows
    Show(Place),
    /// Read from S3 which blobs there are; servers may go on meanwhile
    Rebuild(Place),
}

/// The table of which flags set which keys.
#[derive(Debug)]
pub struct OfIndex;

impl FlagTable for OfIndex {
    const FLAGS: &'static [Flag] =
        &[Flag("--redis", "redis.url", "URL"), Flag("--s3", "s3.url", "URL")];
}

#[derive(Debug, Args)]
struct Place {
    /// Configuration file (TOML)
    #[arg(long, env = "KILN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags<OfIndex>,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl Place {
    fn settings(&self) -> Result<Settings, CliError> {
        Ok(settings(self.config.as_ref(), self.flags.values.clone())?)
    }

    async fn open(&self, settings: &Settings) -> Result<SharedIndex, CliError> {
        let config = shared_storage(settings)?.ok_or_else(|| {
            CliError::usage("no fleet is configured").hint(
                "give --redis and --s3, or a --config with redis.url and s3.url; \
                 a server without them has no such index",
            )
        })?;
        SharedIndex::open(&config).await.map_err(unusable)
    }
}

impl IndexCommand {
    pub async fn run(self) -> Result<Exit, CliError> {
        match self.what {
            What::Show(place) => show(&place).await,
            What::Rebuild(place) => rebuild(&place).await,
        }
    }
}

async fn show(place: &Place) -> Result<Exit, CliError> {
    let index = place.open(&place.settings()?).await?;
    let usage = index.usage().await.map_err(unusable)?;
    let complete = index.is_complete().await.map_err(unusable)?;
    if place.json {
        let json = serde_json::json!({
            "blobs": usage.blobs, "bytes": usage.bytes, "pending": usage.pending,
            "complete": complete,
        });
        text::print_json(&json)?;
    } else {
        text::print(&format!(
            "blobs    {} ({})\npending  {} small ones are still to be written to S3\n",
            count(usage.blobs),
            bytes(usage.bytes),
            count(usage.pending),
        ))?;
    }
    if complete {
        return Ok(Exit::Done);
    }
    say("the index is incomplete: S3 holds blobs that it does not know");
    say("hint: run `kiln index rebuild` with the same options; servers may go on meanwhile");
    Ok(Exit::Negative)
}

async fn rebuild(place: &Place) -> Result<Exit, CliError> {
    let settings = place.settings()?;
    let index = place.open(&settings).await?;
    let is_terminal = std::io::stderr().is_terminal();
    let mut progress = |so_far: &Rebuilt| {
        if is_terminal {
            // A terminal that is gone needs no progress.
            let _ = write!(std::io::stderr(), "\r{} objects read   ", count(so_far.objects));
        }
    };
    let lease = settings.duration("storage.lease");
    let rebuilt = index.rebuild(lease, &mut progress).await;
    if is_terminal {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    let rebuilt = rebuilt.map_err(unusable)?;
    if place.json {
        let json = serde_json::json!({
            "objects": rebuilt.objects, "blobs": rebuilt.blobs, "bytes": rebuilt.bytes,
            "spare": rebuilt.spare,
        });
        text::print_json(&json)?;
    } else {
        text::print(&format!(
            "in the index: {} ({}) from {}\n",
            counted(rebuilt.blobs, "blob"),
            bytes(rebuilt.bytes),
            counted(rebuilt.objects, "object")
        ))?;
    }
    Ok(Exit::Done)
}

fn unusable(error: StoreError) -> CliError {
    match error {
        StoreError::Unavailable(cause) => CliError::machine(cause.to_string())
            .hint("correct redis.url, s3.url and the credentials, or try again"),
        StoreError::Config(message) => CliError::usage(message.to_string()),
        error => CliError::machine(error.reason()),
    }
}
