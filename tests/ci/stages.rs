//! Stages of pipelines at a real server: a release that is promoted, a listed program with a secret, an environment
//! that is taken down whatever happens, and a command that is cancelled while it runs.

use std::path::Path;
use std::time::Instant;

use kiln_deploy::signing::{Scheme, SigningKey};
use kiln_test_servers::pause;
use serde_json::Value;

use crate::support::said::{self, Said};
use crate::support::server::{Server, command, get_json};

const SECRET: &str = "s3cret/token+17";

const SHIPS: &str = r#"
name = "ships"

[[stage]]
name = "build"
kind = "build"
script = "mkdir out; tr a-z A-Z < word > out/word; echo built"
outputs = ["out"]

[[stage]]
name = "up"
kind = "preview"
preview = "folder"
act = "up"
keep = "50s"
needs = ["build"]

[[stage]]
name = "try"
needs = ["build", "up"]
from = ["build"]
environment = { AT = "${stages.up.address}" }
script = "echo \"$(cat out/word) at $AT\""

[[stage]]
name = "release"
kind = "release"
release = "team/app:1"
from = "build"
needs = ["build", "try"]

[[stage]]
name = "promote"
kind = "promote"
release = "${stages.release.release}"
to = "staging"
needs = ["release"]

[[stage]]
name = "deploy"
kind = "program"
program = "deploy"
needs = ["promote"]

[[stage]]
name = "down"
kind = "preview"
preview = "folder"
act = "down"
needs = ["deploy"]
on = "always"
"#;

const HANGS: &str = r#"
name = "hangs"

[[stage]]
name = "up"
kind = "preview"
preview = "folder"
act = "up"
keep = "8s"

[[stage]]
name = "hang"
needs = ["up"]
script = "echo begun; sleep 600"
"#;

/// Returns the file of secrets and programs that the operator lists. An environment is a folder here, which the
/// programs make and remove.
fn parts(dir: &Path) -> String {
    let there = dir.join("there");
    let (there, got) = (there.display(), dir.join("got"));
    let got = got.display();
    format!(
        r#"
[secrets.token]
command = ["printf", "{SECRET}\n"]

[programs.deploy]
run = ["sh", "-euc", "echo \"deploys $KILN_RUN with $TOKEN\"; printf '%s' \"$TOKEN\" | base64; printf '%s' \"$TOKEN\" > '{got}'"]
secrets = {{ TOKEN = "token" }}

[previews.folder]
up = ["sh", "-euc", "mkdir '{there}/'\"$KILN_PREVIEW\"; echo \"http://$KILN_PREVIEW.test\""]
down = ["sh", "-euc", "rm -rf '{there}/'\"$KILN_PREVIEW\""]
list = ["ls", "{there}"]
timeout_s = 1
"#
    )
}

fn start(dir: &Path) -> Server {
    let data = dir.join("data");
    let mut serve = command("127.0.0.1:0", &data, &["--workers", "1"]);
    serve.env("KILN_STAGES_PARTS", dir.join("parts.toml"));
    serve.env("KILN_RELEASES_KEY", dir.join("server.pem"));
    serve.env("KILN_PROMOTION_POLICY", dir.join("environments.toml"));
    Server::spawn(serve, &data)
}

fn kiln(server: &Server, dir: &Path, words: &[&str]) -> Said {
    said::kiln(Some(server), dir, words)
}

fn there(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("there")).expect("it is read").count()
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed().as_secs() < 40, "{what}");
        pause();
    }
}

/// Returns the files below a directory that contain these bytes.
fn holding(directory: &Path, bytes: &[u8]) -> Vec<std::path::PathBuf> {
    let (mut open, mut found) = (vec![directory.to_owned()], Vec::new());
    while let Some(path) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&path) else {
            let content = std::fs::read(&path).unwrap_or_default();
            if content.windows(bytes.len()).any(|it| it == bytes) {
                found.push(path);
            }
            continue;
        };
        open.extend(entries.map(|it| it.expect("it is read").path()));
    }
    found
}

#[test]
fn secrets_stay_where_they_belong_and_environments_go() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let dir = place.path();
    for folder in ["there", "sources"] {
        std::fs::create_dir(dir.join(folder)).expect("a directory");
    }
    for (name, text) in [
        ("sources/word", "hello\n".to_owned()),
        ("ships.toml", SHIPS.to_owned()),
        ("hangs.toml", HANGS.to_owned()),
        ("parts.toml", parts(dir)),
        ("environments.toml", "[environments.staging]\n".to_owned()),
        ("server.pem", SigningKey::generate(Scheme::EcdsaP256).expect("a key").1),
    ] {
        std::fs::write(dir.join(name), text).expect("a file");
    }
    let server = start(dir);
    let ran = kiln(&server, dir, &["pipeline", "run", "ships.toml", "--source", "sources"]);
    let said = ran.ends_with(0).stdout;
    assert!(said.contains("HELLO at http://kiln-"), "{said}");
    assert!(said.contains("with ***") && !said.contains("czNjcmV0"), "{said}");
    assert_eq!(std::fs::read_to_string(dir.join("got")).expect("it was run"), SECRET);
    assert_eq!(there(dir), 0, "{said}");
    let leaks = holding(&dir.join("data"), SECRET.as_bytes());
    assert!(leaks.is_empty(), "{leaks:?}");
    let staging = kiln(&server, dir, &["env", "show", "staging", "--json"]).ends_with(0).json();
    assert_eq!(staging["current"]["release"], "team/app:1", "{staging:#}");
    let all = get_json(&server.address, "/api/v1/previews");
    assert_eq!(all["previews"][0]["phase"], "gone", "{all:#}");

    let begun = kiln(&server, dir, &["pipeline", "run", "hangs.toml", "--detach", "--json"]);
    let id = begun.ends_with(0).json()["run"]["id"].as_str().expect("an id").to_owned();
    let run = |server: &Server| get_json(&server.address, &format!("/api/v1/pipelines/{id}"));
    let hangs = |run: &Value| run["stages"][1]["stands"] == "running";
    until("it hangs", || hangs(&run(&server)));
    assert_eq!(there(dir), 1);
    server.kill();

    // The killed server can no longer take the environment down. The next server does that, and goes on with the
    // other stages as well.
    let server = start(dir);
    until("it is taken down", || there(dir) == 0);
    until("it hangs again", || hangs(&run(&server)) && !running(&server).is_empty());
    kiln(&server, dir, &["pipeline", "cancel", &id, "--reason", "it hangs"]).ends_with(0);
    until("it is cancelled", || run(&server)["run"]["stands"] == "cancelled");
    until("its action has ended", || running(&server).is_empty());
}

fn running(server: &Server) -> Vec<Value> {
    let queue = get_json(&server.address, "/api/v1/queue");
    queue["running"].as_array().cloned().unwrap_or_default()
}
