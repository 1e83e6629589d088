mod api;
mod browser;
mod compare;
mod flakes;
mod fleet;
mod imports;
mod merge_queue;
mod openapi;
mod pages;
mod pipelines;
mod promotion;
mod rollouts;
mod sample;
mod suite;
mod told;

/// For looking at the pages: `KILN_PAGES=127.0.0.1:20780 cargo nextest run -p kiln
/// --run-ignored only serve_sample_pages`, then open the address; end it with Ctrl-C.
#[tokio::test]
#[ignore = "serves until it is interrupted"]
async fn serve_sample_pages() {
    let address = std::env::var("KILN_PAGES").unwrap_or_else(|_| "127.0.0.1:20780".to_owned());
    let sample = sample::full().await;
    sample::suite::fill(&sample.state.tests.history, 400, 60).await;
    sample::told::failed(&sample.state, "11111111-2222-4333-8444-555555555555").await;
    sample::told::begun(&sample.state, "99999999-2222-4333-8444-555555555555").await;
    println!("http://{address}/builds/11111111-2222-4333-8444-555555555555");
    let link = |digest: &kiln_cas::Digest| super::format::path_of(digest);
    println!("http://{address}/");
    println!("http://{address}/builds/{}", sample.last_build);
    println!(
        "http://{address}/actions/{}?operation={}",
        link(&sample.failed),
        sample.failed_operation
    );
    let listener = tokio::net::TcpListener::bind(&address).await.expect("a free port");
    let empty = axum::Router::new().nest("/none", super::router(sample::empty().await));
    let router = super::router(sample.state).merge(empty);
    axum::serve(listener, router).await.expect("it serves");
}
