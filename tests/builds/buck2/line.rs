//! A slow line, as between two machines that are far apart: every byte arrives later than it was sent.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How many pieces may be under way in one direction before the sender has to wait.
const IN_FLIGHT: usize = 4096;
const PIECE: usize = 64 << 10;

/// Forwards connections to `address` and delivers each byte `delay` later. Returns the address that it listens at.
pub async fn long_line(address: String, delay: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(&address).await.unwrap();
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::spawn(forward(near_in, far_out, delay));
            tokio::spawn(forward(far_in, near_out, delay));
        }
    });
    here
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(IN_FLIGHT);
    tokio::spawn(async move {
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    });
    loop {
        let mut piece = vec![0; PIECE];
        match from.read(&mut piece).await {
            Ok(read) if read > 0 => piece.truncate(read),
            _ => return,
        }
        if sender.send((Instant::now() + delay, piece)).await.is_err() {
            return;
        }
    }
}
