//! Real agents give each other the pieces of releases. One agent among them lies, and a stranger knocks.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kiln_deploy::oci::ContentDigest;
use kiln_deploy::swarm::Bits;
use kiln_deploy::swarm::pieces::PieceList;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::agents::{House, runs};

/// The size of a release in bytes.
const SIZE: usize = 10 << 20;
const HOSTS: [&str; 5] = ["web-1", "web-2", "web-3", "web-4", "web-5"];

/// Returns a shell script that sleeps like every other one, with some `SIZE` bytes of comment into which `insert` is
/// put.
fn program(insert: &str) -> String {
    // Xorshift makes the same bytes each time, and no part of them is like another.
    let mut state = 88_172_645_463_325_252_u64;
    let bytes = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let bytes = bytes.flatten().take(SIZE);
    let text: String = bytes.map(|byte| char::from(b'0' + (byte & 63))).collect();
    let (start, end) = text.split_at(SIZE / 3);
    format!("#!/bin/sh\nexec sleep 1000\n# {start}{insert}{end}\n")
}

/// Sends `body` as the agent `who`. Returns the body of the server's answer, and panics unless its status is 200.
fn post(house: &House, who: &str, path: &str, body: &Value) -> Vec<u8> {
    let token = std::fs::read_to_string(house.dir().join(who)).unwrap();
    let body = body.to_string();
    let mut stream = TcpStream::connect(&house.address).unwrap();
    write!(
        stream,
        "POST /api/v1/fleet/agent/{path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        house.address,
        body.len()
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {}", String::from_utf8_lossy(&answer));
    answer.split_off(end + 4)
}

/// An agent of the service that claims to have all pieces and gives wrong bytes.
struct Liar {
    asked: Arc<AtomicUsize>,
}

impl Liar {
    fn start(house: &House, release: &str, version: &str) -> Self {
        let from =
            json!({ "service": "api", "environment": "prod", "name": "liar", "identity": "x" });
        let none = json!({ "fence": 0, "change": 0 });
        let report = json!({
            "from": from, "software": "", "running": null, "previous": null, "accepted": none,
            "settled": none, "failed": null, "health": { "state": "well" }, "crashes": 0,
            "free_bytes": 0,
        });
        post(house, "liar", "report", &report);
        house.tell("liar", release);
        let list = post(house, "liar", "pieces", &json!({ "from": from, "version": version }));
        let pieces = PieceList::read(&list).unwrap().len();

        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["liar".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let hash = Sha256::digest(certificate.as_ref());
        let fingerprint: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(kiln_net::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let (config, counts) = (Arc::new(config), asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, asked) = (config.clone(), counts.clone());
                std::thread::spawn(move || lie(stream.unwrap(), config, pieces, &asked));
            }
        });
        let share = json!({
            "from": from, "version": version, "list": ContentDigest::of(&list).to_string(),
            "pieces": pieces, "has": pieces, "near": "a", "fingerprint": fingerprint,
            "address": address,
        });
        post(house, "liar", "share", &share);
        Self { asked }
    }
}

/// Answers requests for pieces with wrong bytes until the other side closes the connection.
fn lie(stream: TcpStream, config: Arc<ServerConfig>, pieces: usize, asked: &AtomicUsize) {
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    let mut question = Vec::new();
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() {
        question.push(byte[0]);
        if !question.ends_with(b"\r\n\r\n") {
            continue;
        }
        let body = match question.starts_with(b"GET /v1/has/") {
            true => Bits::all(pieces).to_bytes(),
            false => {
                asked.fetch_add(1, Ordering::Relaxed);
                b"other bytes".to_vec()
            }
        };
        question.clear();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        if stream.write_all(&[head.into_bytes(), body].concat()).is_err() {
            return;
        }
    }
}

/// Asks an agent as a caller who is no agent of the service. Returns the status code that curl prints, which is 000
/// if there was no answer.
fn stranger(house: &House, address: &str, has_certificate: bool) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-sk", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}"]);
    if has_certificate {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["stranger".to_owned()]).unwrap();
        let (cert_file, key_file) = (house.dir().join("s.pem"), house.dir().join("s.key"));
        std::fs::write(&cert_file, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        curl.arg("--cert").arg(cert_file).arg("--key").arg(key_file);
    }
    let list = ContentDigest::of(b"a list");
    curl.args(["-H", &format!("kiln-pass: {}", "00".repeat(64))]);
    let output = curl.arg(format!("https://{address}/v1/has/{list}")).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn agents_give_each_other_pieces_and_the_server_little_more_than_one_release() {
    let house = House::new();
    let version = house.release_of("team/app:1", &program(""));
    let agents = HOSTS.map(|name| {
        let options = ["--peers-listen", "127.0.0.1:0", "--keep-content", "1GiB"];
        house.agent_with(name, name, &options)
    });
    house.until("they register", 5, |it| it["condition"] == "unassigned");
    let liar = Liar::start(&house, "team/app:1", &version);
    let begun = Instant::now();
    HOSTS.iter().for_each(|name| house.tell(name, "team/app:1"));
    house.until("they run it", 5, runs(&version));
    let given = house.given();
    let lies = liar.asked.load(Ordering::Relaxed);
    println!(
        "5 agents, {SIZE} bytes: {given} from the server, {lies} lies, in {:?}",
        begun.elapsed()
    );
    assert!(given < 3 * SIZE as u64, "{given} bytes for 5 agents");
    assert!((1..=10).contains(&lies), "each asks the liar once, for two pieces at most: {lies}");

    let address = agents[0].peers();
    assert_eq!(stranger(&house, &address, true), "403", "no pass");
    assert_eq!(stranger(&house, &address, false), "000", "no certificate, no answer");

    // Pieces that the earlier version had as well are not sent again for the next version.
    let version = house.release_of("team/app:2", &program("something new"));
    HOSTS.iter().for_each(|name| house.tell(name, "team/app:2"));
    house.until("they run it as well", 5, runs(&version));
    let more = house.given() - given;
    println!("and {more} bytes for the next version");
    assert!(more < SIZE as u64, "{more} bytes for all 5");
    assert!(begun.elapsed() < Duration::from_secs(120));
}
