//! `kiln serve`.

use std::path::PathBuf;

use clap::Args;

use super::flags::{Flag, FlagTable, Flags};
use super::say::say;
use super::signals::Signals;
use super::text;
use crate::cli::error::{CliError, Exit};
use crate::cli::process::{raise_limits, settings};
use crate::config::{log_options, serve_options};
use crate::serve::{Ready, Server};
use crate::telemetry;
use kiln_web::format::{buck2_address, grpc_address};

/// Run a whole Kiln: storage, scheduler, sandboxed workers, web pages, on one port.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln serve
  kiln serve --listen 127.0.0.1:9000 --data-dir /var/lib/kiln --workers 8
  kiln serve --listen 0.0.0.0:8980 --base-url https://build.example:8980 \\
    --tls-cert server.pem --tls-key server.key --access-file access.toml
  kiln serve --workers 0      # workers join with: kiln worker --server http://HOST:8980
  kiln serve --workers 0 --redis redis://redis:6379 --s3 s3://builds/kiln   # one of several

Every flag has a key in the configuration file: kiln config default")]
pub struct Serve {
    #[command(flatten)]
    flags: Flags<OfServe>,
    /// Configuration file (TOML)
    #[arg(long, env = "KILN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The table of which flags set which keys.
#[derive(Debug)]
pub struct OfServe;

impl FlagTable for OfServe {
    const FLAGS: &'static [Flag] = &[
        Flag("--listen", "server.listen", "ADDR"),
        Flag("--base-url", "server.base_url", "URL"),
        Flag("--data-dir", "storage.data_dir", "DIR"),
        Flag("--workers", "workers.count", "N"),
        Flag("--insecure", "server.insecure", ""),
        Flag("--tls-cert", "tls.cert", "FILE"),
        Flag("--tls-key", "tls.key", "FILE"),
        Flag("--tls-client-ca", "tls.client_ca", "FILE"),
        Flag("--access-file", "auth.access_files", "FILE"),
        Flag("--sandbox", "workers.sandbox", "MODE"),
        Flag("--allow-image", "images.allow", "PREFIX"),
        Flag("--property", "workers.properties", "NAME=VALUE"),
        Flag("--max-size", "storage.max_size", "SIZE"),
        Flag("--redis", "redis.url", "URL"),
        Flag("--s3", "s3.url", "URL"),
        Flag("--allow-cache-updates", "cache.allow_updates", ""),
    ];
}

impl Serve {
    pub fn run(self) -> Result<Exit, CliError> {
        let settings = settings(self.config.as_ref(), self.flags.values)?;
        let options = serve_options(&settings)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| CliError::machine(format!("cannot start threads: {error}")))?;
        runtime.block_on(async {
            telemetry::start(log_options(&settings)?);
            raise_limits();
            let mut signals = Signals::listen()?;
            // It may wait for Redis; who wants it to end need not wait with it.
            let server = tokio::select! {
                started = Server::start(options) => started?,
                () = signals.next() => {
                    return Err(CliError::machine("ended before the server was ready"));
                }
            };
            // Who serves need not be read.
            if let Err(error) = text::print(&introduction(&server.ready)) {
                tracing::warn!("{}", error.message);
            }
            signals.next().await;
            say("draining; a second signal ends at once");
            tokio::select! {
                ended = server.shutdown() => ended?,
                () = signals.next() => {
                    return Err(CliError::machine("ended before the drain was over"));
                }
            }
            Ok(Exit::Done)
        })
    }
}

/// The lines for people and programs that a server prints once it is ready.
fn introduction(ready: &Ready) -> String {
    let workers = match ready.slots {
        0 => "no workers here; they join with `kiln worker --server URL`".to_owned(),
        1 => "1 sandboxed action at a time".to_owned(),
        slots => format!("{slots} sandboxed actions at a time"),
    };
    let shared = ready.shared.iter().map(|shared| format!("  shared     {shared}\n"));
    let lacking = ready.not_enforced.iter();
    let lacking = lacking.map(|what| format!("  sandbox    not enforced here: {what}\n"));
    let links = if ready.follows_callers { FOLLOWS_CALLERS } else { "" };
    let address = grpc_address(&ready.base_url);
    let (buck2, tls) = buck2_address(&ready.base_url);
    format!(
        "kiln {} is ready: {workers}\n\
         \x20 listens    {}\n\
         \x20 data       {}\n{}{}\
         \x20 web pages  {}/\n{links}\
         \x20 bazel      bazel build --remote_executor={address} //...\n\
         \x20 buck2      [buck2_re_client] engine_address, cas_address, action_cache_address = {buck2}; \
         tls = {tls}\n",
        env!("CARGO_PKG_VERSION"),
        ready.address,
        ready.data_dir.display(),
        shared.collect::<String>(),
        lacking.collect::<String>(),
        ready.base_url,
    )
}

/// The line of the introduction for a server that listens on every address of this machine.
const FOLLOWS_CALLERS: &str = "  links      name this server as each client does, elsewhere this machine; \
                               --base-url https://NAME gives it one name\n";
