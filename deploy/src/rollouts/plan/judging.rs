//! The signals that are asked for a rollout, and how they are judged.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::judge::{self, Case};
use crate::rollouts::parts::Query;
use crate::toml::{Field, Fields, TableError, time};

/// Metrics of one rollout.
pub const MAX_METRICS: usize = 50;
/// Length of a query in bytes.
const MAX_QUERY: usize = 8 << 10;
/// The interval of one point, where nothing else is said: sixty in a bake of ten minutes.
const INTERVAL: Duration = Duration::from_secs(10);
/// Members of a judge's case that a declaration may have as they are.
const OF_CASE: [&str; 5] = ["thresholds", "groupWeights", "confidence", "leastEffect", "least"];
const OWN: [&str; 6] = ["name", "source", "query", "bad", "total", "objective"];
/// Members of a judge's metric that a declaration may have as they are.
const OF_METRIC: [&str; 9] = [
    "groups",
    "direction",
    "critical",
    "muted",
    "nanStrategy",
    "outliers",
    "effectSize",
    "limits",
    "confidence",
];

/// The question by which one metric is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    pub metric: String,
    /// The source of the metric, by the name that the operator gives it.
    pub source: String,
    pub query: Query,
    /// The share of events that must be good, as 0.999: its budget must not burn too fast.
    pub objective: Option<f64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Judging {
    /// Length of an interval, each of which is a point.
    pub interval: Duration,
    /// The canary is compared with targets that were started anew with the old version together with it.
    pub fresh: bool,
    pub asked: Vec<Asked>,
    /// The case without what is measured, its metrics in the order of `asked`; `None`: no signal is asked.
    pub case: Option<Case>,
}

pub fn read(top: &Fields<'_>) -> Result<Judging, TableError> {
    let (interval, fresh, mut case) = match top.get("judge") {
        None => (INTERVAL, false, Map::new()),
        Some(field) => of_case(&field.fields()?)?,
    };
    let Some(field) = top.get("metric") else {
        return Ok(Judging { interval, fresh, asked: Vec::new(), case: None });
    };
    let (mut asked, mut metrics) = (Vec::new(), Vec::new());
    for item in &field.list(MAX_METRICS)? {
        let (from, metric) = metric(item)?;
        asked.push(from);
        metrics.push(metric);
    }
    case.insert("metrics".to_owned(), Value::Array(metrics));
    let read = judge::read(Value::Object(case).to_string().as_bytes());
    let case = read.map_err(|error| field.error(&kiln_net::causes::chain(&error).to_string()))?;
    Ok(Judging { interval, fresh, asked, case: Some(case) })
}

fn of_case(fields: &Fields<'_>) -> Result<(Duration, bool, Map<String, Value>), TableError> {
    fields.only(&[&["interval", "baseline"][..], &OF_CASE].concat())?;
    let fresh = match fields.get("baseline") {
        None => false,
        Some(field) => match field.text()? {
            "running" => false,
            "fresh" => true,
            _ => return Err(field.error("expected running or fresh")),
        },
    };
    let interval = time(fields, "interval")?.unwrap_or(INTERVAL).max(Duration::from_secs(1));
    let member = |name: &&str| Some(((*name).to_owned(), fields.get(name)?.json()));
    Ok((interval, fresh, OF_CASE.iter().filter_map(member).collect()))
}

fn metric(item: &Field<'_>) -> Result<(Asked, Value), TableError> {
    let fields = item.fields()?;
    fields.only(&[&OWN[..], &OF_METRIC].concat())?;
    let name = fields.need("name")?.text()?.to_owned();
    let source = fields.need("source")?.text()?.to_owned();
    let query = match (fields.get("query"), fields.get("bad"), fields.get("total")) {
        (Some(query), None, None) => Query::Points(words(&query)?),
        (None, Some(bad), Some(total)) => {
            Query::Counts { bad: words(&bad)?, total: words(&total)? }
        }
        _ => return Err(item.error("expected either query, or bad and total")),
    };
    let objective = fields.get("objective").map(|field| objective(&field, &query)).transpose()?;
    let empty = match query {
        Query::Points(_) => json!([]),
        Query::Counts { .. } => json!({"bad": 0, "total": 0}),
    };
    let member = |name: &&str| Some(((*name).to_owned(), fields.get(name)?.json()));
    let mut metric: Map<String, Value> = OF_METRIC.iter().filter_map(member).collect();
    metric.insert("name".to_owned(), Value::String(name.clone()));
    metric.insert("experiment".to_owned(), empty.clone());
    metric.insert("control".to_owned(), empty);
    Ok((Asked { metric: name, source, query, objective }, Value::Object(metric)))
}

fn objective(field: &Field<'_>, query: &Query) -> Result<f64, TableError> {
    if !matches!(query, Query::Counts { .. }) {
        return Err(field.error("a budget needs counts: bad and total"));
    }
    let share = field.decimal().filter(|share| *share > 0.0 && *share < 1.0);
    share.ok_or_else(|| field.error("expected a share above 0 and below 1, as 0.999"))
}

fn words(field: &Field<'_>) -> Result<String, TableError> {
    let text = field.text()?;
    let fits = !text.is_empty() && text.len() <= MAX_QUERY;
    fits.then(|| text.to_owned()).ok_or_else(|| field.error("a query has 1 to 8,192 bytes"))
}
