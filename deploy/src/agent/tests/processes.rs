//! Programs that are kept running.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::super::leftover::Leftover;
use super::super::{Health, Hook, HookError, HttpProbe, Probe, Program, Supervisor};

fn version(root: &Path, name: &str, text: &str) -> PathBuf {
    let place = root.join(name);
    fs::create_dir_all(place.join("bin")).unwrap();
    fs::write(place.join("bin/app"), text).unwrap();
    fs::set_permissions(place.join("bin/app"), fs::Permissions::from_mode(0o755)).unwrap();
    place
}

/// A program that the shell starts: a script that was just written may still be busy for exec.
fn program(grace: Duration) -> Program {
    Program { program: "sh".to_owned(), arguments: vec!["bin/app".to_owned()], grace }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z")
}

fn written(path: &Path) -> String {
    until("it is written", || fs::read_to_string(path).is_ok_and(|it| it.ends_with('\n')));
    fs::read_to_string(path).unwrap()
}

#[test]
fn another_version_takes_over_and_what_the_old_one_started_ends() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let child = root.join("child");
    let text = format!("sleep 1000 & echo $! > '{}'; wait", child.display());
    let (one, two) = (version(root, "one", &text), version(root, "two", "exec sleep 1000"));
    let supervisor = Supervisor::open(root, program(Duration::from_secs(20))).unwrap();
    supervisor.run("sha256:one", &one).unwrap();
    let child = written(&child);
    until("the kernel knows its version", || supervisor.running().as_deref() == Some("sha256:one"));
    let begun = Instant::now();
    supervisor.run("sha256:two", &two).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "TERM is enough");
    until("the other runs", || supervisor.running().as_deref() == Some("sha256:two"));
    until("its child has ended", || !is_alive(&child));
    assert_eq!(supervisor.crashes().0, 0, "nothing ended by itself");
}

#[test]
fn what_does_not_end_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let ready = directory.path().join("ready");
    let text =
        format!("trap '' TERM; echo $$ > '{}'; while :; do sleep 1000; done", ready.display());
    let one = version(directory.path(), "one", &text);
    let supervisor =
        Supervisor::open(directory.path(), program(Duration::from_millis(200))).unwrap();
    supervisor.run("one", &one).unwrap();
    let pid = written(&ready);
    let begun = Instant::now();
    drop(supervisor);
    assert!(begun.elapsed() >= Duration::from_millis(200), "it had its time");
    assert!(!is_alive(&pid));
}

#[test]
fn what_ends_by_itself_is_started_again_ever_later() {
    let directory = tempfile::tempdir().unwrap();
    let count = directory.path().join("count");
    let text = format!("echo . >> '{}'; exit 3", count.display());
    let one = version(directory.path(), "one", &text);
    let supervisor = Supervisor::open(directory.path(), program(Duration::from_secs(1))).unwrap();
    let begun = Instant::now();
    supervisor.run("one", &one).unwrap();
    until("it ends three times", || supervisor.crashes().0 >= 3);
    // Half a second and a second, of which the later half is by chance.
    assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());
    let (_, last) = supervisor.crashes();
    assert!(last.is_some_and(|it| it.contains("exit status: 3")));
    assert!(fs::read_to_string(&count).unwrap().lines().count() >= 3);
    let bad = Program { program: "./nothing".to_owned(), ..program(Duration::from_secs(1)) };
    let root = directory.path().join("other");
    fs::create_dir(&root).unwrap();
    let supervisor = Supervisor::open(&root, bad).unwrap();
    supervisor.run("one", &one).unwrap();
    let (_, last) = supervisor.crashes();
    assert!(last.is_some_and(|it| it.contains("./nothing")) && supervisor.running().is_none());
}

#[test]
fn what_an_agent_that_was_killed_left_behind_is_ended() {
    let directory = tempfile::tempdir().unwrap();
    let one = version(directory.path(), "one", "sleep 1000; sleep 1000");
    let killed = Supervisor::open(directory.path(), program(Duration::from_secs(1))).unwrap();
    killed.run("one", &one).unwrap();
    let note = fs::read_to_string(directory.path().join("process.json")).unwrap();
    let note: serde_json::Value = serde_json::from_str(&note).unwrap();
    let pid = note["pid"].to_string();
    assert!(is_alive(&pid));
    // This is the state after kill -9 of the agent: only an agent that finds the note ends the process.
    Leftover::new(directory.path()).end(Duration::from_secs(20)).unwrap();
    assert!(!is_alive(&pid) && !directory.path().join("process.json").exists());
    // A number that was given out again is somebody else.
    let own = std::process::id();
    let text = format!("{{\"pid\":{own},\"started\":\"1\",\"boot\":\"\"}}");
    fs::write(directory.path().join("process.json"), text).unwrap();
    Leftover::new(directory.path()).end(Duration::from_secs(1)).unwrap();
}

fn hook(text: &str, timeout: Duration) -> Hook {
    let arguments = vec!["-c".to_owned(), text.to_owned(), "probe".to_owned()];
    Hook { program: "sh".to_owned(), arguments, timeout }
}

#[test]
fn a_program_says_whether_it_is_well() {
    let place = Path::new("/the version");
    let minute = Duration::from_secs(60);
    assert_eq!(hook("test \"$1\" = '/the version'", minute).probe(place), Health::Well);
    let unwell = hook("exit 1", minute).probe(place);
    assert!(matches!(&unwell, Health::Unwell(why) if why.contains("exit status: 1")), "{unwell:?}");
    let slow = hook("sleep 1000", Duration::from_millis(100)).probe(place);
    assert!(matches!(&slow, Health::Unwell(why) if why.contains("more than")), "{slow:?}");
}

#[test]
fn a_hook_that_takes_too_long_ends_with_all_that_it_has_started() {
    let directory = tempfile::tempdir().unwrap();
    let child = directory.path().join("child");
    let text = format!("sleep 1000 & echo $! > '{}'; wait", child.display());
    // The limit grows until the hook has had the time to start its child, however busy the machine is.
    for limit in [200, 2_000, 20_000].map(Duration::from_millis) {
        let ended = hook(&text, limit).run(directory.path());
        assert!(matches!(ended, Err(HookError::TimedOut(..))), "{ended:?}");
        if fs::read_to_string(&child).is_ok_and(|it| it.ends_with('\n')) {
            break;
        }
    }
    let child = written(&child);
    until("its child has ended", || !is_alive(&child));
}

#[test]
fn an_address_says_whether_it_is_well() {
    use std::io::{Read as _, Write as _};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/healthz", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for answer in ["204 No Content", "503 Service Unavailable"] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 4096];
            let length = stream.read(&mut asked).unwrap();
            assert!(asked[..length].starts_with(b"GET /healthz "));
            let answer =
                format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).unwrap();
        }
        // Then it takes a question, and does not answer.
        let _silent = listener.accept().unwrap();
        std::thread::park_timeout(Duration::from_secs(60));
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tls = kiln_net::tls::without_trust().unwrap();
    let options = kiln_net::http::Options::new(tls, Duration::from_secs(20));
    let mut probe = HttpProbe {
        client: kiln_net::http::client(options).unwrap(),
        url: kiln_net::urls::parse(&url).unwrap(),
        timeout: Duration::from_secs(20),
        runtime: runtime.handle().clone(),
    };
    assert_eq!(probe.probe(Path::new("/")), Health::Well);
    let unwell = probe.probe(Path::new("/"));
    assert!(matches!(&unwell, Health::Unwell(why) if why.contains("503")), "{unwell:?}");
    probe.timeout = Duration::from_millis(100);
    let slow = probe.probe(Path::new("/"));
    assert!(matches!(&slow, Health::Unwell(why) if why.contains("no answer")), "{slow:?}");
}
