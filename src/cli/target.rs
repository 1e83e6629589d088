//! The server that client commands ask, and what they show to it.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use kiln_net::grpc::{AddressError, Connections, Credentials, Token, TokenError, address};
use kiln_net::tls::TlsFiles;
use kiln_net::urls;

use crate::cli::error::CliError;
use crate::cli::say::say;

/// The variable that holds a token. There is no flag: command lines are public.
const TOKEN: &str = "KILN_TOKEN";

/// The fields of [`TargetOptions`], as clap calls them.
pub const FLAGS: [&str; 6] =
    ["server", "instance", "tls_ca", "tls_client_cert", "tls_client_key", "token_file"];

#[derive(Debug, Args)]
pub struct TargetOptions {
    /// Server that client commands ask; several frontends of one fleet for a worker
    #[arg(
        long,
        global = true,
        help_heading = "Server",
        env = "KILN_SERVER",
        default_value = "http://127.0.0.1:8980",
        value_delimiter = ',',
        value_name = "URL",
        value_hint = ValueHint::Url
    )]
    server: Vec<String>,

    /// Instance name sent with each request
    #[arg(
        long,
        global = true,
        help_heading = "Server",
        env = "KILN_INSTANCE",
        value_name = "NAME",
        value_hint = ValueHint::Other
    )]
    instance: Option<String>,

    /// Authorities (PEM) to trust instead of the system's, for https:// servers
    #[arg(long, global = true, help_heading = "Server", env = "KILN_CA_FILE", value_name = "FILE")]
    tls_ca: Option<PathBuf>,

    /// Certificate (PEM) to show to the server
    #[arg(
        long,
        global = true,
        help_heading = "Server",
        env = "KILN_CLIENT_CERT",
        value_name = "FILE"
    )]
    tls_client_cert: Option<PathBuf>,

    /// Its private key (PEM)
    #[arg(
        long,
        global = true,
        help_heading = "Server",
        env = "KILN_CLIENT_KEY",
        value_name = "FILE"
    )]
    tls_client_key: Option<PathBuf>,

    /// File with a bearer token; without, the variable KILN_TOKEN
    #[arg(
        long,
        global = true,
        help_heading = "Server",
        env = "KILN_TOKEN_FILE",
        value_name = "FILE"
    )]
    token_file: Option<PathBuf>,
}

/// The server and what is shown to it, read and checked.
pub struct Target {
    pub url: String,
    /// More frontends of the same fleet, for when that one is not heard.
    pub others: Vec<String>,
    pub instance: String,
    /// Whether the user named the instance: an empty name then means the instance without a name.
    pub names_instance: bool,
    pub credentials: Credentials,
    /// Files with credentials, which no action may see.
    pub secrets: Vec<PathBuf>,
}

impl TargetOptions {
    /// The one server that a command asks; several are an error.
    pub fn target(self) -> Result<Target, CliError> {
        let target = self.targets()?;
        if target.others.is_empty() {
            return Ok(target);
        }
        let message = "--server (or KILN_SERVER) names several servers";
        Err(CliError::usage(message)
            .hint("name one: `kiln worker`, `agent` and `queue run` take more"))
    }

    pub fn targets(self) -> Result<Target, CliError> {
        let identity = match (self.tls_client_cert, self.tls_client_key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            _ => {
                let message = "a client certificate and its key belong together";
                let hint = "give both --tls-client-cert and --tls-client-key";
                return Err(CliError::usage(message).hint(hint));
            }
        };
        let secrets = self.token_file.iter().chain(identity.as_ref().map(|(_, key)| key));
        let secrets = secrets.cloned().collect();
        let token = match self.token_file {
            Some(path) => Some(Token::from_file(&path)?),
            None => match std::env::var(TOKEN) {
                Ok(text) => Some(Token::new(&text, TOKEN)?),
                Err(_) => None,
            },
        };
        let tls = TlsFiles { ca: self.tls_ca, identity };
        let mut servers = self.server.into_iter();
        let url = servers.next().ok_or_else(|| {
            CliError::usage("--server names no server")
                .hint("write an address such as http://127.0.0.1:8980")
        })?;
        let (others, names_instance) = (servers.collect(), self.instance.is_some());
        let instance = self.instance.unwrap_or_default();
        let credentials = Credentials { tls, token };
        Ok(Target { url, others, instance, names_instance, credentials, secrets })
    }
}

impl Target {
    /// Connections to the server. Call within a tokio runtime.
    pub fn connect(&self) -> Result<Connections, CliError> {
        self.warn_of_a_bare_token();
        let urls: Vec<_> = self.urls().collect();
        Ok(Connections::with_all(&urls, &self.credentials)?)
    }

    pub fn urls(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.url).chain(&self.others).map(String::as_str)
    }

    /// Warns where a token would go over a connection that others can read.
    pub fn warn_of_a_bare_token(&self) {
        let bare = |url: &&str| matches!(address(url), Ok((_, false))) && !is_here(url);
        if let (Some(url), Some(_)) = (self.urls().find(bare), &self.credentials.token) {
            say(&format!("warning: {url} is without TLS: others can read the token"));
        }
    }
}

fn is_here(url: &str) -> bool {
    let url = address(url).ok().and_then(|(url, _)| urls::parse(&url).ok());
    url.is_some_and(|url| urls::is_loopback(&url))
}

impl From<TokenError> for CliError {
    fn from(error: TokenError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<AddressError> for CliError {
    fn from(error: AddressError) -> Self {
        Self::usage(error.to_string())
    }
}
