use kiln_deploy::judge::Counts;
use kiln_deploy::rollouts::parts::{Asked, Cohorts, Measured, Query};

use crate::rig::{answers, asked, cohort, declared, failed, http};

const PROBE: &str = "kind = \"probe\"\nlocal = true\nsamples = 2\npatience_s = 1\ntimeout_s = 20";

fn probes(canary: &[(&str, &str)], baseline: &[(&str, &str)]) -> Asked {
    let cohorts = Cohorts { canary: cohort("new", canary), baseline: cohort("old", baseline) };
    asked(Query::Points("/healthz?deep=1".to_owned()), cohorts, 1_000_000_000)
}

#[tokio::test]
async fn targets_are_asked_and_no_redirection_is_followed() {
    let well = answers(http("200 OK", "", "ok")).await;
    let unwell = answers(http("503 Service Unavailable", "", "")).await;
    let elsewhere = format!("Location: http://{well}/\r\n");
    let elsewhere = answers(http("302 Found", &elsewhere, "")).await;
    let source = declared(PROBE);
    let canary = [("c", well.as_str()), ("d", &unwell), ("e", &elsewhere)];
    let found = source.measure(&probes(&canary, &[("a", &well)])).await;
    let counts = |bad, total| Counts { bad, total };
    assert_eq!(found, Measured::Counts { canary: counts(4, 6), baseline: counts(0, 2) });

    // If nobody can be reached, that is not the canary's fault.
    let why = failed(source.measure(&probes(&[("c", &unwell)], &[("a", &unwell)])).await);
    assert!(why.contains("of the baseline failed as well"), "{why}");
    let nobody = ("c", "127.0.0.1:1");
    let why = failed(source.measure(&probes(&[nobody], &[])).await);
    assert!(why.contains("none of 2 probes was answered"), "{why}");
}

#[tokio::test]
async fn targets_lead_nowhere_they_should_not() {
    let well = answers(http("200 OK", "", "ok")).await;
    let source = declared("kind = \"probe\"");
    for (address, part) in [
        (well.as_str(), "an address of this machine"),
        ("169.254.169.254:80", "an address of this machine or its link"),
        ("[::1]:80", "an address of this machine"),
        ("user@h:80", "an address that is none"),
        ("h:80/x?", "an address that is none"),
    ] {
        let why = failed(source.measure(&probes(&[("c", address)], &[])).await);
        assert!(why.contains(part), "{address}: {why}");
    }
    for path in ["healthz", "@evil/x", "/a\r\nHost: b"] {
        let mut asked = probes(&[("c", "10.0.0.1:80")], &[]);
        asked.query = Query::Points(path.to_owned());
        let why = failed(source.measure(&asked).await);
        assert!(why.contains("expected a path"), "{path}: {why}");
    }
}
