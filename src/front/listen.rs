//! The address that a front listens at: as it was asked for, and the socket addresses that it
//! stands for.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

use tokio::net::TcpSocket;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// The addresses that `localhost` stands for (RFC 6761).
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// `HOST:PORT` as a user writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    host: Host,
    /// 0: any that is free.
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    /// `localhost`, or another name of this machine.
    Name(String),
}

/// `localhost` is two addresses, and clients try either first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    listen: Listen,
    /// At least one; IPv4 first, which more clients use.
    addresses: Vec<SocketAddr>,
}

/// Addresses that are taken, and that nobody can connect to yet.
pub struct Reserved {
    listen: Listen,
    sockets: Vec<TcpSocket>,
}

impl Listen {
    /// `None`: it is none.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Some(Self { host: Host::Address(address.ip()), port: address.port() });
        }
        let (name, port) = text.rsplit_once(':')?;
        let of_names = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let is_name =
            name.chars().all(of_names) && name.contains(|c: char| c.is_ascii_alphabetic());
        let port = port.parse().ok().filter(|_| is_name)?;
        Some(Self { host: Host::Name(name.to_ascii_lowercase()), port })
    }

    /// Asks for the addresses of a name, which may take a while.
    pub fn resolve(self) -> io::Result<Resolved> {
        let mut addresses = match &self.host {
            Host::Address(ip) => vec![SocketAddr::new(*ip, self.port)],
            // Whatever a file of hosts leaves out: clients try both.
            Host::Name(name) if name == "localhost" => {
                LOOPBACK.map(|ip| SocketAddr::new(ip, self.port)).to_vec()
            }
            Host::Name(name) => (name.as_str(), self.port).to_socket_addrs()?.collect(),
        };
        addresses.sort_by_key(|address| (address.is_ipv6(), *address));
        addresses.dedup();
        match addresses.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
            false => Ok(Resolved { listen: self, addresses }),
        }
    }

    /// `None`: it is an address.
    pub fn name(&self) -> Option<&str> {
        match &self.host {
            Host::Address(_) => None,
            Host::Name(name) => Some(name),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(ip) => write!(f, "{}", SocketAddr::new(*ip, self.port)),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl Resolved {
    /// Whether no other machine can reach it.
    pub fn is_loopback(&self) -> bool {
        self.addresses.iter().all(|address| address.ip().is_loopback())
    }

    pub fn listen(&self) -> &Listen {
        &self.listen
    }

    /// Whether it stands for all addresses of this machine (0.0.0.0, ::), and so for none to call it by.
    pub fn is_wildcard(&self) -> bool {
        self.addresses.iter().any(|address| address.ip().is_unspecified())
    }

    /// Takes the addresses without listening on them. Of several, this machine need not have all: it
    /// may be one without IPv6.
    pub fn reserve(&self) -> io::Result<Reserved> {
        let (first, others) = self.addresses.split_first().ok_or(io::ErrorKind::NotFound)?;
        let mut sockets = Vec::new();
        let mut lacking = None;
        for address in [first].into_iter().chain(others) {
            let mut address = *address;
            if let Some(port) = port_of(&sockets)? {
                address.set_port(port);
            }
            match bind(address) {
                Ok(socket) => sockets.push(socket),
                Err(error) if is_not_here(&error) => lacking = Some(error),
                Err(error) => return Err(error),
            }
        }
        let Some(socket) = sockets.first() else {
            return Err(lacking.unwrap_or_else(|| io::ErrorKind::NotFound.into()));
        };
        let listen = Listen { port: socket.local_addr()?.port(), ..self.listen.clone() };
        Ok(Reserved { listen, sockets })
    }
}

fn port_of(sockets: &[TcpSocket]) -> io::Result<Option<u16>> {
    let first = sockets.first().map(TcpSocket::local_addr).transpose()?;
    Ok(first.map(|address| address.port()))
}

fn is_not_here(error: &io::Error) -> bool {
    use nix::libc::{EADDRNOTAVAIL, EAFNOSUPPORT};
    matches!(error.raw_os_error(), Some(EADDRNOTAVAIL | EAFNOSUPPORT))
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A server that just ended leaves connections behind that would be in the way.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

impl Reserved {
    /// `HOST:PORT` for links: the name that was asked for, or the address.
    pub fn authority(&self) -> String {
        self.listen.to_string()
    }

    pub fn listen(self) -> io::Result<Vec<TcpListener>> {
        let listen = |socket: TcpSocket| socket.listen(BACKLOG)?.into_std();
        self.sockets.into_iter().map(listen).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn hosts_are_addresses_or_names_and_ports_are_never_guessed() {
        for (text, shown) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:0", "[::1]:0"),
            ("LocalHost:8980", "localhost:8980"),
            ("build-1.example:1", "build-1.example:1"),
        ] {
            assert_eq!(Listen::parse(text).map(|it| it.to_string()).as_deref(), Some(shown));
        }
        for bad in
            ["", "8980", ":8980", "localhost", "::1:80", "a b:1", "host:", "host:70000", "1.2.3:4"]
        {
            assert_eq!(Listen::parse(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn localhost_is_heard_at_every_address_that_it_has() {
        let resolved = Listen::parse("localhost:0").unwrap().resolve().unwrap();
        assert!(resolved.is_loopback());
        let reserved = resolved.reserve().unwrap();
        let port = reserved.listen.port;
        assert_eq!(reserved.authority(), format!("localhost:{port}"));
        let listeners = reserved.listen().unwrap();
        assert!(!listeners.is_empty());
        for listener in &listeners {
            let address = listener.local_addr().unwrap();
            assert_eq!(address.port(), port);
            TcpStream::connect(address).unwrap();
        }
    }

    #[tokio::test]
    async fn what_others_can_reach_is_no_loopback() {
        for (text, loopback) in [("127.0.0.2:0", true), ("[::1]:0", true), ("0.0.0.0:0", false)] {
            let resolved = Listen::parse(text).unwrap().resolve().unwrap();
            assert_eq!(resolved.is_loopback(), loopback, "{text}");
        }
        assert!(Listen::parse("no-such-name.invalid:1").unwrap().resolve().is_err());
    }
}
