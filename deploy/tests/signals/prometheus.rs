use std::time::{Duration, Instant};

use kiln_deploy::judge::Counts;
use kiln_deploy::rollouts::parts::{Asked, Cohorts, Measured, Query};
use nix::sys::signal::Signal;

use crate::history::{Metric, Prometheus, Values};
use crate::rig::{answers, asked, cohort, declared, failed, http, missing};

const OLD: &str = "instance=\"10.0.0.1:80\"";
const NEW: &str = "instance=\"10.0.0.3:80\"";
/// Looks like the new one to whoever does not escape the dots.
const LIKE_NEW: &str = "instance=\"10x0y0z3:80\"";

fn cohorts() -> Cohorts {
    Cohorts {
        canary: cohort("new", &[("c", "10.0.0.3:80")]),
        baseline: cohort("old", &[("a", "10.0.0.1:80")]),
    }
}

fn points(query: &str, to: u64) -> Asked {
    asked(Query::Points(query.to_owned()), cohorts(), to)
}

fn counts(bad: &str, total: &str, to: u64) -> Asked {
    asked(Query::Counts { bad: bad.to_owned(), total: total.to_owned() }, cohorts(), to)
}

fn metric(name: &'static str, kind: &'static str, series: Vec<(&str, Values)>) -> Metric {
    let series = series.into_iter().map(|(labels, of)| (labels.to_owned(), of)).collect();
    Metric { name, kind, series }
}

/// What was measured, up to now.
fn past() -> Vec<Metric> {
    // Counters grow with the time.
    let grows = |by: f64| move |back: u64| Some((1_000 - back) as f64 * by);
    vec![
        metric(
            "latency",
            "gauge",
            vec![
                (OLD, Box::new(|back| Some(100.0 + back as f64))),
                (NEW, Box::new(|back| (back % 10 != 3).then_some(200.0 + back as f64))),
                (LIKE_NEW, Box::new(|_| Some(1e6))),
            ],
        ),
        metric(
            "latency_nan",
            "gauge",
            vec![(OLD, Box::new(|_| Some(1.0))), (NEW, Box::new(|_| Some(f64::NAN)))],
        ),
        metric(
            "latency_gone",
            "gauge",
            vec![
                (OLD, Box::new(|_| Some(1.0))),
                (NEW, Box::new(|back| (back >= 28).then_some(1.0))),
            ],
        ),
        metric(
            "latency_relabelled",
            "gauge",
            vec![(OLD, Box::new(|_| Some(1.0))), ("host=\"c\"", Box::new(|_| Some(1.0)))],
        ),
        metric(
            "latency_two",
            "gauge",
            vec![
                (OLD, Box::new(|_| Some(1.0))),
                ("instance=\"10.0.0.3:80\",cpu=\"0\"", Box::new(|_| Some(1.0))),
                ("instance=\"10.0.0.3:80\",cpu=\"1\"", Box::new(|_| Some(1.0))),
            ],
        ),
        metric(
            "requests_total",
            "counter",
            vec![
                ("instance=\"10.0.0.1:80\",code=\"200\"", Box::new(grows(1_485.0))),
                ("instance=\"10.0.0.3:80\",code=\"200\"", Box::new(grows(1_470.0))),
                ("instance=\"10.0.0.3:80\",code=\"500\"", Box::new(grows(30.0))),
            ],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_prometheus_knows_is_told_and_nothing_else() {
    let Some(server) = Prometheus::start(&past()) else { return };
    let (now, url) = (server.now, &server.url);
    let source = declared(&format!("kind = \"prometheus\"\nurl = \"{url}\"\ntimeout_s = 5"));
    let select = |name: &str| format!("{name}{{instance=~\"{{{{addresses}}}}\"}}");

    let Measured::Points { canary, baseline } =
        source.measure(&points(&select("latency"), now)).await
    else {
        panic!("no points")
    };
    assert_eq!((canary.len(), baseline.len()), (40, 40));
    // Both sides at the same moments; an interval without a value has the one before it (look-back).
    let expected: Vec<_> = (0..40).rev().map(|back| Some(f64::from(100 + back))).collect();
    assert_eq!(baseline, expected);
    assert_eq!((canary[39], canary[36], canary[35]), (Some(200.0), Some(204.0), Some(204.0)));

    for (name, part) in [
        ("latency_nan", "all 40 values of the canary are no numbers"),
        ("latency_gone", "the last value of the canary is 1"),
        ("latency_relabelled", "no series of the canary, while there is some of the baseline"),
        ("nothing", "there is no series of the canary"),
    ] {
        let why = missing(source.measure(&points(&select(name), now)).await);
        assert!(why.contains(part), "{name}: {why}");
    }
    for (query, part) in [
        (select("latency_two"), "gives 2 series of one version"),
        (format!("{} +", select("latency")), "it says: "),
        ("latency".to_owned(), "both versions would be the same"),
        (format!("count({}) > bool 0 or vector(1)[5m]", select("latency")), "it says: "),
    ] {
        let why = failed(source.measure(&points(&query, now)).await);
        assert!(why.contains(part), "{query}: {why}");
    }

    let counted = |code: &str| {
        format!(
            "sum(increase(requests_total{{instance=~\"{{{{addresses}}}}\"{code}}}[{{{{window}}}}]))"
        )
    };
    let found = source.measure(&counts(&counted(",code=~\"5..\""), &counted(""), now)).await;
    // The old version has no counter of errors at all: it had none.
    let expected = Measured::Counts {
        canary: Counts { bad: 1_200, total: 60_000 },
        baseline: Counts { bad: 0, total: 59_400 },
    };
    assert_eq!(found, expected);
    let nothing = counted(",code=\"none\"");
    let why = missing(source.measure(&counts(&nothing, &nothing, now)).await);
    assert!(why.contains("nothing is counted of the canary"), "{why}");
    let why = failed(source.measure(&counts(&counted(""), &counted(",code=\"500\""), now)).await);
    assert!(why.contains("cannot be") || why.contains("nothing is counted"), "{why}");

    // A past that ends an hour from now is no traffic; a server that stands still, or is gone, has failed.
    let why = missing(source.measure(&points(&select("latency"), now + 3_600)).await);
    assert!(why.contains("no series"), "{why}");
    let hasty = declared(&format!("kind = \"prometheus\"\nurl = \"{url}\"\ntimeout_s = 1"));
    server.process.signal(Signal::SIGSTOP);
    let start = Instant::now();
    let why = failed(hasty.measure(&points(&select("latency"), now)).await);
    assert!(why.contains("no answer within 1s") || why.contains("timed out"), "{why}");
    assert!(start.elapsed() < Duration::from_secs(5));
    let gone = url.clone();
    drop(server);
    let why = failed(source.measure(&points(&select("latency"), now)).await);
    assert!(why.contains(&gone), "{why}");
}

#[tokio::test]
async fn whatever_else_answers_has_failed() {
    let elsewhere = answers(http("200 OK", "", "{}")).await;
    let location = format!("Location: http://{elsewhere}/\r\n");
    let large = "9".repeat(9 << 20);
    for (answer, part) in [
        (http("302 Found", &location, ""), "leads elsewhere"),
        (http("502 Bad Gateway", "", "<html>"), "502"),
        (http("401 Unauthorized", "", ""), "401"),
        (http("200 OK", "", "<html>"), "not understood"),
        (http("200 OK", "", &large), "more than 8388608 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec(), "broke off"),
        (b"SSH-2.0\r\n".to_vec(), "http://"),
        (
            http(
                "503 Service Unavailable",
                "",
                "{\"status\":\"error\",\"error\":\"too many queries\"}",
            ),
            "it says: too many queries",
        ),
    ] {
        let url = answers(answer).await;
        let source = declared(&format!("kind = \"prometheus\"\nurl = \"http://{url}\""));
        let asked = points("up{instance=~\"{{addresses}}\"}", 1_000_000_000);
        let why = failed(source.measure(&asked).await);
        assert!(why.contains(part), "{part}: {why}");
    }
}
