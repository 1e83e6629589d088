//! The command `kiln cas` against a real server.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn blobs_go_in_and_come_out() {
    let setting = setting().await;
    let Setting { kiln, directory, .. } = &setting;
    let source = directory.path().join("source");
    std::fs::create_dir_all(source.join("a/b")).expect("directories");
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(source.join("a/b/large.bin"), &large).expect("a file");
    std::fs::write(source.join("a/run.sh"), "#!/bin/sh\n").expect("a file");
    std::os::unix::fs::symlink("run.sh", source.join("a/link")).expect("a link");
    let path = |path: &Path| path.to_string_lossy().into_owned();

    for function in ["sha256", "blake3"] {
        let file = path(&source.join("a/b/large.bin"));
        let put = kiln.json(&["cas", "put", &file, "--digest-function", function]);
        let blob = &put["blobs"][0];
        assert_eq!(blob["size_bytes"], large.len());
        let prefix = if function == "blake3" { "blake3/" } else { "" };
        let digest = format!("{prefix}{}/{}", blob["hash"].as_str().expect("text"), large.len());
        assert!(kiln.output(&["cas", "get", &digest]).stdout == large, "stdout");
        let back = directory.path().join(format!("back-{function}"));
        kiln.says(&["cas", "get", &digest, "--output", &path(&back)]);
        assert!(std::fs::read(&back).expect("it was written") == large, "file");
    }

    let root = kiln.says(&["cas", "put", &path(&source)]);
    let root = root.split_whitespace().next().expect("a digest");
    let tree = kiln.says(&["cas", "tree", root]);
    for part in ["a/b/large.bin", "a/link -> run.sh", "2 files in 2 directories"] {
        assert!(tree.contains(part), "{part} is not in {tree}");
    }
    let shallow = kiln.json(&["cas", "tree", root, "--depth", "0"]);
    assert_eq!(shallow["entries"].as_array().map(Vec::len), Some(1), "{shallow}");

    let mut child = kiln
        .command(&["cas", "put", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("kiln runs");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    std::io::Write::write_all(&mut stdin, b"hello").expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824/5";
    assert!(String::from_utf8_lossy(&output.stdout).starts_with(digest));

    let missing = format!("{}/5", "ab".repeat(32));
    let stat = kiln.run(&["cas", "stat", digest, &missing]);
    assert_eq!(stat.code, 1);
    assert_eq!(stat.stdout, format!("present  {digest}\nmissing  {missing}\n"));
    assert_eq!(kiln.run(&["cas", "stat", digest]).code, 0);
}
