//! A plain TCP balancer: each connection goes to the next backend that accepts it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub struct Balancer {
    pub address: String,
    closed: Arc<AtomicBool>,
}

impl Balancer {
    pub fn start(backends: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let closed = Arc::new(AtomicBool::new(false));
        let stop = closed.clone();
        std::thread::spawn(move || {
            let (backends, next) = (Arc::new(backends), AtomicUsize::new(0));
            for client in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (backends, first) = (backends.clone(), next.fetch_add(1, Ordering::Relaxed));
                std::thread::spawn(move || serve(client, &backends, first));
            }
        });
        Self { address, closed }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(&self.address);
    }
}

fn serve(client: TcpStream, backends: &[String], first: usize) {
    let order = (0..backends.len()).map(|i| &backends[(first + i) % backends.len()]);
    let Some(server) = order.filter_map(|backend| TcpStream::connect(backend).ok()).next() else {
        return;
    };
    let (Ok(from_client), Ok(from_server)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    let back = std::thread::spawn(move || pump(from_server, client));
    pump(from_client, server);
    let _ = back.join();
}

/// Copies until either side ends, and then ends both.
fn pump(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
