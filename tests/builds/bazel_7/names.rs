//! Names beyond ASCII. What Bazel itself does to some of them is written down in docs/clients.md; here it shows
//! that Kiln has passed on what it was given.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use super::Rig;

fn names(rig: &Rig) -> Vec<Vec<u8>> {
    let tree = rig.bazel.bin().join("names/tree");
    let entries = std::fs::read_dir(tree).expect("a directory").flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_vec()).collect();
    names.sort();
    names
}

pub fn beyond_ascii(rig: &Rig) {
    let build = |kind: &str| {
        rig.bazel.clean();
        let run = rig.remote("names", &["build", "//names:all"]).expect_success();
        assert_eq!(run.processes(kind), 3, "{}", run.text);
        // Kiln passes the names of inputs and of declared outputs through unchanged, in UTF-8.
        let output = rig.output("names/naïve/出力.txt");
        assert_eq!(String::from_utf8_lossy(&output), "text\nnames/café/日本語.txt\n");
        // Inside a directory that an action has filled, Bazel before 8.4 takes each character of a name for one byte.
        // Kiln has sent the names unchanged; Bazel turns U+00EF into the byte EF, and each character above U+00FF
        // into `?`.
        assert_eq!(names(rig), [&b"?"[..], b"na\xEFve", b"plain"]);
        assert_eq!(rig.output(OsString::from_vec(b"names/tree/na\xEFve".into())), b"b\n");
        // Where the directory is an input, Bazel sends the names as it has kept them: `naïve` is intact there, and
        // the third name is still `?`.
        let listed = String::from_utf8(rig.output("names/listed.txt")).expect("UTF-8");
        assert_eq!(listed, "?\nnaïve\nplain\n");
    };
    build("remote");
    build("remote cache hit");

    // Where Bazel itself uploads such a directory, it makes the opposite mistake, so reading it back restores the
    // names.
    let cached = |kind: &str| {
        rig.bazel.clean();
        let run = rig.cached("names here", &["build", "//names:tree"]).expect_success();
        assert_eq!(run.processes(kind), 1, "{}", run.text);
        assert_eq!(names(rig), ["naïve", "plain", "語"].map(|name| name.as_bytes().to_vec()));
    };
    cached("local");
    cached("remote cache hit");
}
