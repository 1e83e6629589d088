//! What an action can see and change.

use std::net::TcpListener;

use kiln_executor::sandbox::{Ending, RootFs};

use crate::both;
use crate::harness::Fixture;

both! {
    async fn only_the_actions_own_processes_are_seen(slot: &mut Fixture) {
        let ran = slot.sh("echo /proc/[0-9]*; echo $$").await;
        assert_eq!(ran.succeeded(), "/proc/1 /proc/2\n2");
        slot.sh("! kill -KILL 1 2>/dev/null; ! ls /proc/1/fd 2>/dev/null; kill -0 1; true").await.succeeded();
    }

    async fn the_environment_is_exactly_the_declared_one(slot: &mut Fixture) {
        let mut spec = slot.command(&["/usr/bin/env", "-0"]);
        spec.environment = vec![(b"B".to_vec(), b"2\n=".to_vec()), (b"A".to_vec(), vec![0xff])];
        let ran = slot.run(&spec).await;
        assert_eq!(ran.succeeded(), "B=2\n=\0A=\u{fffd}\0");
        spec.environment.clear();
        assert_eq!(slot.run(&spec).await.succeeded(), "");
    }

    async fn user_host_and_directory_are_fixed(slot: &mut Fixture) {
        let ran = slot.sh("id -u; id -g; id -un; uname -n; pwd; umask; readlink /proc/self/fd/0").await;
        assert_eq!(ran.succeeded(), "1000\n1000\nkiln\nkiln\n/kiln/root\n0022\n/dev/null");
    }

    async fn nothing_is_gained_by_privileges(slot: &mut Fixture) {
        let ran = slot.sh("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status").await;
        let status = ran.succeeded().replace('\t', " ");
        for line in ["CapInh: 0000000000000000", "CapPrm: 0000000000000000", "CapEff: 0000000000000000",
                     "CapBnd: 0000000000000000", "CapAmb: 0000000000000000", "NoNewPrivs: 1", "Seccomp: 2"] {
            assert!(status.contains(line), "{line} is not in {status}");
        }
        for command in ["unshare --user true", "unshare --mount true", "mount -t tmpfs none /tmp",
                        "nsenter --net=/proc/1/ns/net true", "chroot / true", "dmesg", "hostname other"] {
            let ran = slot.sh(&format!("{command} 2>&1")).await;
            assert!(!matches!(ran.ending, Ending::Exited(0)), "{command}: {}", ran.stdout);
        }
    }

    async fn only_standard_descriptors_are_inherited(slot: &mut Fixture) {
        let ran = slot.command(&["/bin/ls", "/proc/self/fd"]);
        // The fourth is the listed directory itself.
        assert_eq!(slot.run(&ran).await.succeeded(), "0\n1\n2\n3");
    }

    async fn there_is_no_network_but_loopback(slot: &mut Fixture) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
        assert_ne!(slot.sh(&script).await.ending, Ending::Exited(0));
        let ran = slot.sh("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '").await;
        assert_eq!(ran.succeeded(), "lo");
        let ran = slot.command(&["python3", "-c", LOOPBACK]);
        assert_eq!(slot.run(&ran).await.succeeded(), "hello");
        let mut spec = slot.shell(&script);
        spec.network = true;
        slot.run(&spec).await.succeeded();
    }

    async fn ports_of_an_earlier_action_are_free(slot: &mut Fixture) {
        let spec = slot.command(&["python3", "-c", LOOPBACK]);
        for _ in 0..3 {
            assert_eq!(slot.run(&spec).await.succeeded(), "hello");
        }
    }

    async fn writes_reach_no_input(slot: &mut Fixture) {
        let file = slot.input("dir/file", "original");
        slot.sh("chmod u+w dir dir/file 2>/dev/null; echo changed > dir/file; rm -f dir/file; true").await.succeeded();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "original");
        assert_eq!(slot.sh("cat dir/file").await.succeeded(), "original");
    }

    async fn nothing_outside_the_input_root_can_be_written(slot: &mut Fixture) {
        let script = "for d in / /etc /usr /usr/bin /bin /lib /opt /dev /kiln /home /proc /proc/sys /run /sys /sys/devices/system/cpu /var; do \
                        if [ -d $d ] && (: > $d/kiln-was-here) 2>/dev/null; then echo $d; fi; done; \
                      for f in /etc/passwd /usr/bin/env /dev/shm/../null2; do (: >> $f) 2>/dev/null && echo $f; done; true";
        assert_eq!(slot.sh(script).await.succeeded(), "");
    }

    async fn the_machine_is_not_visible(slot: &mut Fixture) {
        let secret = slot.dir.path().join("secret");
        std::fs::write(&secret, "s").unwrap();
        let ran = slot.sh(&format!("ls -A {} /root /work /mnt 2>/dev/null; cd /home; ls -A . /run/.", secret.display())).await;
        assert_eq!(ran.succeeded(), ".:\n\n/run/.:");
        let ran = slot.sh("cat /etc/passwd; ls /etc/shadow /etc/hostname /etc/machine-id 2>/dev/null; true").await;
        let users: Vec<_> = ran.succeeded().lines().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(users, ["root", "kiln", "nobody"]);
        let mounts = slot.sh("cat /proc/self/mountinfo").await;
        assert!(!mounts.succeeded().contains("/scratch "), "{}", mounts.stdout);
    }

    async fn each_action_starts_with_nothing_of_the_last(slot: &mut Fixture) {
        slot.sh("touch /tmp/a /dev/shm/b c /var/tmp/d; ipcmk -M 100 >/dev/null").await.succeeded();
        let ran = slot.sh("ls -A /tmp /dev/shm . ; ipcs -m | grep -c 0x; true").await;
        assert_eq!(ran.succeeded(), "/dev/shm:\n\n/tmp:\n\n.:\n0".replace("/dev/shm:\n\n/tmp:\n\n.:\n", ".:\n\n/dev/shm:\n\n/tmp:\n"));
    }

    async fn a_link_out_of_the_outputs_is_only_a_link(slot: &mut Fixture) {
        let ran = slot.sh("ln -s /etc/passwd out; ln -s ../../../../etc/passwd up; echo real > file").await;
        ran.succeeded();
        assert_eq!(ran.output("file").as_deref(), Ok("real\n"));
        for path in ["out", "up", "../../etc/passwd", "/etc/passwd"] {
            assert!(ran.output(path).is_err(), "{path}");
        }
    }

    async fn outputs_are_readable_until_the_next_run(slot: &mut Fixture) {
        slot.input("in", "input");
        let mut spec = slot.shell("echo made > a/b/new; mkdir -p x/y; echo deep > x/y/z; cat in > a/copy");
        spec.directories = vec!["a/b".to_owned()];
        let ran = slot.run(&spec).await;
        ran.succeeded();
        for (path, content) in [("a/b/new", "made\n"), ("x/y/z", "deep\n"), ("a/copy", "input"), ("in", "input")] {
            assert_eq!(ran.output(path).as_deref(), Ok(content), "{path}");
        }
        drop(ran);
        assert_eq!(slot.sh("ls").await.succeeded(), "in");
    }

    async fn output_directories_among_the_inputs_are_the_actions_own(slot: &mut Fixture) {
        slot.input("bin/pkg/in", "input");
        for path in ["bin/pkg", "bin"] {
            let path = slot.inputs().join(path);
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
        }
        let mut spec = slot.shell("cat in > out && ls");
        "bin/pkg".clone_into(&mut spec.working_directory);
        spec.directories = vec!["bin/pkg".to_owned(), "bin/other".to_owned()];
        let ran = slot.run(&spec).await;
        assert_eq!(ran.succeeded(), "in\nout");
        assert_eq!(ran.output("bin/pkg/out").as_deref(), Ok("input"));
        for path in ["bin", "bin/pkg"] {
            let path = slot.inputs().join(path);
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
    }

    async fn many_trees_with_awkward_names_make_one_root(slot: &mut Fixture) {
        let mut spec = slot.shell("cat f* | tr '\\n' ' '");
        spec.lower.clear();
        for number in 0..60 {
            let tree = slot.dir.path().join(format!("tree:{number},with a name that is rather long, to fill the page"));
            std::fs::create_dir(&tree).unwrap();
            std::fs::write(tree.join(format!("f{number:02}")), format!("{number}\n")).unwrap();
            spec.lower.push(tree);
        }
        let expected: Vec<_> = (0..60).map(|number| number.to_string()).collect();
        assert_eq!(slot.run(&spec).await.succeeded(), expected.join(" "));
    }

    async fn no_inputs_at_all_is_an_empty_root(slot: &mut Fixture) {
        let mut spec = slot.shell("ls -A; echo x > y");
        spec.lower.clear();
        let ran = slot.run(&spec).await;
        assert_eq!(ran.succeeded(), "");
        assert_eq!(ran.output("y").as_deref(), Ok("x\n"));
        spec.root = RootFs::Empty;
        assert_eq!(slot.run(&spec).await.ending, Ending::Exited(127));
    }
}

/// Listens, connects to itself, and leaves the connection in TIME_WAIT.
const LOOPBACK: &str = "
import socket
server = socket.socket()
server.bind(('127.0.0.1', 8765))
server.listen()
client = socket.create_connection(('127.0.0.1', 8765))
peer, _ = server.accept()
peer.sendall(b'hello')
peer.close()
print(client.recv(5).decode())
client.close()
";
