//! `GET /metrics`: the text formats of Prometheus and OpenMetrics.

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::collectors::Latest;
use super::test_figures::TestFigures;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The route `/metrics`; a server's queue is asked first.
pub fn router(registry: Arc<Registry>, server: Option<(Latest, TestFigures)>) -> Router {
    Router::new().route(
        "/metrics",
        get(move |headers: HeaderMap| {
            let (registry, server) = (registry.clone(), server.clone());
            async move {
                if let Some((queue, tests)) = server {
                    tests.refresh();
                    queue.refresh().await;
                }
                answer(&registry, &headers)
            }
        }),
    )
}

fn answer(registry: &Registry, headers: &HeaderMap) -> Response {
    let mut text = String::new();
    if encode(&mut text, registry).is_err() {
        return (StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n")
            .into_response();
    }
    if wants_open_metrics(headers) {
        return ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response();
    }
    ([(header::CONTENT_TYPE, PROMETHEUS)], prometheus(&text)).into_response()
}

fn wants_open_metrics(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|accept| accept.to_str().ok())
        .any(|accept| accept.contains("application/openmetrics-text"))
}

/// Turns the OpenMetrics text into the older format of Prometheus: there, the descriptors of a
/// counter carry its `_total`, and no mark stands at the end.
fn prometheus(open_metrics: &str) -> String {
    let counters: HashSet<&str> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(open_metrics.len() + counters.len() * 16);
    for line in open_metrics.lines().filter(|line| *line != "# EOF") {
        let descriptor = line.strip_prefix("# ").and_then(|rest| {
            let (word, rest) = rest.split_once(' ')?;
            let (name, rest) = rest.split_once(' ')?;
            counters.contains(name).then_some((word, name, rest))
        });
        // Writing to a String cannot fail.
        let _ = match descriptor {
            Some((word, name, rest)) => writeln!(text, "# {word} {name}_total {rest}"),
            None => writeln!(text, "{line}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_counters_get_their_suffix() {
        let open_metrics = "# HELP a Things.\n# TYPE a counter\na_total 1\n\
                            # HELP b a b.\n# TYPE b gauge\nb 2\n# EOF\n";
        let expected = "# HELP a_total Things.\n# TYPE a_total counter\na_total 1\n\
                        # HELP b a b.\n# TYPE b gauge\nb 2\n";
        assert_eq!(prometheus(open_metrics), expected);
    }

    #[test]
    fn open_metrics_is_for_those_who_ask() {
        let mut headers = HeaderMap::new();
        assert!(!wants_open_metrics(&headers));
        headers.insert(
            header::ACCEPT,
            "application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1".parse().unwrap(),
        );
        assert!(wants_open_metrics(&headers));
    }
}
