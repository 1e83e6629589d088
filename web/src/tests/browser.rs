//! The pages of tests, builds and pipelines in a real Chromium, wide, narrow and dark. With
//! `KILN_PICTURES=DIR` the tests leave pictures of the pages in that directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::sample;
use super::suite::with_suite;
use crate::router;

const BUILD: &str = "11111111-2222-4333-8444-555555555555";
const EARLIER: &str = "44444444-2222-4333-8444-555555555555";

/// Returns the path of the browser, or `None` if the environment names none.
fn browser() -> Option<PathBuf> {
    let program = std::env::var_os("KILN_CHROMIUM").map(PathBuf::from);
    let must = std::env::var_os("KILN_NO_SKIPS").is_some_and(|value| !value.is_empty());
    assert!(program.is_some() || !must, "KILN_CHROMIUM is not set");
    program
}

fn chromium(program: &Path, profile: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--hide-scrollbars", "--force-device-scale-factor=1"])
        .arg(format!("--user-data-dir={}", profile.display()));
    command
}

/// The pages as a browser lays them out in frames of two widths, and which of them are wider than their frame.
fn too_wide(program: &Path, dir: &Path, pages: &[(String, String)], style: &str) -> String {
    let frame = |(name, page): &(String, String), width: u32| {
        let link = page.find("<link rel=\"stylesheet\"").expect("a style sheet");
        let end = link + page[link..].find('>').expect("an end") + 1;
        let styled = format!("{}<style>{style}</style>{}", &page[..link], &page[end..]);
        let source =
            styled.replace("http-equiv", "data-was").replace('&', "&amp;").replace('"', "&quot;");
        format!("<iframe title=\"{name}\" width={width} height=900 srcdoc=\"{source}\"></iframe>")
    };
    let frames: String =
        pages.iter().flat_map(|page| [1280, 390].map(|width| frame(page, width))).collect();
    let script = "<script>onload = () => { document.title = [...document.querySelectorAll('iframe')]\
                  .map(frame => [frame.title, frame.contentDocument.documentElement])\
                  .filter(([, page]) => page.scrollWidth > page.clientWidth)\
                  .map(([name, page]) => name + ' shows ' + page.scrollWidth + ' in ' + page.clientWidth)\
                  .join(', ') || 'all fit' }</script>";
    let path = dir.join("frames.html");
    let html = format!(
        "<!doctype html><title></title><style>iframe {{ border: 0 }}</style>{frames}{script}"
    );
    std::fs::write(&path, html).expect("it is written");
    let output = chromium(program, &dir.join("frames"))
        .arg("--dump-dom")
        .arg(format!("file://{}", path.display()))
        .output()
        .expect("Chromium runs");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let title = shown.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
    title.expect("a title").0.to_owned()
}

/// A picture of a page, for people.
fn picture(
    program: &Path,
    dir: &Path,
    url: &str,
    file: &Path,
    (width, height): (u32, u32),
    dark: bool,
) {
    let mut command = chromium(program, &dir.join("pictures"));
    if dark {
        command.args(["--blink-settings=preferredColorScheme=0", "--force-dark-mode"]);
    }
    let done = command
        .arg(format!("--window-size={width},{height}"))
        .arg(format!("--screenshot={}", file.display()))
        .arg(url)
        .output()
        .expect("Chromium runs");
    assert!(file.is_file(), "{}", String::from_utf8_lossy(&done.stderr));
}

const JUDGED: [(&str, &str); 2] =
    [("flakes", "/tests/flakes"), ("quarantine", "/tests/quarantine")];

async fn router_of_judged() -> axum::Router {
    let state = sample::flakes::judged().await;
    super::flakes::ask_a_gate(&state).await;
    router(state)
}

/// Serves the router on a free port and answers with its base URL.
async fn serve(router: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_tests_and_builds_fit_wide_and_narrow() {
    let Some(program) = browser() else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let state = with_suite(120, 40).await;
    sample::told::passed(&state, EARLIER).await;
    sample::told::failed(&state, BUILD).await;
    let run = sample::pipeline::driven(&state.pipelines).await;
    let router = router(state);
    let listed = super::pages::json(&router, "/api/v1/tests?outcome=failing&sort=failures").await;
    let test = listed["tests"][0]["page"].as_str().expect("an address").to_owned();
    let build = format!("/builds/{BUILD}");
    let paths = [
        ("tests", "/tests".to_owned()),
        ("grid", "/tests/grid".to_owned()),
        ("figures", "/tests/kpi".to_owned()),
        ("test", test),
        ("build", build),
        ("builds", "/builds?told=1".to_owned()),
        ("compare", format!("/builds/compare?before={EARLIER}&after={BUILD}")),
        ("pipelines", "/pipelines".to_owned()),
        ("run", format!("/pipelines/{run}")),
        ("stage", format!("/pipelines/{run}/log/0")),
    ];
    let mut pages = Vec::new();
    for (name, path) in &paths {
        pages.push(((*name).to_owned(), super::pages::page(&router, path).await));
    }
    let judged = router_of_judged().await;
    for (name, path) in JUDGED {
        pages.push((name.to_owned(), super::pages::page(&judged, path).await));
    }
    let style = super::pages::open(&router, "/style.css").await.1;
    assert_eq!(too_wide(&program, dir.path(), &pages, &style), "all fit");
    let wide = pages[0].1.replace("<main", "<p style=\"width: 3000px\">x</p><main");
    let wide = [("wide".to_owned(), wide)];
    assert_ne!(too_wide(&program, dir.path(), &wide, &style), "all fit", "it is measured");

    let Some(pictures) = std::env::var_os("KILN_PICTURES").map(PathBuf::from) else { return };
    let (all, judged) = (serve(router).await, serve(judged).await);
    let others = paths.iter().map(|(name, path)| (*name, format!("{all}{path}")));
    let judged = JUDGED.iter().map(|(name, path)| (*name, format!("{judged}{path}")));
    for (name, url) in others.chain(judged) {
        for (kind, size, dark) in [
            ("wide", (1280, 900), false),
            ("narrow", (390, 1200), false),
            ("dark", (1280, 900), true),
        ] {
            let file = pictures.join(format!("{name}-{kind}.png"));
            picture(&program, dir.path(), &url, &file, size, dark);
        }
    }
}
