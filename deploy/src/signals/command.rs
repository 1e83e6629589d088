//! A program that measures. It is given one JSON document:
//!
//! `{"metric":"errors","place":{"service":"api","environment":"prod"},"query":{"points":"..."},"from_ms":0,
//! "to_ms":600000,"step_ms":15000,"canary":{"version":"sha256:..","targets":[{"name":"c","address":"h:80",
//! "labels":{}}]},"baseline":{..}}`, where a query for counts is `{"bad":"...","total":"..."}`.
//!
//! It prints `{"canary":..,"baseline":..}` with lists of numbers (`null`: none) in the order of time, or counts
//! `{"bad":1,"total":2}`; or `{"missing":"why"}` or `{"error":"why"}`.

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::json;
use crate::judge::{self, Evidence};
use crate::programs::{MAX_ANSWER, Program};
use crate::rollouts::parts::{Asked, Cohort, Measured, Query, Signals};

const MAX_SAID: usize = 300;

pub struct CommandSignals(pub Program);

#[async_trait]
impl Signals for CommandSignals {
    async fn measure(&self, asked: &Asked) -> Measured {
        match self.0.ask(document(asked).to_string().as_bytes()).await {
            Ok(answer) => read(&answer).unwrap_or_else(Measured::Failed),
            Err(error) => Measured::Failed(kiln_net::causes::chain(&error)),
        }
    }
}

fn document(asked: &Asked) -> Value {
    let query = match &asked.query {
        Query::Points(query) => json!({"points": query}),
        Query::Counts { bad, total } => json!({"bad": bad, "total": total}),
    };
    let window = &asked.window;
    json!({
        "metric": asked.metric, "place": asked.place, "query": query,
        "from_ms": window.from, "to_ms": window.to,
        "step_ms": u64::try_from(window.step.as_millis()).unwrap_or(u64::MAX),
        "canary": cohort(&asked.cohorts.canary), "baseline": cohort(&asked.cohorts.baseline),
    })
}

fn cohort(cohort: &Cohort) -> Value {
    json!({"version": cohort.version.to_string(), "targets": cohort.targets})
}

/// `Err`: why the answer is not understood, in words.
fn read(answer: &[u8]) -> Result<Measured, String> {
    let strange =
        |why: &dyn std::fmt::Display| format!("the program's answer is not understood: {why}");
    let answer: Value = json::read(answer, MAX_ANSWER).map_err(|error| strange(&error))?;
    let text = |name: &str| answer.get(name).and_then(Value::as_str);
    let shown = |text: &str| text.chars().take(MAX_SAID).collect::<String>();
    if let Some(why) = text("error") {
        return Ok(Measured::Failed(shown(why)));
    }
    if let Some(why) = text("missing") {
        return Ok(Measured::Missing(shown(why)));
    }
    let (Some(canary), Some(baseline)) = (answer.get("canary"), answer.get("baseline")) else {
        return Err(strange(&"expected canary and baseline, missing, or error"));
    };
    // The judge's own reader says which numbers are any.
    let metric = json!({"name": "answer", "experiment": canary, "control": baseline});
    let case = judge::read(json!({"metrics": [metric]}).to_string().as_bytes());
    let case = case.map_err(|error| strange(&kiln_net::causes::chain(&error)))?;
    match case.metrics.into_iter().next().map(|metric| metric.evidence) {
        Some(Evidence::Points { experiment, control }) => {
            Ok(Measured::Points { canary: experiment, baseline: control })
        }
        Some(Evidence::Counts { experiment, control }) => {
            Ok(Measured::Counts { canary: experiment, baseline: control })
        }
        _ => Err(strange(&"it has no values")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::judge::Counts;
    use crate::signals::template::tests::asked;

    fn of(answer: &str) -> Result<Measured, String> {
        read(answer.as_bytes())
    }

    #[test]
    fn answers_are_values_or_say_why_not() {
        let points =
            Measured::Points { canary: vec![Some(1.0), None], baseline: vec![None, Some(2.5)] };
        assert_eq!(of("{\"canary\":[1,null],\"baseline\":[\"NaN\",2.5]}"), Ok(points));
        let counts = |bad, total| Counts { bad, total };
        assert_eq!(
            of("{\"canary\":{\"bad\":1,\"total\":9},\"baseline\":{\"bad\":0,\"total\":0}}"),
            Ok(Measured::Counts { canary: counts(1, 9), baseline: counts(0, 0) })
        );
        assert_eq!(
            of("{\"missing\":\"no traffic\"}"),
            Ok(Measured::Missing("no traffic".to_owned()))
        );
        assert_eq!(of("{\"error\":\"502\"}"), Ok(Measured::Failed("502".to_owned())));
        for bad in [
            "",
            "[]",
            "{}",
            "{\"canary\":[1]}",
            "{\"canary\":[1],\"baseline\":{\"bad\":0,\"total\":1}}",
            "{\"canary\":[1e300],\"baseline\":[1]}",
            "{\"canary\":\"1\",\"baseline\":\"2\"}",
            "{\"canary\":{\"bad\":2,\"total\":1},\"baseline\":{\"bad\":0,\"total\":1}}",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_program_is_told_what_is_asked() {
        let script = "grep -q '\"name\":\"c.1\"' && echo '{\"canary\":[1],\"baseline\":[2]}'";
        let program = |script: &str| {
            let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
            CommandSignals(Program::new(argv, Duration::from_secs(30)).unwrap())
        };
        let asked = asked(Query::Points("latency".to_owned()));
        let found = program(script).measure(&asked).await;
        assert_eq!(found, Measured::Points { canary: vec![Some(1.0)], baseline: vec![Some(2.0)] });
        for script in ["exit 1", "echo no", "/does/not/exist"] {
            let found = program(script).measure(&asked).await;
            assert!(matches!(found, Measured::Failed(_)), "{script}: {found:?}");
        }
    }
}
