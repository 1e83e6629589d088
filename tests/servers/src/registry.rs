//! Debian's `docker-registry` (`KILN_REGISTRY`) as a process of its own, and images made by `umoci`
//! (`KILN_UMOCI`) that `skopeo` (`KILN_SKOPEO`) pushes to it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process::{Process, free_port};

const ATTEMPTS: usize = 5;
/// A file of users for the registry: `user` with the password `pass`, hashed by bcrypt.
const HTPASSWD: &str = "user:$2y$04$kJARNFfq2xbcTJNVQ7HzfOLuywhuT0DLCUbTkuorAKe3m5aQ6iRre\n";

/// A registry that speaks plain HTTP on loopback.
pub struct Registry {
    _process: Process,
    _dir: TempDir,
    port: u16,
}

impl Registry {
    /// Starts a registry that everybody may use. `None`: there is none here, and that is allowed.
    pub fn start() -> Option<Self> {
        Self::launch(false)
    }

    /// Starts a registry that wants the user `user` with the password `pass`.
    pub fn start_private() -> Option<Self> {
        Self::launch(true)
    }

    fn launch(private: bool) -> Option<Self> {
        let program = crate::program("KILN_REGISTRY")?;
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        fs::write(path("htpasswd"), HTPASSWD).unwrap();
        let mut log = String::new();
        for _ in 0..ATTEMPTS {
            let port = free_port();
            let auth =
                format!("auth: {{htpasswd: {{realm: kiln, path: '{}'}}}}\n", path("htpasswd"));
            let config = format!(
                "version: 0.1\nstorage: {{filesystem: {{rootdirectory: '{}'}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n{}",
                path("data"),
                if private { &auth } else { "" }
            );
            fs::write(path("config.yml"), config).unwrap();
            let mut command = Command::new("sh");
            command
                .args(["-c", "exec \"$0\" serve \"$1\" 2>&1"])
                .arg(&program)
                .arg(path("config.yml"));
            let process = Process::spawn(&mut command);
            match process.wait_for("listening on") {
                Ok(()) => return Some(Self { _process: process, _dir: dir, port }),
                Err(seen) => log = seen,
            }
        }
        panic!("docker-registry does not start:\n{log}");
    }

    /// The registry's address, as `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Pushes an image and returns its name with the digest, as `container-image` wants it.
    pub fn push(&self, image: &LocalImage, repository: &str) -> String {
        let target = format!("docker://{}/{repository}:latest", self.host());
        let skopeo = crate::program("KILN_SKOPEO").expect("skopeo is there with the registry");
        run(Command::new(skopeo)
            .args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"])
            .args(["--dest-creds", "user:pass"])
            .arg(format!("oci:{}:it", image.layout().display()))
            .arg(target));
        format!("docker://{}/{repository}@{}", self.host(), image.digest)
    }
}

/// An image layout on this machine with one image, `it`.
pub struct LocalImage {
    dir: TempDir,
    /// The digest of the image's manifest, as `sha256:...`.
    pub digest: String,
}

impl LocalImage {
    /// busybox as `/bin/sh` and the like, and what `fill` adds. `None`: there is no umoci here, and
    /// that is allowed.
    pub fn build(fill: impl FnOnce(&Path)) -> Option<Self> {
        let umoci = crate::program("KILN_UMOCI")?;
        let dir = tempfile::tempdir().unwrap();
        let (layout, bundle) = (dir.path().join("layout"), dir.path().join("bundle"));
        let image = format!("{}:it", layout.display());
        run(Command::new(&umoci).args(["init", "--layout"]).arg(&layout));
        run(Command::new(&umoci).args(["new", "--image", &image]));
        run(Command::new(&umoci).args(["unpack", "--rootless", "--image", &image]).arg(&bundle));
        let root = bundle.join("rootfs");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::copy(crate::program("KILN_BUSYBOX")?, root.join("bin/busybox")).unwrap();
        for name in ["sh", "cat", "echo", "ls", "id", "touch", "env", "true", "sleep"] {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        fs::write(root.join("etc/os-release"), "NAME=\"an image\"\n").unwrap();
        fill(&root);
        run(Command::new(&umoci).args(["repack", "--image", &image]).arg(&bundle));
        run(Command::new(&umoci)
            .args(["config", "--image", &image, "--config.user=4242", "--config.workingdir=/etc"])
            .args(["--config.env=FROM_IMAGE=yes", "--config.env=PATH=/tools:/bin"]));
        fs::remove_dir_all(&bundle).unwrap();
        let index = fs::read_to_string(layout.join("index.json")).unwrap();
        let digest = index.split("\"digest\":\"").nth(1).and_then(|rest| rest.split('"').next());
        Some(Self { digest: digest.expect("an image in the index").to_owned(), dir })
    }

    pub fn layout(&self) -> PathBuf {
        self.dir.path().join("layout")
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
}
