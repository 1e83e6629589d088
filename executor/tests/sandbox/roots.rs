//! The root file systems: the machine's toolchains, an image, nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_executor::sandbox::{Ending, RootFs};

use crate::both;
use crate::harness::Fixture;

both! {
    async fn the_machines_toolchains_work(slot: &mut Fixture) {
        slot.input("hello.cc", "#include <iostream>\nint main() { std::cout << \"c++\\n\"; }\n");
        slot.input("Hello.java", "class Hello { public static void main(String[] a) { System.out.println(\"java\"); } }");
        let scripts = [
            ("g++", "g++ -O1 hello.cc -o hello && ./hello", "c++"),
            ("python3", "/usr/bin/python3 -c 'import ssl, sqlite3; print(\"python\")'", "python"),
            ("perl", "perl -e 'use POSIX; print \"perl\\n\"'", "perl"),
            ("java", "java -Xmx64m -version 2>/dev/null && echo java", "java"),
        ];
        for (program, script, expected) in scripts {
            if !Path::new("/usr/bin").join(program).exists() {
                eprintln!("SKIPPED: no {program} on this machine");
                continue;
            }
            let mut spec = slot.shell(script);
            spec.limits.memory_bytes = Some(2 << 30);
            assert_eq!(slot.run(&spec).await.succeeded(), expected, "{program}");
        }
    }

    async fn devices_work(slot: &mut Fixture) {
        let script = "head -c 3 /dev/zero | od -An -tx1; head -c 8 /dev/urandom | wc -c; echo x > /dev/null; \
                      echo out > /dev/stdout; cat <(echo fd); ! echo x 2>/dev/null > /dev/full; \
                      ls /dev | tr '\\n' ' '";
        let ran = slot.sh(script).await;
        assert_eq!(ran.succeeded(), " 00 00 00\n8\nout\nfd\nfd full null random shm stderr stdin stdout tty urandom zero");
    }

    async fn a_root_of_nothing_has_only_the_inputs(slot: &mut Fixture) {
        let shell = copy_shell(&slot.inputs());
        let mut spec = slot.command(&["./ld.so", "--library-path", ".", "./sh", "-c", "echo /* /etc/*; read x < file; echo $x"]);
        slot.input("file", "content\n");
        spec.root = RootFs::Empty;
        assert_eq!(slot.run(&spec).await.succeeded(), "/dev /kiln /proc /tmp /etc/*\ncontent");
        assert!(!shell.is_empty());
        let mut spec = slot.command(&["/bin/sh"]);
        spec.root = RootFs::Empty;
        assert_eq!(slot.run(&spec).await.ending, Ending::Exited(127));
    }

    async fn an_image_is_the_root_and_stays_as_it_is(slot: &mut Fixture) {
        let image = slot.dir.path().join("image");
        let lib = image.join("lib");
        fs::create_dir_all(&lib).unwrap();
        fs::create_dir_all(image.join("etc")).unwrap();
        fs::create_dir_all(image.join("tmp/hidden")).unwrap();
        symlink("lib", image.join("bin")).unwrap();
        fs::write(image.join("etc/os-release"), "of the image\n").unwrap();
        copy_shell(&lib);
        let mut spec = slot.command(&["/lib/ld.so", "--library-path", "/lib", "/bin/sh", "-c",
            "read x < /etc/os-release; echo $x /* /tmp/*; (: > /etc/new) 2>/dev/null || echo read-only; echo made > out"]);
        spec.root = RootFs::Directory(image.clone());
        for _ in 0..2 {
            let ran = slot.run(&spec).await;
            assert_eq!(ran.succeeded(), "of the image /bin /dev /etc /kiln /lib /proc /tmp /tmp/*\nread-only");
            assert_eq!(ran.output("out").as_deref(), Ok("made\n"));
        }
        spec.root = RootFs::Directory(slot.dir.path().join("missing"));
        let error = slot.try_run(&spec, tokio_util::sync::CancellationToken::new()).await.unwrap_err();
        assert!(error.to_string().contains("missing: No such file"), "{error}");
        assert_eq!(slot.sh("echo well").await.succeeded(), "well");
    }
}

/// A dynamic shell with all that it needs, as `sh` and `ld.so` in `to`.
fn copy_shell(to: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg("/bin/dash").output().expect("ldd runs");
    let text = String::from_utf8(output.stdout).unwrap();
    let libraries: Vec<PathBuf> =
        text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect();
    let mut copied = Vec::new();
    for library in &libraries {
        let name = library.file_name().unwrap().to_str().unwrap();
        let target = to.join(if name.starts_with("ld-") { "ld.so" } else { name });
        fs::copy(library, &target).unwrap();
        copied.push(target);
    }
    fs::copy("/bin/dash", to.join("sh")).unwrap();
    for file in fs::read_dir(to).unwrap() {
        fs::set_permissions(file.unwrap().path(), PermissionsExt::from_mode(0o755)).unwrap();
    }
    copied
}
