use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use kiln_deploy::rollouts::machine::Generation;
use kiln_deploy::rollouts::parts::{Applied, Traffic};
use kiln_test_servers::{Process, free_port, program};

use crate::rig::{
    Users, assert_shares, counted, declared, listening, of, place, said, servers, split, text,
    until,
};

struct Nginx {
    _process: Process,
    dir: tempfile::TempDir,
    program: PathBuf,
    address: String,
    status: String,
}

impl Nginx {
    /// `None`: there is none, and the test is skipped.
    async fn start() -> Option<Self> {
        let program = program("KILN_NGINX")?;
        let dir = tempfile::Builder::new().prefix("kiln nginx").tempdir().unwrap();
        let at = dir.path();
        std::fs::create_dir(at.join("kiln")).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|of| format!("{of}_temp_path \"{}\";", at.join(of).display()))
            .concat();
        let configuration = format!(
            "daemon off; worker_processes 2; pid \"{dir}/pid\"; error_log \"{dir}/error.log\";
             events {{ worker_connections 512; }}
             http {{
               access_log off; {temporary}
               include \"{dir}/kiln/*.conf\";
               server {{ listen {address}; location / {{
                 set $to api.prod; proxy_pass http://$to; proxy_next_upstream off; }} }}
             }}",
            dir = at.display(),
        );
        std::fs::write(at.join("nginx.conf"), configuration).unwrap();
        let error_log = at.join("error.log");
        let process = Process::spawn(
            Command::new(&program).arg("-c").arg(at.join("nginx.conf")).arg("-e").arg(error_log),
        );
        listening(&address).await;
        let status = format!("127.0.0.1:{}", free_port());
        Some(Self { _process: process, dir, program, address, status })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("kiln").join(name)
    }

    fn traffic(&self, reload: &str, timeout: u64) -> Arc<dyn Traffic> {
        let (nginx, dir) = (self.program.display(), self.dir.path().display());
        let base =
            format!("\"{nginx}\", \"-c\", \"{dir}/nginx.conf\", \"-e\", \"{dir}/error.log\"");
        let reload = reload.replace("NGINX", &base);
        declared(&format!(
            "kind = \"nginx\"\ndirectory = \"{dir}/kiln\"\nstatus = \"{}\"\ntest = [{base}, \"-t\", \"-q\"]\n\
             reload = [{reload}]\nserver_options = \"max_fails=0\"\ntimeout_s = {timeout}",
            self.status,
        ))
    }

    fn real(&self) -> Arc<dyn Traffic> {
        self.traffic("NGINX, \"-s\", \"reload\"", 20)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_are_met_and_no_request_is_lost_while_it_reloads() {
    let Some(nginx) = Nginx::start().await else { return };
    let (traffic, servers) = (nginx.real(), servers().await);
    assert_eq!(traffic.observe(&place()).await.unwrap(), None);
    let first = split(&servers, 1, 10.0);
    assert_eq!(traffic.set(&place(), &first).await.unwrap(), Applied::Now);
    assert_eq!(traffic.observe(&place()).await.unwrap(), Some(first));
    // On a busy machine it takes old workers a while to hear that they are to end.
    until(&nginx.address, |counts| counts.keys().all(|who| who.len() == 1)).await;
    assert_shares(&nginx.address, &[("a", 45.0), ("b", 45.0), ("c", 10.0)]).await;

    let users = Users::start(&nginx.address);
    for change in 2..14 {
        let share = if change % 2 == 0 { 50.0 } else { 1.0 };
        assert_eq!(
            traffic.set(&place(), &split(&servers, change, share)).await.unwrap(),
            Applied::Now
        );
        // The split is in force as soon as the call returns, so the next requests follow it.
        let counts = counted(&nginx.address, 40).await;
        assert!(of(&counts, "c") <= 20 + 12 && of(&counts, "a") > 0, "{share} %: {counts:?}");
    }
    let counts = users.stop().await;
    let answered: usize = ["a", "b", "c"].iter().map(|who| of(&counts, who)).sum();
    assert_eq!(answered, counts.values().sum::<usize>(), "lost: {counts:?}");
    assert!(answered > 500, "{counts:?}");

    // All requests go to the new version, and then all go back at once.
    traffic.set(&place(), &split(&servers, 20, 100.0)).await.unwrap();
    until(&nginx.address, |counts| counts.len() == 1 && of(counts, "c") > 0).await;
    assert_shares(&nginx.address, &[("c", 100.0)]).await;
    traffic.set(&place(), &split(&servers, 21, 0.0)).await.unwrap();
    until(&nginx.address, |counts| of(counts, "c") == 0).await;
    assert_shares(&nginx.address, &[("a", 50.0), ("b", 50.0)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_or_not_taken_is_put_back() {
    let Some(nginx) = Nginx::start().await else { return };
    let (traffic, servers) = (nginx.real(), servers().await);
    let good = split(&servers, 5, 10.0);
    traffic.set(&place(), &good).await.unwrap();
    let written = text(&nginx.file("api.prod.conf"));

    // Another file of the balancer's configuration is broken, which is not Kiln's.
    std::fs::write(nginx.file("other.conf"), "upstream {").unwrap();
    let error = traffic.set(&place(), &split(&servers, 6, 50.0)).await.unwrap_err();
    let error = said(&*error);
    assert!(error.contains("refuses the configuration") && error.contains("other.conf"), "{error}");
    std::fs::remove_file(nginx.file("other.conf")).unwrap();

    for (reload, part) in [
        ("\"true\"", "does not do what it was told"),
        ("\"false\"", "could not be told to reload"),
        ("\"sh\", \"-c\", \"sleep 60\"", "took longer than 3s"),
    ] {
        let broken = nginx.traffic(reload, 3);
        let error = said(&*broken.set(&place(), &split(&servers, 7, 50.0)).await.unwrap_err());
        assert!(error.contains(part), "{error}");
        assert_eq!(text(&nginx.file("api.prod.conf")), written);
        assert_eq!(traffic.observe(&place()).await.unwrap(), Some(good.clone()));
    }
    assert_shares(&nginx.address, &[("a", 45.0), ("b", 45.0), ("c", 10.0)]).await;

    // A controller that was overtaken changes nothing; the same again is no work.
    let stale = traffic.set(&place(), &split(&servers, 4, 50.0)).await.unwrap();
    assert_eq!(stale, Applied::Stale(Generation { fence: 1, change: 5 }));
    let again = nginx.traffic("\"false\"", 20).set(&place(), &good).await.unwrap();
    assert_eq!(again, Applied::Now);

    // The program stopped between writing the file and reloading nginx. Kiln reports the split that is in
    // force, and the next change goes on from there.
    let half = text(&nginx.file("api.prod.conf")).replace("# tag ", "# tag 0");
    std::fs::copy(nginx.file("api.prod.conf"), nginx.file("api.prod.before")).unwrap();
    std::fs::write(nginx.file("api.prod.conf"), half).unwrap();
    assert_eq!(traffic.observe(&place()).await.unwrap(), Some(good));
    traffic.set(&place(), &split(&servers, 8, 20.0)).await.unwrap();
    assert_shares(&nginx.address, &[("a", 40.0), ("b", 40.0), ("c", 20.0)]).await;
}

#[tokio::test]
async fn files_of_others_are_left_alone() {
    let Some(nginx) = Nginx::start().await else { return };
    let (traffic, servers) = (nginx.real(), servers().await);
    std::fs::write(nginx.file("api.prod.conf"), "# mine\n").unwrap();
    let error = said(&*traffic.set(&place(), &split(&servers, 1, 10.0)).await.unwrap_err());
    assert!(error.contains("not of this program's making"), "{error}");
    assert_eq!(text(&nginx.file("api.prod.conf")), "# mine\n");

    // Names that would be configuration are refused before anything is written.
    let mut forged = split(&servers, 1, 10.0);
    forged.pools[1].members[0].name = "c; } server { listen 80".to_owned();
    let error = said(&*traffic.set(&place(), &forged).await.unwrap_err());
    assert!(error.contains("cannot name a server"), "{error}");

    // Another process holds the lock, as if it changed the balancer at the same time.
    std::fs::remove_file(nginx.file("api.prod.conf")).unwrap();
    let lock = std::fs::File::create(nginx.file("kiln.lock")).unwrap();
    lock.lock().unwrap();
    let hasty = nginx.traffic("\"true\"", 1);
    let error = said(&*hasty.set(&place(), &split(&servers, 1, 10.0)).await.unwrap_err());
    assert!(error.contains("somebody else has been changing"), "{error}");
}
