//! The web pages in a real Chromium, after a real action.

mod support;

use std::path::Path;
use std::process::Command;

use support::reapi::{Client, Spec};
use support::server::Server;

/// The page's document after Chromium has laid it out.
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
