//! Tells two actions apart to which Bazel gives the same mnemonic, `TestRunner`, and the same target: the
//! test itself, and the action after it that makes `test.xml` out of the test's log.

use kiln_protos::reapi;

const TEST: &str = "TestRunner";
/// The name that Kiln shows for the action that makes `test.xml`.
pub const TEST_XML: &str = "TestRunner (test.xml)";

/// Programs that make a report of a test's log.
const WRITE_REPORTS: [&str; 3] = ["generate-xml", "generate_xml", "xml_writer"];

/// Whether a command makes the report of a test that has run.
pub fn writes_report(command: &reapi::Command) -> bool {
    let program = command.arguments.first().map_or("", String::as_str);
    let name = program.rsplit('/').next().unwrap_or(program);
    WRITE_REPORTS.iter().any(|tool| name.starts_with(tool))
}

/// Whether actions of this mnemonic may be either of the two, so that [`tell_apart`] needs their result.
pub fn is_test(mnemonic: &str) -> bool {
    mnemonic == TEST
}

/// The name to show in place of the mnemonic: [`TEST_XML`] for the action that makes `test.xml`; `None`: the
/// mnemonic is right. That action prints nothing and has `test.xml` as its one output. A test prints at
/// least the head of its log, even one that writes `test.xml` itself.
pub fn tell_apart(mnemonic: &str, result: &reapi::ActionResult) -> Option<&'static str> {
    let printed = result.stdout_digest.as_ref().map_or(0, |digest| digest.size_bytes);
    let is_silent = result.stdout_raw.is_empty() && printed == 0;
    let is_report = match &result.output_files[..] {
        [only] => only.path.ends_with("/test.xml"),
        _ => false,
    };
    let alone =
        is_report && result.output_directories.is_empty() && result.output_symlinks.is_empty();
    (is_test(mnemonic) && alone && is_silent).then_some(TEST_XML)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(paths: &[&str], stdout: &[u8]) -> reapi::ActionResult {
        let file =
            |path: &&str| reapi::OutputFile { path: (*path).to_owned(), ..Default::default() };
        reapi::ActionResult {
            output_files: paths.iter().map(file).collect(),
            stdout_raw: stdout.to_vec(),
            ..Default::default()
        }
    }

    #[test]
    fn a_report_is_made_by_who_prints_nothing_and_makes_nothing_else() {
        let xml = "bazel-out/k8-fastbuild/testlogs/app/test/test.xml";
        let of = |mnemonic: &str, paths: &[&str], stdout: &[u8]| {
            tell_apart(mnemonic, &result(paths, stdout)).is_some()
        };
        assert!(of("TestRunner", &[xml], b""));
        assert!(!of("TestRunner", &[xml], b"exec ${PAGER:-/usr/bin/less}"), "a test that wrote it");
        assert!(!of("TestRunner", &[xml, "a/test.log"], b""));
        assert!(!of("TestRunner", &[], b""));
        assert!(!of("Genrule", &[xml], b""));
        let mut stored = result(&[xml], b"");
        stored.stdout_digest = Some(reapi::Digest { hash: String::new(), size_bytes: 9 });
        assert_eq!(tell_apart("TestRunner", &stored), None);
    }
}
