use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use kiln_deploy::rollouts::machine::Generation;
use kiln_deploy::rollouts::parts::{Applied, Traffic};
use kiln_test_servers::{Process, free_port, program};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::rig::{
    Users, assert_shares, counted, declared, listening, logged, of, place, said, server, servers,
    split, text,
};

struct HaProxy {
    _process: Process,
    dir: tempfile::TempDir,
    program: PathBuf,
    address: String,
}

impl HaProxy {
    /// `None`: there is none, and the test is skipped.
    async fn start() -> Option<Self> {
        let program = program("KILN_HAPROXY")?;
        let dir = tempfile::Builder::new().prefix("kiln-haproxy").tempdir().unwrap();
        let at = dir.path();
        std::fs::create_dir(at.join("kiln")).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let configuration = format!(
            "global
    stats socket {dir}/admin.sock level admin expose-fd listeners
defaults
    mode http
    retries 0
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend users
    bind {address}
    use_backend %[str(api.prod)]
",
            dir = at.display(),
        );
        std::fs::write(at.join("haproxy.cfg"), configuration).unwrap();
        // The master has the process's id for as long as it runs; the shell leaves it behind for the reload.
        let script = "echo $$ > \"$1/pid\"; exec \"$2\" -W -f \"$1/haproxy.cfg\" -f \"$1/kiln\" 2> \"$1/log\"";
        let process =
            Process::spawn(Command::new("sh").args(["-c", script, "sh"]).arg(at).arg(&program));
        listening(&address).await;
        // Earlier it would not hear that it is to reload.
        logged(&at.join("log"), "Loading success").await;
        Some(Self { _process: process, dir, program, address })
    }

    fn traffic(&self, reload: &str, timeout: u64) -> Arc<dyn Traffic> {
        let (program, dir) = (self.program.display(), self.dir.path().display());
        declared(&format!(
            "kind = \"haproxy\"\ndirectory = \"{dir}/kiln\"\nsocket = \"{dir}/admin.sock\"\n\
             test = [\"{program}\", \"-c\", \"-f\", \"{dir}/haproxy.cfg\", \"-f\", \"{dir}/kiln\"]\n\
             {reload}\ntimeout_s = {timeout}",
        ))
    }

    fn real(&self) -> Arc<dyn Traffic> {
        let pid = self.dir.path().join("pid");
        let script = format!("kill -USR2 $(cat {})", pid.display());
        self.traffic(&format!("reload = [\"sh\", \"-c\", \"{script}\"]"), 20)
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("kiln/api.prod.cfg")
    }

    async fn by_hand(&self, command: &str) -> String {
        let socket = self.dir.path().join("admin.sock");
        let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
        stream.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_are_met_and_no_request_is_lost_by_weights_and_reloads() {
    let Some(haproxy) = HaProxy::start().await else { return };
    let (traffic, servers) = (haproxy.real(), servers().await);
    assert_eq!(traffic.observe(&place()).await.unwrap(), None);
    let first = split(&servers, 1, 10.0);
    assert_eq!(traffic.set(&place(), &first).await.unwrap(), Applied::Now);
    assert_eq!(traffic.observe(&place()).await.unwrap(), Some(first));
    assert_shares(&haproxy.address, &[("a", 45.0), ("b", 45.0), ("c", 10.0)]).await;

    // Weights go over its socket: nobody has to reload it. Then another server comes, by a reload.
    let by_socket = haproxy.traffic("", 20);
    let mut others = servers.clone();
    let users = Users::start(&haproxy.address);
    for change in 2..14 {
        let share = if change % 2 == 0 { 50.0 } else { 1.0 };
        by_socket.set(&place(), &split(&servers, change, share)).await.unwrap();
        let counts = counted(&haproxy.address, 40).await;
        assert!(of(&counts, "c") <= 20 + 12 && of(&counts, "a") > 0, "{share} %: {counts:?}");
    }
    for change in 14..20 {
        others[2] = server(if change % 2 == 0 { "d" } else { "c" }).await;
        traffic.set(&place(), &split(&others, change, 50.0)).await.unwrap();
    }
    let counts = users.stop().await;
    let answered: usize = ["a", "b", "c", "d"].iter().map(|who| of(&counts, who)).sum();
    assert_eq!(answered, counts.values().sum::<usize>(), "lost: {counts:?}");
    assert!(answered > 500 && of(&counts, "d") > 0, "{counts:?}");

    traffic.set(&place(), &split(&others, 20, 100.0)).await.unwrap();
    assert_shares(&haproxy.address, &[("c", 100.0)]).await;
    traffic.set(&place(), &split(&others, 21, 0.0)).await.unwrap();
    assert_shares(&haproxy.address, &[("a", 50.0), ("b", 50.0)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_or_not_taken_is_put_back() {
    let Some(haproxy) = HaProxy::start().await else { return };
    let (traffic, servers) = (haproxy.real(), servers().await);
    let good = split(&servers, 5, 10.0);
    traffic.set(&place(), &good).await.unwrap();
    let written = text(&haproxy.file());

    let other = haproxy.dir.path().join("kiln/other.cfg");
    std::fs::write(&other, "backend x\n    nonsense\n").unwrap();
    let error = said(&*traffic.set(&place(), &split(&servers, 6, 50.0)).await.unwrap_err());
    assert!(error.contains("refuses the configuration") && error.contains("nonsense"), "{error}");
    std::fs::remove_file(other).unwrap();

    let mut more = servers.clone();
    more[2] = server("d").await;
    for (reload, part) in [
        ("", "no program is named that reloads it"),
        ("reload = [\"true\"]", "it has other servers in api.prod"),
        ("reload = [\"false\"]", "could not be told to reload"),
    ] {
        let broken = haproxy.traffic(reload, 6);
        let error = said(&*broken.set(&place(), &split(&more, 7, 50.0)).await.unwrap_err());
        assert!(error.contains(part), "{error}");
        assert_eq!(text(&haproxy.file()), written);
        assert_eq!(traffic.observe(&place()).await.unwrap(), Some(good.clone()));
    }
    assert_shares(&haproxy.address, &[("a", 45.0), ("b", 45.0), ("c", 10.0)]).await;
    let stale = traffic.set(&place(), &split(&servers, 4, 50.0)).await.unwrap();
    assert_eq!(stale, Applied::Stale(Generation { fence: 1, change: 5 }));

    // Somebody turned a knob: it is seen, and set right when the same is said again.
    assert_eq!(haproxy.by_hand("set weight api.prod/c 200").await.trim(), "");
    let error = said(&*traffic.observe(&place()).await.unwrap_err());
    assert!(error.contains("c has the weight 200"), "{error}");
    assert_eq!(haproxy.traffic("", 20).set(&place(), &good).await.unwrap(), Applied::Now);
    assert_eq!(traffic.observe(&place()).await.unwrap(), Some(good));
    assert_shares(&haproxy.address, &[("a", 45.0), ("b", 45.0), ("c", 10.0)]).await;
}
