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
        assert_eq!(ran.succeeded(), " 00 00 00\n8\nout\nfd\nfd full null ptmx pts random shm stderr stdin stdout tty urandom zero");
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

    async fn inputs_are_the_root_where_that_is_wanted(slot: &mut Fixture) {
        let lib = slot.inputs().join("lib");
        fs::create_dir_all(&lib).unwrap();
        fs::set_permissions(&lib, PermissionsExt::from_mode(0o777)).unwrap();
        symlink("lib", slot.inputs().join("bin")).unwrap();
        copy_shell(&lib);
        slot.input("tmp/hidden", "");
        slot.input("work/script", "echo $PWD /* /tmp/*; : > /dev/null; echo $$ > ../made; : > /lib/new\n");
        let mut spec = slot.command(&["/lib/ld.so", "--library-path", "/lib", "/bin/sh", "script"]);
        spec.working_directory = "work".to_owned();
        spec.root = RootFs::Inputs;
        for _ in 0..2 {
            let ran = slot.run(&spec).await;
            assert_eq!(ran.succeeded(), "/work /bin /dev /lib /proc /tmp /work /tmp/*");
            assert_eq!(ran.output("made").as_deref(), Ok("2\n"), "a process namespace of its own");
            assert_eq!(ran.output("lib/new").as_deref(), Ok(""));
            assert!(!lib.join("new").exists(), "the inputs stay as they are");
        }
        // Nothing of the root before it is left, and its own /proc is the action's.
        let mut spec = slot.command(&["/lib/ld.so", "--library-path", "/lib", "/bin/sh", "-c",
            "cd /; cd ..; echo /kiln* /proc/[0-9]*; while read line; do echo \"$line\"; done < /proc/self/mounts"]);
        spec.root = RootFs::Inputs;
        let ran = slot.run(&spec).await;
        let text = ran.succeeded();
        assert!(text.starts_with("/kiln* /proc/1 /proc/2\n"), "{text}");
        assert!(!text.contains("/kiln/root") && !text.contains("/machine"), "{text}");
        assert_eq!(slot.sh("echo $PWD").await.succeeded(), "/kiln/root");
    }

    async fn inputs_are_changed_in_place_only_where_that_is_wanted(slot: &mut Fixture) {
        slot.input("src/deep/file", "one\n");
        let original = slot.input("other/file", "one\n");
        symlink("../../other", slot.inputs().join("src/link")).unwrap();
        let script = "echo two >> src/deep/file && touch src/deep/file; cat src/deep/file; \
                      echo two 2>/dev/null >> src/link/file || echo refused";
        let mut spec = slot.shell(script);
        spec.writable = vec!["src".into(), "absent".into(), "src/link".into()];
        for _ in 0..2 {
            let ran = slot.run(&spec).await;
            assert_eq!(ran.succeeded(), "one\ntwo\nrefused");
            assert_eq!(ran.output("src/deep/file").as_deref(), Ok("one\ntwo\n"));
        }
        assert_eq!(fs::read_to_string(original).unwrap(), "one\n");
        let source = slot.inputs().join("src/deep/file");
        assert_eq!(fs::read_to_string(source).unwrap(), "one\n");

        fs::write(slot.inputs().join("src/large"), vec![1; 1 << 20]).unwrap();
        spec.limits.disk_bytes = Some(300_000);
        let ran = slot.run(&spec).await;
        assert_eq!(ran.ending, Ending::Exited(126));
        assert!(ran.stderr.contains("more than it may write"), "{}", ran.stderr);
    }

    async fn inputs_that_cannot_be_the_root_say_why(slot: &mut Fixture) {
        for (name, link) in [("dev", true), ("proc", false)] {
            let path = slot.inputs().join(name);
            if link { symlink("/usr", &path).unwrap() } else { fs::write(&path, "").unwrap() }
            let mut spec = slot.command(&["/bin/sh"]);
            spec.root = RootFs::Inputs;
            let ran = slot.run(&spec).await;
            assert_eq!(ran.ending, Ending::Exited(127));
            assert!(ran.stderr.contains(&format!("{name:?} is not a directory")), "{}", ran.stderr);
            fs::remove_file(path).unwrap();
        }
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
            assert_eq!(ran.succeeded(), "of the image /bin /dev /etc /kiln /lib /proc /sys /tmp /tmp/*\nread-only");
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
