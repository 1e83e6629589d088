//! Authorization on a loopback address without access files, where nobody is asked who calls: every
//! user of the machine may build, but only the server's own user and root may run actions of others
//! or make releases. Whoever runs actions says what they result in, which everybody then uses;
//! whoever makes releases has them signed by the server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use http::Extensions;
use kiln_cas::access::{Authorizer, Everybody, Refused, Right};

use super::diag;

/// Connections within this machine, of IPv4 and of IPv6: where the kernel cannot be asked for one.
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
/// A connection whose both ends are open. The kernel tells no user of others.
const ESTABLISHED: &str = "01";

/// The two ends of the connection that a request came over; in its extensions where it matters.
#[derive(Debug)]
pub struct Neighbour {
    client: SocketAddr,
    here: SocketAddr,
    /// The user at the other end, asked for once; `None` within: it cannot be told.
    user: OnceLock<Option<u32>>,
}

impl Neighbour {
    pub fn new(client: SocketAddr, here: SocketAddr) -> Self {
        Self { client, here, user: OnceLock::new() }
    }

    /// The user whose process holds the client's end of the connection; `None`: it cannot be told.
    /// The kernel is asked for this connection alone; the table of all connections, which is slow
    /// to read where others make thousands of them, is the last resort.
    fn user(&self) -> Option<u32> {
        *self.user.get_or_init(|| match diag::user(self.client, self.here) {
            Ok(user) => user,
            Err(_) => TABLES.iter().find_map(|path| {
                let table = std::fs::read_to_string(path).ok()?;
                user_in(&table, self.client, self.here)
            }),
        })
    }
}

/// The user in a table of the kernel whose end of a connection is `client`.
fn user_in(table: &str, client: SocketAddr, here: SocketAddr) -> Option<u32> {
    let same = |text: &str, address: SocketAddr| {
        parse(text).is_some_and(|(ip, port)| {
            port == address.port() && ip.to_canonical() == address.ip().to_canonical()
        })
    };
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (own, other, state) = (words.next()?, words.next()?, words.next()?);
        let found = state == ESTABLISHED && same(own, client) && same(other, here);
        found.then(|| words.nth(3)?.parse().ok()).flatten()
    })
}

/// Reads an address of the kernel's table, such as `0100007F:1F90`: words of 32 bits as this
/// machine orders their bytes, and a port.
fn parse(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let word = |start: usize| {
        let digits = address.get(start..start + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?))
        }
        _ => return None,
    };
    Some((ip, u16::from_str_radix(port, 16).ok()?))
}

/// Decides on a loopback address without access files.
#[derive(Debug, Clone, Copy)]
pub struct LocalAuthorizer {
    everybody: Everybody,
    /// The user whose processes may run actions for others, besides root's: the server's own.
    user: u32,
}

impl LocalAuthorizer {
    /// Decides for the user of this process.
    pub fn new(everybody: Everybody) -> Self {
        Self { everybody, user: nix::unistd::geteuid().as_raw() }
    }

    /// Refuses everybody but the server's own user and root. `what` they want to do is for the message.
    fn check_own(&self, extensions: &Extensions, what: &str) -> Result<(), Refused> {
        let user = extensions.get::<Arc<Neighbour>>().and_then(|neighbour| neighbour.user());
        let who = match user {
            Some(user) if user == self.user || user == 0 => return Ok(()),
            Some(user) => format!("this is one of user {user}"),
            None => "it cannot be told whose this is".to_owned(),
        };
        Err(Refused::Denied(format!(
            "on a loopback address without access files only processes of the server's own user ({}) \
             and of root may {what}, and {who}; set auth.access_files and give it a token, or start the \
             server with --insecure",
            self.user
        )))
    }
}

impl Authorizer for LocalAuthorizer {
    /// Checks a right in one instance. Everybody may end any operation, since it is not known whose
    /// an operation is where nobody is asked who calls.
    fn check(&self, caller: &Extensions, right: Right, _instance: &str) -> Result<(), Refused> {
        match right {
            Right::Administer => self.everybody.check_everywhere(caller, right),
            right => self.check_everywhere(caller, right),
        }
    }

    fn check_everywhere(&self, caller: &Extensions, right: Right) -> Result<(), Refused> {
        match right {
            Right::Work => self.check_own(caller, "run actions for it"),
            Right::Administer => self.check_own(caller, "administer it"),
            Right::Release => self.check_own(caller, "make releases"),
            Right::Host => self.check_own(caller, "run releases as an agent"),
            Right::Queue => self.check_own(caller, "change merge queues"),
            Right::Land => self.check_own(caller, "run merge queues"),
            right => self.everybody.check_everywhere(caller, right),
        }
    }

    fn name(&self, caller: &Extensions) -> Option<Arc<str>> {
        self.everybody.name(caller)
    }

    fn tools(&self, caller: &Extensions, instance: &str) -> Option<Arc<str>> {
        self.everybody.tools(caller, instance)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn authorizer(user: u32) -> LocalAuthorizer {
        LocalAuthorizer { everybody: Everybody { write_results: false }, user }
    }

    fn caller(neighbour: Neighbour) -> Extensions {
        let mut extensions = Extensions::new();
        extensions.insert(Arc::new(neighbour));
        extensions
    }

    #[test]
    fn the_user_of_a_real_connection_is_found() {
        let own = nix::unistd::geteuid().as_raw();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (here, peer) = listener.accept().unwrap();
            let neighbour = Neighbour::new(peer, here.local_addr().unwrap());
            assert_eq!(neighbour.user(), Some(own), "{address}");
            let neighbour = caller(neighbour);
            assert_eq!(authorizer(own).check_everywhere(&neighbour, Right::Work), Ok(()));
            drop(client);
            let gone = Neighbour::new(peer, here.local_addr().unwrap());
            assert_eq!(gone.user(), None, "half a connection has no user that can be trusted");
        }
    }

    #[test]
    fn strangers_build_but_do_not_work() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n\
            0: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     7        0 1\n\
            1: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 2\n\
            2: 0100007F:C351 0100007F:1F90 06 00000000:00000000 00:00000000 00000000     0        0 3\n";
        if cfg!(target_endian = "big") {
            return;
        }
        let here = "127.0.0.1:8080".parse().unwrap();
        let user = |client: &str| user_in(table, client.parse().unwrap(), here);
        assert_eq!(user("127.0.0.1:50000"), Some(1000));
        assert_eq!(user("[::ffff:127.0.0.1]:50000"), Some(1000));
        assert_eq!(user("127.0.0.1:50001"), None, "one that has ended");
        assert_eq!(user("127.0.0.1:50002"), None);

        let stranger = || {
            let neighbour = Neighbour::new("127.0.0.1:50000".parse().unwrap(), here);
            neighbour.user.set(Some(1000)).unwrap();
            caller(neighbour)
        };
        let refused = authorizer(7).check_everywhere(&stranger(), Right::Work).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("(7)") && text.contains("user 1000"), "{text}");
        assert_eq!(authorizer(7).check(&stranger(), Right::Execute, ""), Ok(()));
        assert_eq!(authorizer(7).check(&stranger(), Right::Administer, ""), Ok(()));
        assert!(authorizer(7).check_everywhere(&stranger(), Right::Administer).is_err());
        assert_eq!(authorizer(1000).check_everywhere(&stranger(), Right::Work), Ok(()));
        assert!(authorizer(7).check(&stranger(), Right::Release, "").is_err());
        assert_eq!(authorizer(1000).check(&stranger(), Right::Release, ""), Ok(()));
        assert!(authorizer(7).check_everywhere(&Extensions::new(), Right::Work).is_err());
    }
}
