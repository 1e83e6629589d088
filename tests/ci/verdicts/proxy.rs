//! A proxy between a client and a server, which can keep the server's answers from the client.

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
                // While no server runs, the proxy closes the client's connection at once.
                if let Ok(server) = TcpStream::connect(&server) {
                    pass(&client, &server, None);
                    pass(&server, &client, Some(withheld.clone()));
                }
            }
        });
        Self { address, withholds }
    }

    /// Sets whether the proxy drops everything that the server answers from now on.
    pub fn withhold(&self, withholds: bool) {
        self.withholds.store(withholds, Ordering::SeqCst);
    }
}

/// Copies bytes in a thread until one of the two ends is closed, and then closes both.
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
        // Each end may be closed already, so an error here means nothing.
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}
