//! The files of the server that no action may see, wherever they lie.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kiln_executor::sandbox::Ending;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::harness::{Fixture, as_root, block_on};

/// The data of a server that lies in a directory that actions see.
#[test]
fn what_is_hidden_is_hidden_wherever_it_lies() {
    as_root(|| {
        block_on(async {
            let place = tempfile::Builder::new().prefix("kiln-test-").tempdir_in("/opt").unwrap();
            for (path, content) in
                [("data/blob", "secret"), ("etc/key", "secret"), ("shown", "public")]
            {
                let path = place.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
            let (data, key) = (place.path().join("data"), place.path().join("etc/key"));
            let mut slot = Fixture::with(|config| config.hidden = vec![data, key.clone()]).await;
            let script = format!(
                "cd {}; cat shown; ls data etc; cat data/blob etc/key 2>/dev/null",
                place.path().display()
            );
            for network in [false, true] {
                let mut spec = slot.shell(&script);
                spec.network = network;
                let ran = slot.run(&spec).await;
                assert_eq!(ran.stdout, "publicdata:\n\netc:\n", "{}", ran.stderr);
            }
            // A key that is replaced stays out of sight.
            fs::write(place.path().join("etc/new"), "newer").unwrap();
            fs::rename(place.path().join("etc/new"), &key).unwrap();
            let ran = slot.sh(&format!("cat {}", key.display())).await;
            assert_eq!(ran.ending, Ending::Exited(1), "{}", ran.stdout);
            slot.stop().await;
        });
    });
}

fn bind(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

#[test]
fn what_is_hidden_is_hidden_at_each_place_that_mounts_give_it() {
    as_root(|| {
        // Only this thread and the processes that it starts get the new namespace.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let place = tempfile::Builder::new().prefix("kiln-test-").tempdir_in("/opt").unwrap();
        fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let at = |path: &str| place.path().join(path);
        // In a directory that no action sees anyway.
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("kiln/data");
        fs::create_dir_all(data.join("blobs")).unwrap();
        fs::write(data.join("blobs/blob"), "secret").unwrap();
        fs::write(home.path().join("kiln/shown"), "public").unwrap();
        for closed in [home.path(), &data] {
            fs::set_permissions(closed, PermissionsExt::from_mode(0o755)).unwrap();
        }
        bind(&data, &at("whole"));
        bind(&home.path().join("kiln"), &at("with around it"));
        bind(&data.join("blobs"), &at("part"));
        block_on(async {
            let mut slot = Fixture::with(|config| config.hidden = vec![data.clone()]).await;
            let script = "cat */shown; find . -name blob; ls";
            let ran = slot.sh(&format!("cd {} && {{ {script}; }}", place.path().display())).await;
            assert_eq!(ran.succeeded(), "publicpart\nwhole\nwith around it");
            slot.stop().await;
        });
        for mounted in ["whole", "with around it", "part"] {
            nix::mount::umount(&at(mounted)).unwrap();
        }
    });
}
