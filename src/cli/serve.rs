//! `kiln serve`.

use std::path::PathBuf;

use clap::Args;

use super::signals::Signals;
use super::{CliError, Exit, given, raise_open_files, settings};
use crate::config::{Settings, serve_options};
use crate::serve::{Ready, Server};
use crate::telemetry;
use crate::web::format::{buck2_address, grpc_address};

/// Run a whole Kiln: storage, scheduler, sandboxed workers, web pages, on one port.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln serve
  kiln serve --listen 127.0.0.1:9000 --data-dir /var/lib/kiln --workers 8
  kiln serve --listen 0.0.0.0:8980 --tls-cert server.pem --tls-key server.key --access-file access.toml
  kiln serve --workers 0      # workers join with: kiln worker --server http://HOST:8980
  kiln serve --workers 0 --redis redis://redis:6379 --s3 s3://builds/kiln   # one of several

Every flag has a key in the configuration file: kiln config default")]
pub struct Serve {
    /// Address for gRPC and HTTP; port 0 takes a free one [default: 127.0.0.1:8980]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where everything is kept [default: /var/lib/kiln for root, else ~/.local/share/kiln]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Actions run at a time on this machine; 0: none [default: one a core]
    #[arg(long, value_name = "N")]
    workers: Option<String>,
    /// Configuration file (TOML)
    #[arg(long, env = "KILN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Allow an address that other machines can reach, without authentication
    #[arg(long)]
    insecure: bool,
    /// Serve TLS with this certificate chain (PEM); read again when it changes
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// The private key (PEM) of --tls-cert
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// Take client certificates of these authorities (PEM): mutual TLS
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<String>,
    /// File (TOML) that says who may do what; may be given several times
    #[arg(long = "access-file", value_name = "FILE")]
    access_files: Vec<String>,
    /// best-effort, or required: refuse to start when this machine cannot enforce everything
    #[arg(long, value_name = "MODE")]
    sandbox: Option<String>,
    /// Registry, repository or directory (oci:/DIR) of container images that actions may name
    #[arg(long = "allow-image", value_name = "PREFIX")]
    allow_images: Vec<String>,
    /// Platform property that the workers here offer; replaces the default ones
    #[arg(long = "property", value_name = "NAME=VALUE")]
    properties: Vec<String>,
    /// Most bytes of blobs on disk, e.g. 100GB
    #[arg(long, value_name = "SIZE")]
    max_size: Option<String>,
    /// Redis of a fleet, e.g. redis://redis:6379; passwords in KILN_REDIS_URL or a file
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Where a fleet keeps its blobs: s3://BUCKET/PREFIX
    #[arg(long, value_name = "URL")]
    s3: Option<String>,
    /// Let clients write action results, as a plain remote cache does
    #[arg(long)]
    allow_cache_updates: bool,
}

impl Serve {
    fn settings(&self) -> Result<Settings, CliError> {
        let mut flags = Vec::new();
        given(&mut flags, "--listen", "server.listen", self.listen.as_ref());
        given(&mut flags, "--data-dir", "storage.data_dir", self.data_dir.as_ref());
        given(&mut flags, "--workers", "workers.count", self.workers.as_ref());
        given(&mut flags, "--tls-cert", "tls.cert", self.tls_cert.as_ref());
        given(&mut flags, "--tls-key", "tls.key", self.tls_key.as_ref());
        given(&mut flags, "--tls-client-ca", "tls.client_ca", self.tls_client_ca.as_ref());
        let files = (!self.access_files.is_empty()).then(|| self.access_files.join(","));
        given(&mut flags, "--access-file", "auth.access_files", files.as_ref());
        given(&mut flags, "--sandbox", "workers.sandbox", self.sandbox.as_ref());
        given(&mut flags, "--max-size", "storage.max_size", self.max_size.as_ref());
        given(&mut flags, "--redis", "redis.url", self.redis.as_ref());
        given(&mut flags, "--s3", "s3.url", self.s3.as_ref());
        given(&mut flags, "--insecure", "server.insecure", self.insecure.then_some(&true));
        let updates = self.allow_cache_updates.then_some(&true);
        given(&mut flags, "--allow-cache-updates", "cache.allow_updates", updates);
        let properties = (!self.properties.is_empty()).then(|| self.properties.join(","));
        given(&mut flags, "--property", "workers.properties", properties.as_ref());
        let images = (!self.allow_images.is_empty()).then(|| self.allow_images.join(","));
        given(&mut flags, "--allow-image", "images.allow", images.as_ref());
        Ok(settings(self.config.as_ref(), flags)?)
    }

    pub fn run(self) -> Result<Exit, CliError> {
        let settings = self.settings()?;
        let options = serve_options(&settings)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| CliError::machine(format!("cannot start threads: {error}")))?;
        runtime.block_on(async {
            telemetry::start(&settings)?;
            raise_open_files();
            let mut signals = Signals::listen()?;
            // It may wait for Redis; who wants it to end need not wait with it.
            let server = tokio::select! {
                started = Server::start(options) => started?,
                () = signals.next() => {
                    return Err(CliError::machine("ended before the server was ready"));
                }
            };
            print_ready(&server.ready);
            signals.next().await;
            eprintln!("draining; a second signal ends at once");
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

fn print_ready(ready: &Ready) {
    let workers = match ready.slots {
        0 => "no workers here; they join with `kiln worker --server URL`".to_owned(),
        1 => "1 sandboxed action at a time".to_owned(),
        slots => format!("{slots} sandboxed actions at a time"),
    };
    println!("kiln {} is ready: {workers}", env!("CARGO_PKG_VERSION"));
    println!("  listens    {}", ready.address);
    println!("  data       {}", ready.data_dir.display());
    if let Some(shared) = &ready.shared {
        println!("  shared     {shared}");
    }
    for lacking in &ready.not_enforced {
        println!("  sandbox    not enforced here: {lacking}");
    }
    println!("  web pages  {}/", ready.base_url);
    let address = grpc_address(&ready.base_url);
    println!("  bazel      bazel build --remote_executor={address} //...");
    let (address, tls) = buck2_address(&ready.base_url);
    println!(
        "  buck2      [buck2_re_client] engine_address, cas_address, action_cache_address = {address}; \
         tls = {tls}",
    );
}
