//! Blue-green at a real server, behind a real nginx (`KILN_NGINX`). Users ask it which target answers: all requests
//! are switched to the new version, and back when that is not well, and none is lost.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kiln_test_servers::{Process, free_port, pause, program};

use super::rollouts::{kiln, prepared, promote, release, runs, start};

const WITHIN: Duration = Duration::from_secs(60);
const DECLARED: &str = "\
name = \"api\"
from = \"directories\"
strategy = \"blue-green\"
targets = 2
colour = \"slot\"
live = \"blue\"
traffic = \"edge\"
bake = \"0s\"
soak = \"SOAK\"
settle = \"2s\"
tries = 1
watch = \"1s\"
lock_retry = \"1s\"
";

/// Starts a target that answers every request with its name for as long as the test lives.
fn target(directory: &Path, name: &'static str, slot: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let described = serde_json::json!({"address": address, "labels": {"slot": slot}});
    let file = directory.join("targets").join(name).join("target.json");
    std::fs::write(file, described.to_string()).expect("a file");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                if stream.read(&mut request).is_ok_and(|length| length > 0) {
                    let head = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n";
                    let _ = stream.write_all(format!("{head}{name}").as_bytes());
                }
            });
        }
    });
}

/// Sends one request. Returns the name of the target that answered, or what went wrong.
fn ask(address: &str) -> Result<char, String> {
    let talk = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(WITHIN))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = talk().map_err(|error| error.to_string())?;
    let body = answer.split_once("\r\n\r\n").filter(|(head, _)| head.starts_with("HTTP/1.1 200"));
    body.and_then(|(_, body)| body.chars().next()).ok_or(answer)
}

/// Waits until twenty requests in a row are all answered by targets in `names`.
fn until(address: &str, names: &str) {
    let begun = Instant::now();
    loop {
        let answers: Vec<_> = (0..20).map(|_| ask(address)).collect();
        if answers.iter().all(|it| it.as_ref().is_ok_and(|who| names.contains(*who))) {
            return;
        }
        assert!(begun.elapsed() < WITHIN, "not {names}: {answers:?}");
        pause();
    }
}

/// Starts a user who sends one request after the other. Returns the flag that stops the user, and a thread that ends
/// with the number of answers and the errors.
fn user(address: &str) -> (Arc<AtomicBool>, JoinHandle<(usize, Vec<String>)>) {
    let (stop, address) = (Arc::new(AtomicBool::new(false)), address.to_owned());
    let stopped = stop.clone();
    let asking = std::thread::spawn(move || {
        let (mut answered, mut lost) = (0, Vec::new());
        while !stopped.load(Ordering::Relaxed) {
            match ask(&address) {
                Ok(_) => answered += 1,
                Err(error) => lost.push(error),
            }
        }
        (answered, lost)
    });
    (stop, asking)
}

/// Starts nginx and declares it as the balancer `edge`. Returns its process and its address.
fn nginx(program: &Path, directory: &Path) -> (Process, String) {
    let at = directory.join("nginx");
    std::fs::create_dir_all(at.join("kiln")).expect("a directory");
    let address = format!("127.0.0.1:{}", free_port());
    let status = format!("127.0.0.1:{}", free_port());
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|of| format!("{of}_temp_path \"{}\";", at.join(of).display()))
        .concat();
    let configuration = format!(
        "daemon off; worker_processes 1; pid \"{at}/pid\"; error_log \"{at}/error.log\";
         events {{ worker_connections 256; }}
         http {{ access_log off; {temporary} include \"{at}/kiln/*.conf\";
           server {{ listen {address}; location / {{
             set $to api.prod; proxy_pass http://$to; proxy_next_upstream off; }} }} }}",
        at = at.display(),
    );
    std::fs::write(at.join("nginx.conf"), configuration).expect("a file");
    let (conf, log) = (at.join("nginx.conf"), at.join("error.log"));
    let process = Process::spawn(Command::new(program).arg("-c").arg(&conf).arg("-e").arg(&log));
    let parts = directory.join("parts.toml");
    let mut text = std::fs::read_to_string(&parts).expect("it is there");
    let base = format!("{program:?}, \"-c\", {conf:?}, \"-e\", {log:?}");
    text += &format!(
        "[traffic.edge]\nkind = \"nginx\"\ndirectory = \"{}/kiln\"\nstatus = {status:?}\n\
         test = [{base}, \"-t\", \"-q\"]\nreload = [{base}, \"-s\", \"reload\"]\nserver_options = \"max_fails=0\"\n",
        at.display(),
    );
    std::fs::write(&parts, text).expect("a file");
    let begun = Instant::now();
    while TcpStream::connect(&address).is_err() {
        assert!(begun.elapsed() < WITHIN, "nginx does not listen");
        pause();
    }
    (process, address)
}

#[test]
fn all_requests_are_switched_to_the_idle_set_and_back_and_none_is_lost() {
    let Some(program) = program("KILN_NGINX") else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let dir = directory.path();
    let key = prepared(dir);
    for (name, slot) in [("a", "blue"), ("b", "blue"), ("c", "green"), ("d", "green")] {
        target(dir, name, slot);
    }
    let (_nginx, address) = nginx(&program, dir);
    std::fs::write(dir.join("quick.toml"), DECLARED.replace("SOAK", "0s")).expect("a file");
    std::fs::write(dir.join("watched.toml"), DECLARED.replace("SOAK", "1h")).expect("a file");
    let server = start(dir);
    for name in ["team/app:1", "team/app:2"] {
        release(&server, dir, name, &format!("#!/bin/sh\n# {name}\n"), &key);
    }

    // Nobody has split the requests yet, so by the declaration blue serves and green gets the release.
    promote(&server, dir, "team/app:1");
    let of = |file| ["rollout", "start", file, "--env", "prod", "--reason", "June", "--release"];
    let first = [&of("quick.toml")[..], &["team/app:1", "--wait"]].concat();
    kiln(&server, dir, &first).ends_with(0);
    until(&address, "cd");
    assert_eq!(runs(dir)[..2], ["", ""], "who served is not touched");
    let plan = kiln(&server, dir, &["rollout", "plan", "watched.toml", "--env", "prod"]);
    let plan = plan.ends_with(0).stdout;
    assert!(plan.contains("green serves, with 2 targets; blue gets the release"), "{plan}");

    // The next release goes to blue. It is not well there, so all requests go back to green.
    let (stop, asking) = user(&address);
    promote(&server, dir, "team/app:2");
    let next = [&of("watched.toml")[..], &["team/app:2", "--json"]].concat();
    let next = kiln(&server, dir, &next).ends_with(0).json();
    let id = next["id"].as_str().expect("an id");
    until(&address, "ab");
    std::fs::write(dir.join("targets/a/ill"), "").expect("a file");
    kiln(&server, dir, &["rollout", "watch", id]).ends_with(1);
    until(&address, "cd");
    let good = runs(dir);
    assert!(good.iter().all(|it| *it == good[2]), "{good:?}");
    stop.store(true, Ordering::Relaxed);
    let (answered, lost) = asking.join().expect("it asks");
    println!("{answered} requests were answered");
    assert!(lost.is_empty() && answered > 20, "{answered} answered, lost: {lost:?}");
}
