//! The web pages in a real Chromium, after a real action.

use crate::support;

use std::path::Path;
use std::process::Command;

use kiln_protos::reapi;
use support::reapi::{Client, Spec};
use support::server::Server;

/// Returns the document of the page at `url` after Chromium has laid it out.
fn open(chromium: &Path, url: &str, profile: &Path) -> String {
    let output = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--window-size=1280,900", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(url)
        .output()
        .expect("Chromium runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_show_an_action_that_ran() {
    let Some(chromium) = support::client("KILN_CHROMIUM") else { return };
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&data.path().join("kiln"), &[]);
    let client = Client::connect(&server.url()).await;
    let spec = Spec::shell("echo '<b>printed</b>'; echo made > out.txt; exit 3", &["out.txt"]);
    let response = client.execute(&spec).await.expect("an answer");
    let link = response
        .message
        .split_whitespace()
        .find(|word| word.starts_with("http://"))
        .expect("the message of a failed action links to its page")
        .to_owned();

    let profile = data.path().join("chromium");
    let page = open(&chromium, &link, &profile);
    assert!(page.contains("echo made"), "the command line: {page}");
    assert!(page.contains("&lt;b&gt;printed&lt;/b&gt;"), "stdout, escaped: {page}");
    assert!(page.contains("out.txt"), "the output: {page}");

    for (path, word) in [("/", "Kiln"), ("/builds", "uild"), ("/queue", "orker")] {
        let page = open(&chromium, &format!("{}{path}", server.url()), &profile);
        assert!(page.contains(word), "{path}: {page}");
    }
}

/// Shows a page in frames of several widths. Returns which of them it runs out of, as `WIDTH shows WIDTH` in pixels,
/// or `all fit`.
fn too_wide(chromium: &Path, page: &str, style: &str, dir: &Path) -> String {
    let link = page.find("<link rel=\"stylesheet\"").expect("a style sheet");
    let end = link + page[link..].find('>').expect("an end") + 1;
    let styled = format!("{}<style>{style}</style>{}", &page[..link], &page[end..]);
    let frame = |width: u32| {
        let source = styled.replace('&', "&amp;").replace('"', "&quot;");
        format!("<iframe width={width} height=900 style=\"border:0\" srcdoc=\"{source}\"></iframe>")
    };
    let script = "<script>onload = () => { document.title = [...document.querySelectorAll('iframe')]\
                  .map(frame => frame.contentDocument.documentElement)\
                  .filter(page => page.scrollWidth > page.clientWidth)\
                  .map(page => page.clientWidth + ' shows ' + page.scrollWidth).join(', ') || 'all fit' }</script>";
    let path = dir.join("frames.html");
    let frames = [1280, 400].map(frame).concat();
    std::fs::write(&path, format!("<!doctype html><title></title>{frames}{script}"))
        .expect("written");
    let shown = open(chromium, &format!("file://{}", path.display()), &dir.join("chromium"));
    let title = shown.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
    title.expect("a title").0.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_differs_much_stays_within_its_page() {
    let Some(chromium) = support::client("KILN_CHROMIUM") else { return };
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&data.path().join("kiln"), &[]);
    let client = Client::connect(&server.url()).await;
    let metadata = reapi::RequestMetadata {
        tool_invocation_id: "build".into(),
        target_id: "//app:gen".into(),
        action_mnemonic: "Genrule".into(),
        ..Default::default()
    };
    let mut action = reapi::Digest::default();
    for level in ["debug", "release"] {
        let mut spec = Spec::shell("true", &[]);
        spec.command.arguments.push(format!("--{level}={}", level.repeat(80)));
        action = client.prepare(&spec).await;
        client.execute_with(action.clone(), &metadata).await.expect("it runs");
    }
    let path =
        format!("/actions/sha256/{}/{}?instance=e2e%2Ftests", action.hash, action.size_bytes);
    let page = loop {
        let page = support::server::get_text(&server.address, &path);
        if page.contains("class=\"changes\"") {
            break page;
        }
        kiln_test_servers::pause();
    };
    let style = support::server::get_text(&server.address, "/style.css");
    assert_eq!(too_wide(&chromium, &page, &style, data.path()), "all fit");
    let wide = page.replace("class=\"changes\"", "style=\"width: 3000px\"");
    assert_ne!(too_wide(&chromium, &wide, &style, data.path()), "all fit", "it is measured");
}
