//! A source as the operator declares it: `[signals.NAME]` in the file of a server's parts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kiln_net::http::{Client, Options, client, header};
use kiln_net::tls::{TlsFiles, client_config, without_trust};
use kiln_net::{Reach, reach, urls};
use tokio::sync::Semaphore;

use super::command::CommandSignals;
use super::probe::Probe;
use super::prometheus::{AT_ONCE, Prometheus};
use crate::programs::{program, timeout};
use crate::rollouts::parts::Signals;
use crate::toml::{Fields, TableError};

const KINDS: [&str; 3] = ["prometheus", "probe", "command"];
const CONNECT: Duration = Duration::from_secs(5);
const SAMPLES: u64 = 3;
const MAX_SAMPLES: u64 = 20;
const PATIENCE: u64 = 2;
const MAX_PATIENCE: u64 = 60;

/// Reads one source of signals.
pub fn read(fields: &Fields<'_>) -> Result<Arc<dyn Signals>, TableError> {
    let kind = fields.need("kind")?;
    match kind.text()? {
        "prometheus" => prometheus(fields),
        "probe" => probe(fields),
        "command" => {
            fields.only(&["kind", "command", "timeout_s"])?;
            let program = program(&fields.need("command")?, fields)?;
            Ok(Arc::new(CommandSignals(program)))
        }
        _ => Err(kind.error(&format!("expected one of {}", KINDS.join(", ")))),
    }
}

fn prometheus(fields: &Fields<'_>) -> Result<Arc<dyn Signals>, TableError> {
    fields.only(&["kind", "url", "ca", "token_file", "timeout_s"])?;
    let place = fields.need("url")?;
    let mut url = place.parsed(urls::parse)?;
    if url.query().is_some() {
        return Err(place.error("expected an address without a query"));
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    let ca = fields.get("ca").map(|it| it.absolute_path()).transpose()?;
    let token_file = fields.get("token_file").map(|it| it.absolute_path()).transpose()?;
    if token_file.is_some() && url.scheme() != "https" && !urls::is_loopback(&url) {
        return Err(place.error("a token is sent over https:// only"));
    }
    // The operator named this host, and whoever has its name in the DNS leads nowhere but to a network.
    let client =
        http(url.scheme(), ca, AT_ONCE, Reach::Network).map_err(|why| place.error(&why))?;
    let (timeout, at_once) = (timeout(fields)?, Semaphore::new(AT_ONCE));
    Ok(Arc::new(Prometheus { client, url, timeout, token_file, at_once }))
}

fn probe(fields: &Fields<'_>) -> Result<Arc<dyn Signals>, TableError> {
    fields.only(&[
        "kind",
        "tls",
        "ca",
        "host",
        "status",
        "samples",
        "patience_s",
        "local",
        "timeout_s",
    ])?;
    let flag = |key: &str| fields.get(key).map_or(Ok(false), |field| field.flag());
    let scheme = if flag("tls")? { "https" } else { "http" };
    let reach = if flag("local")? { Reach::Anywhere } else { Reach::Network };
    let ca = fields.get("ca").map(|it| it.absolute_path()).transpose()?;
    let host = fields.get("host").map(|field| {
        let value = header::HeaderValue::from_str(field.text()?);
        value.map_err(|_| field.error("expected the name of a host"))
    });
    let number = |key: &str, default: u64, most: u64| {
        fields.get(key).map_or(Ok(default), |field| field.number(1..=most))
    };
    let statuses = match fields.get("status") {
        None => 200..=299,
        Some(field) => {
            let status = field.number(100..=599)? as u16;
            status..=status
        }
    };
    // A connection for each request: one that is kept says little about who accepts.
    let client = http(scheme, ca, 0, reach).map_err(|why| fields.error(why))?;
    Ok(Arc::new(Probe {
        client,
        scheme,
        host: host.transpose()?,
        statuses,
        samples: number("samples", SAMPLES, MAX_SAMPLES)? as usize,
        patience: Duration::from_secs(number("patience_s", PATIENCE, MAX_PATIENCE)?),
        timeout: timeout(fields)?,
        reach,
    }))
}

fn http(
    scheme: &str,
    ca: Option<PathBuf>,
    idle_connections: usize,
    otherwise: Reach,
) -> Result<Client, String> {
    let tls = match scheme {
        "https" => client_config(&TlsFiles { ca, identity: None }),
        _ => without_trust(),
    };
    let tls = tls.map_err(|error| error.to_string())?;
    let reach = move |name: &str| reach::of_name(name, otherwise);
    let options =
        Options { idle_connections, reach: Some(Arc::new(reach)), ..Options::new(tls, CONNECT) };
    client(options).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toml::document;

    fn of(text: &str) -> Result<(), String> {
        document(text, read).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn sources_are_declared() {
        for good in [
            "kind = \"prometheus\"\nurl = \"http://prometheus.lan:9090\"",
            "kind = \"prometheus\"\nurl = \"http://localhost:9090/base\"\ntoken_file = \"/t\"\ntimeout_s = 5",
            "kind = \"probe\"",
            "kind = \"probe\"\nhost = \"api\"\nstatus = 204\nsamples = 5\npatience_s = 1\nlocal = true",
            "kind = \"command\"\ncommand = [\"measure\"]",
        ] {
            assert_eq!(of(good), Ok(()), "{good}");
        }
        for (bad, part) in [
            (
                "kind = \"graphite\"",
                "line 1, column 8: kind: expected one of prometheus, probe, command",
            ),
            ("kind = \"prometheus\"\nurl = \"ftp://h\"", "line 2, column 7: url"),
            ("kind = \"prometheus\"\nurl = \"http://u:p@h\"", "user or a password"),
            ("kind = \"prometheus\"\nurl = \"http://h\"\ntoken_file = \"/t\"", "https:// only"),
            (
                "kind = \"prometheus\"\nuri = \"http://h\"",
                "line 2, column 1: uri: unknown key; did you mean url?",
            ),
            ("kind = \"probe\"\nsamples = 1000", "a whole number from 1 to 20"),
            ("kind = \"probe\"\nhost = \"a\\nb\"", "name of a host"),
            ("kind = \"command\"", "command is missing"),
        ] {
            let error = of(bad).unwrap_err();
            assert!(error.contains(part), "{bad}: {error}");
        }
    }
}
