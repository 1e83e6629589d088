//! Stands between a client and a server, and may keep answers to itself.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub struct Proxy {
    pub address: String,
    withholds: Arc<AtomicBool>,
}

impl Proxy {
    pub fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let withholds = Arc::<AtomicBool>::default();
        let (server, withheld) = (server.to_owned(), withholds.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // While nobody is there, whoever connects is turned away.
                if let Ok(server) = TcpStream::connect(&server) {
                    pass(&client, &server, None);
                    pass(&server, &client, Some(withheld.clone()));
                }
            }
        });
        Self { address, withholds }
    }

    /// Whether what the server answers from now on is lost.
    pub fn withhold(&self, withholds: bool) {
        self.withholds.store(withholds, Ordering::SeqCst);
    }
}

/// Copies until either end is gone, and ends both then.
fn pass(from: &TcpStream, to: &TcpStream, withheld: Option<Arc<AtomicBool>>) {
    let (mut from, mut to) = (from.try_clone().expect("a copy"), to.try_clone().expect("a copy"));
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let is_lost = withheld.as_ref().is_some_and(|it| it.load(Ordering::SeqCst));
            if !is_lost && to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        // Either may be closed already.
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}
