//! A balancer as the operator declares it: `[traffic.NAME]` in the file of a server's parts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kiln_net::http::{Client, Options, client};
use kiln_net::tls::without_trust;

use super::command::CommandTraffic;
use super::envoy::Envoy;
use super::haproxy::HaProxy;
use super::nginx::Nginx;
use super::rendered::Rendered;
use crate::programs::{Program, program, timeout};
use crate::rollouts::parts::Traffic;
use crate::toml::{Field, Fields, TableError};
use crate::words::is_options;

const KINDS: [&str; 4] = ["nginx", "haproxy", "envoy", "command"];
const CONNECT: Duration = Duration::from_secs(2);
const MAX_KEEPALIVE: u64 = 10_000;

/// Reads the declaration of one balancer.
pub fn read(fields: &Fields<'_>) -> Result<Arc<dyn Traffic>, TableError> {
    let kind = fields.need("kind")?;
    match kind.text()? {
        "nginx" => nginx(fields),
        "haproxy" => haproxy(fields),
        "envoy" => envoy(fields),
        "command" => {
            fields.only(&["kind", "command", "timeout_s"])?;
            let program = program(&fields.need("command")?, fields)?;
            Ok(Arc::new(CommandTraffic(program)))
        }
        _ => Err(kind.error(&format!("expected one of {}", KINDS.join(", ")))),
    }
}

fn nginx(fields: &Fields<'_>) -> Result<Arc<dyn Traffic>, TableError> {
    fields.only(&[
        "kind",
        "directory",
        "status",
        "test",
        "reload",
        "keepalive",
        "server_options",
        "timeout_s",
    ])?;
    let status = fields.need("status")?;
    let address = here(&status)?;
    let keepalive = fields.get("keepalive").map(|it| it.number(1..=MAX_KEEPALIVE)).transpose()?;
    let balancer = Nginx {
        reload: program_or(fields, "reload", &["nginx", "-s", "reload"])?,
        status: address,
        client: local_client().map_err(|why| status.error(&why))?,
        keepalive,
        server_options: server_options(fields)?,
    };
    let test = program_or(fields, "test", &["nginx", "-t", "-q"])?;
    rendered(fields, balancer, Some(test))
}

fn haproxy(fields: &Fields<'_>) -> Result<Arc<dyn Traffic>, TableError> {
    fields.only(&[
        "kind",
        "directory",
        "socket",
        "test",
        "reload",
        "server_options",
        "timeout_s",
    ])?;
    let balancer = HaProxy {
        reload: fields.get("reload").map(|it| program(&it, fields)).transpose()?,
        socket: fields.need("socket")?.absolute_path()?,
        server_options: server_options(fields)?,
    };
    // What HAProxy reads is on its command line: nobody can guess it.
    let test = program(&fields.need("test")?, fields)?;
    rendered(fields, balancer, Some(test))
}

fn envoy(fields: &Fields<'_>) -> Result<Arc<dyn Traffic>, TableError> {
    fields.only(&["kind", "directory", "admin", "timeout_s"])?;
    let admin = fields.need("admin")?;
    let client = local_client().map_err(|why| admin.error(&why))?;
    rendered(fields, Envoy { admin: here(&admin)?, client }, None)
}

/// An address of this machine.
fn here(field: &Field<'_>) -> Result<SocketAddr, TableError> {
    let address: Option<SocketAddr> = field.text()?.parse().ok();
    let expected = "expected an address of this machine, as 127.0.0.1:8099";
    let address = address.filter(|it| it.ip().is_loopback() && it.port() > 0);
    address.ok_or_else(|| field.error(expected))
}

fn rendered<B: super::rendered::Balancer>(
    fields: &Fields<'_>,
    balancer: B,
    test: Option<Program>,
) -> Result<Arc<dyn Traffic>, TableError> {
    let directory = fields.need("directory")?.absolute_path()?;
    Ok(Arc::new(Rendered { balancer, directory, test, timeout: timeout(fields)? }))
}

/// A client for this machine: it keeps no connection, so that each request meets whoever accepts now.
fn local_client() -> Result<Client, String> {
    let tls = without_trust().map_err(|error| error.to_string())?;
    let options = Options { idle_connections: 0, ..Options::new(tls, CONNECT) };
    client(options).map_err(|error| error.to_string())
}

fn program_or(fields: &Fields<'_>, key: &str, default: &[&str]) -> Result<Program, TableError> {
    let default = default.iter().map(|it| (*it).to_owned()).collect();
    match fields.get(key) {
        Some(field) => program(&field, fields),
        None => {
            let named = Program::new(default, timeout(fields)?);
            named.ok_or_else(|| fields.error(format!("{key} is missing")))
        }
    }
}

fn server_options(fields: &Fields<'_>) -> Result<String, TableError> {
    let Some(field) = fields.get("server_options") else { return Ok(String::new()) };
    let text = field.text()?;
    let wrong = "expected words of letters, digits and _-.=/:,% for each server's line";
    is_options(text).then(|| text.trim().to_owned()).ok_or_else(|| field.error(wrong))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toml::document;

    fn of(text: &str) -> Result<(), String> {
        document(text, read).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn balancers_are_declared() {
        let nginx =
            "kind = \"nginx\"\ndirectory = \"/etc/nginx/kiln\"\nstatus = \"127.0.0.1:8099\"\n";
        assert_eq!(of(nginx), Ok(()));
        assert_eq!(of(&format!("{nginx}keepalive = 32\nserver_options = \"max_fails=2\"")), Ok(()));
        let envoy = "kind = \"envoy\"\ndirectory = \"/etc/envoy\"\nadmin = \"[::1]:9901\"";
        assert_eq!(of(envoy), Ok(()));
        assert_eq!(of("kind = \"command\"\ncommand = [\"/bin/split\", \"edge\"]"), Ok(()));
        let haproxy =
            "kind = \"haproxy\"\ndirectory = \"/etc/haproxy/kiln\"\nsocket = \"/run/h.sock\"\n";
        assert_eq!(
            of(&format!("{haproxy}test = [\"haproxy\", \"-c\", \"-f\", \"/etc/haproxy\"]")),
            Ok(())
        );
        for (text, part) in [
            (
                "kind = \"f5\"",
                "line 1, column 8: kind: expected one of nginx, haproxy, envoy, command",
            ),
            (
                &format!("{nginx}relaod = []"),
                "line 4, column 1: relaod: unknown key; did you mean reload?",
            ),
            (
                &nginx.replace("127.0.0.1", "10.0.0.1"),
                "line 3, column 10: status: expected an address",
            ),
            (
                &nginx.replace("/etc", "etc"),
                "line 2, column 13: directory: expected an absolute path",
            ),
            (&format!("{nginx}server_options = \"a; }}\""), "line 4, column 18: server_options"),
            (&format!("{nginx}reload = []"), "expected a program"),
            (haproxy, "test is missing"),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
