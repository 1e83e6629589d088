//! Tests of cases that are read from files.

use crate::judge::{Case, Class, Evidence, NanStrategy, Verdict, judge, read};

fn case(text: &str) -> Case {
    read(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> String {
    let error = read(text.as_bytes()).map(drop).unwrap_err();
    kiln_net_free_chain(&error)
}

fn kiln_net_free_chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[test]
fn missing_values_are_null_or_nan() {
    let read = case(
        r#"{"metrics":[{"name":"m","experiment":[1,null,"NaN"],"control":[1e3],"nanStrategy":"replace",
        "groups":["a","b"],"direction":"increase","critical":true,"outliers":{"strategy":"remove"}}],
        "thresholds":{"pass":90,"marginal":50},"groupWeights":{"a":70}}"#,
    );
    let metric = &read.metrics[0];
    let expected =
        Evidence::Points { experiment: vec![Some(1.0), None, None], control: vec![Some(1e3)] };
    assert_eq!(metric.evidence, expected);
    assert!(metric.critical && metric.nan == NanStrategy::Replace && metric.outliers == Some(3.0));
    assert_eq!(metric.groups, ["a", "b"]);
    assert_eq!((read.thresholds.pass, read.thresholds.marginal), (90.0, 50.0));
}

#[test]
fn numbers_are_the_ones_that_are_written() {
    for (text, number) in [("1.3000000000000001e-05", 1.3000000000000001e-05), ("1.3e-05", 1.3e-05)]
    {
        let read =
            case(&format!(r#"{{"metrics":[{{"name":"m","experiment":[{text}],"control":[]}}]}}"#));
        let expected = Evidence::Points { experiment: vec![Some(number)], control: vec![] };
        assert_eq!(read.metrics[0].evidence, expected, "{text}");
    }
}

#[test]
fn settings_stand_where_kayenta_has_them() {
    let own = r#"{"metrics":[{"name":"m","experiment":[],"control":[],"direction":"increase",
        "effectSize":{"measure":"cles","allowedIncrease":0.8}}]}"#;
    let kayenta = r#"{"metrics":[{"name":"m","experiment":[],"control":[],"analysisConfigurations":
        {"canary":{"direction":"increase","effectSize":{"measure":"cles","allowedIncrease":0.8}}}}]}"#;
    assert_eq!(case(own), case(kayenta));
    let parameters = r#"{"metrics":[{"name":"m","experiment":[],"control":[],"parameters":{"tolerance":0.1,
        "confLevel":0.95,"effectSizeThresholds":[0.8,1.2],"criticalThresholds":[1,15]}}]}"#;
    let metric = &case(parameters).metrics[0];
    assert_eq!((metric.tolerance, metric.confidence), (Some(0.1), Some(0.95)));
    assert_eq!(
        (metric.effect.allowed_decrease, metric.effect.critical_increase),
        (Some(0.8), Some(15.0))
    );
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let metric = |inside: &str| {
        format!(r#"{{"metrics":[{{"name":"m","experiment":[1],"control":[1]{inside}}}]}}"#)
    };
    for (text, expected) in [
        ("{".to_owned(), "EOF while parsing an object at line 1 column 1"),
        ("[]".to_owned(), "the document: expected an object, found a list"),
        ("{}".to_owned(), "the document: metrics is missing"),
        (r#"{"metrics":[]}"#.to_owned(), "metrics: there is no metric"),
        (r#"{"metrics":[7]}"#.to_owned(), "metrics[0]: expected an object, found 7"),
        (r#"{"metrics":[{"experiment":[]}]}"#.to_owned(), "metrics[0]: name is missing"),
        (r#"{"metrics":[{"name":"m","experiment":[1,"x"],"control":[]}]}"#.to_owned(),
            "metrics[0].experiment[1]: expected a number, null or \"NaN\", found the text \"x\""),
        (r#"{"metrics":[{"name":"m","experiment":[1e101],"control":[]}]}"#.to_owned(),
            "metrics[0].experiment[0]: beyond 1e100"),
        (r#"{"metrics":[{"name":"m","experiment":{"bad":2,"total":1},"control":{"bad":0,"total":1}}]}"#.to_owned(),
            "metrics[0].experiment: 2 bad events are more than the 1 in all"),
        (metric(r#","directon":"increase""#), "metrics[0].directon: unknown member; did you mean direction?"),
        (metric(r#","direction":"up""#), "metrics[0].direction: expected \"increase\" or \"decrease\" or \"either\""),
        (metric(r#","critical":"yes""#), "metrics[0].critical: expected true or false, found the text \"yes\""),
        (metric(r#","effectSize":{"allowedIncraese":1}"#), "metrics[0].effectSize.allowedIncraese: unknown"),
        (metric(r#","parameters":{"criticalThresholds":[1]}"#), "metrics[0].parameters.criticalThresholds: expected two"),
        (metric(r#","confidence":1"#), "metrics[0].confidence: expected a number from 0.5"),
        (metric(r#","name":"n""#), "the member \"name\" stands there twice"),
        (r#"{"metrics":[{"name":"m","experiment":[],"control":[]},{"name":"m","experiment":[],"control":[]}]}"#.to_owned(),
            "metrics[1]: there is a metric \"m\" before it"),
        (r#"{"metrics":[{"name":"m","experiment":[],"control":[]}],"thresholds":{"pass":50,"marginal":60}}"#.to_owned(),
            "thresholds: marginal (60) is above pass (50)"),
        (r#"{"metrics":[{"name":"m","experiment":[],"control":[]}],"burn":[{"name":"b","objective":1,"factor":1}]}"#.to_owned(),
            "burn[0].objective: an objective of 1"),
        (r#"{"metrics":[{"name":"m","experiment":[],"control":[]}],"groupWeights":{"a":"much"}}"#.to_owned(),
            "groupWeights.a: expected a number"),
    ] {
        let error = error(&text);
        assert!(error.contains(expected), "{text}\n{error}\n{expected}");
    }
}

#[test]
fn sizes_are_bounded() {
    let points = |count: usize| format!("[{}1]", "1,".repeat(count - 1));
    let text = |count| {
        format!(r#"{{"metrics":[{{"name":"m","experiment":{},"control":[]}}]}}"#, points(count))
    };
    assert!(read(text(100_000).as_bytes()).is_ok());
    assert!(
        error(&text(100_001)).contains("metrics[0].experiment: 100001 entries; at most 100000 are")
    );
    assert!(error(&text(2_100_000)).contains("more than 2000000 values"));
    assert!(error(&" ".repeat((32 << 20) + 1)).contains("bytes are more than"));
    let metrics = vec![r#"{"name":"m","experiment":[],"control":[]}"#; 1_001].join(",");
    assert!(error(&format!(r#"{{"metrics":[{metrics}]}}"#)).contains("metrics: 1001 entries"));
}

#[test]
fn a_judgement_can_be_written_whatever_was_judged() {
    let read = case(r#"{"metrics":[{"name":"m","experiment":[1],"control":[]}]}"#);
    let judgement = judge(&read);
    assert_eq!(
        (judgement.verdict, judgement.metrics[0].classification),
        (Verdict::Hold, Class::Nodata)
    );
    let text = serde_json::to_string(&judgement).unwrap();
    assert!(text.contains(r#""verdict":"hold""#), "{text}");
}
