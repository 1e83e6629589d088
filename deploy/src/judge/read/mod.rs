//! Cases as files: JSON, every part of which is checked. What is wrong is told with its place in the
//! document, as `metrics[0].experiment[3]`. docs/judge.md has the format.

mod error;
mod place;
mod settings;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::json;
use crate::judge::case::{Case, Evidence, LEAST_EFFECT, Least, Metric, Thresholds, Traffic};
use crate::judge::counts::Counts;
use crate::judge::limits::{Burn, CRASH_LIMIT, Crashes};
use crate::judge::score::DEFAULT_GROUP;
use crate::judge::series::{NanStrategy, Points};
use error::MAX_VALUES;
use place::{Fields, Place};

pub use error::ReadError;

/// Bytes of a case.
pub const MAX_BYTES: usize = 32 << 20;
pub const MAX_METRICS: usize = 1_000;
/// Points of a cohort.
pub const MAX_POINTS: usize = 100_000;
/// Groups of a metric, weights of groups, budgets.
const MAX_LIST: usize = 1_000;
/// Beyond it, sums and differences of values would not be numbers any more.
const MAX_VALUE: f64 = 1e100;
/// Events that floating point numbers still tell apart.
const MAX_EVENTS: u64 = 1 << 52;

/// Reads a case from its JSON. Errors: it is none, or larger than a limit.
pub fn read(data: &[u8]) -> Result<Case, ReadError> {
    // Every value but the first of a list or an object has a comma before it.
    if data.len() <= MAX_BYTES
        && data.iter().filter(|byte| b",:[{".contains(byte)).count() > MAX_VALUES
    {
        return Err(ReadError::TooManyValues);
    }
    let document: Value = json::read(data, MAX_BYTES).map_err(ReadError::Json)?;
    case(&Fields::of(&document, &Place::Top)?)
}

fn case(top: &Fields<'_>) -> Result<Case, ReadError> {
    top.only(&[
        "metrics",
        "thresholds",
        "groupWeights",
        "confidence",
        "leastEffect",
        "least",
        "traffic",
        "burn",
        "crashes",
    ])?;
    let metrics = top.list("metrics", MAX_METRICS)?;
    let place = Place::Member(top.place, "metrics");
    let read = |(at, value)| metric(value, &Place::Item(&place, at));
    let metrics: Vec<_> = metrics.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    if metrics.is_empty() {
        return Err(place.error("there is no metric, so there is nothing to judge"));
    }
    twice(&metrics, &place)?;
    Ok(Case {
        metrics,
        thresholds: top.object("thresholds", thresholds)?.unwrap_or_default(),
        group_weights: top.object("groupWeights", weights)?.unwrap_or_default(),
        confidence: settings::confidence(top)?,
        least_effect: top.number("leastEffect", 0.0, MAX_VALUE)?.unwrap_or(LEAST_EFFECT),
        least: top.object("least", least)?.unwrap_or_default(),
        traffic: top.object("traffic", traffic)?,
        burn: budgets(top)?,
        crashes: top.object("crashes", crashes)?,
    })
}

fn twice(metrics: &[Metric], place: &Place<'_>) -> Result<(), ReadError> {
    let mut names = std::collections::HashSet::new();
    for (at, metric) in metrics.iter().enumerate() {
        if !names.insert(&metric.name) {
            let problem = format!("there is a metric {:?} before it", metric.name);
            return Err(Place::Item(place, at).error(problem));
        }
    }
    Ok(())
}

fn thresholds(fields: &Fields<'_>) -> Result<Thresholds, ReadError> {
    fields.only(&["pass", "marginal"])?;
    let default = Thresholds::default();
    let pass = fields.number("pass", 0.0, 100.0)?;
    let marginal = fields.number("marginal", 0.0, 100.0)?;
    let (pass, marginal) = match (pass, marginal) {
        (Some(pass), Some(marginal)) => (pass, marginal),
        (Some(pass), None) => (pass, pass.min(default.marginal)),
        (None, Some(marginal)) => (marginal.max(default.pass), marginal),
        (None, None) => (default.pass, default.marginal),
    };
    if marginal > pass {
        return Err(fields.place.error(format!("marginal ({marginal}) is above pass ({pass})")));
    }
    Ok(Thresholds { pass, marginal })
}

fn weights(fields: &Fields<'_>) -> Result<BTreeMap<String, f64>, ReadError> {
    let names = fields.names(MAX_LIST)?;
    let weight = |name: &String| Ok((name.clone(), fields.need_number(name, 0.0, MAX_VALUE)?));
    names.iter().map(weight).collect()
}

fn least(fields: &Fields<'_>) -> Result<Least, ReadError> {
    fields.only(&["points", "effective", "requests", "errors"])?;
    let default = Least::default();
    Ok(Least {
        points: fields.whole("points", MAX_EVENTS)?.map_or(default.points, |it| it.max(1) as usize),
        effective: fields.number("effective", 0.0, MAX_VALUE)?.unwrap_or(default.effective),
        requests: fields.whole("requests", MAX_EVENTS)?.unwrap_or(default.requests),
        errors: fields.number("errors", 0.0, MAX_VALUE)?.unwrap_or(default.errors),
    })
}

fn traffic(fields: &Fields<'_>) -> Result<Traffic, ReadError> {
    fields.only(&["experiment", "control"])?;
    Ok(Traffic {
        experiment: fields.need_whole("experiment", MAX_EVENTS)?,
        control: fields.need_whole("control", MAX_EVENTS)?,
    })
}

fn crashes(fields: &Fields<'_>) -> Result<Crashes, ReadError> {
    fields.only(&["count", "limit"])?;
    Ok(Crashes {
        count: fields.need_whole("count", MAX_EVENTS)?,
        limit: fields.whole("limit", MAX_EVENTS)?.map_or(CRASH_LIMIT, |limit| limit.max(1)),
    })
}

fn budgets(top: &Fields<'_>) -> Result<Vec<Burn>, ReadError> {
    if !top.has("burn") {
        return Ok(Vec::new());
    }
    let place = Place::Member(top.place, "burn");
    let budget = |(at, value)| burn(&Fields::of(value, &Place::Item(&place, at))?);
    top.list("burn", MAX_LIST)?.iter().enumerate().map(budget).collect()
}

fn burn(fields: &Fields<'_>) -> Result<Burn, ReadError> {
    fields.only(&["name", "objective", "factor", "long", "short"])?;
    let objective = fields.need_number("objective", 0.0, 1.0)?;
    if objective >= 1.0 {
        let place = Place::Member(fields.place, "objective");
        return Err(place.error("an objective of 1 leaves no budget that could burn"));
    }
    Ok(Burn {
        name: fields.need_text("name")?.to_owned(),
        objective,
        factor: fields.need_number("factor", 0.0, MAX_VALUE)?,
        long: fields.need_object("long", counts)?,
        short: fields.need_object("short", counts)?,
    })
}

fn counts(fields: &Fields<'_>) -> Result<Counts, ReadError> {
    fields.only(&["bad", "total"])?;
    let (bad, total) =
        (fields.need_whole("bad", MAX_EVENTS)?, fields.need_whole("total", MAX_EVENTS)?);
    if bad > total {
        return Err(fields
            .place
            .error(format!("{bad} bad events are more than the {total} in all")));
    }
    Ok(Counts { bad, total })
}

fn metric(value: &Value, place: &Place<'_>) -> Result<Metric, ReadError> {
    let fields = Fields::of(value, place)?;
    let known = ["name", "groups", "experiment", "control", "error", "muted", "limits"];
    fields.only(&[&known[..], &settings::NESTED, &settings::KNOWN].concat())?;
    let groups = groups(&fields)?;
    let metric = Metric {
        name: fields.need_text("name")?.to_owned(),
        groups: if groups.is_empty() { vec![DEFAULT_GROUP.to_owned()] } else { groups },
        evidence: evidence(&fields)?,
        direction: crate::judge::case::Direction::Either,
        critical: false,
        must_have_data: false,
        muted: fields.flag("muted")?.unwrap_or_default(),
        nan: NanStrategy::Remove,
        outliers: None,
        effect: crate::judge::case::EffectSize::default(),
        limits: fields.object("limits", settings::limits)?.unwrap_or_default(),
        tolerance: None,
        confidence: None,
    };
    settings::apply_all(&fields, metric)
}

fn groups(fields: &Fields<'_>) -> Result<Vec<String>, ReadError> {
    match fields.value("groups") {
        Some(Value::String(group)) => Ok(vec![group.clone()]),
        None => Ok(Vec::new()),
        Some(_) => {
            let place = Place::Member(fields.place, "groups");
            let group = |(at, value): (usize, &Value)| match value {
                Value::String(group) => Ok(group.clone()),
                other => Err(Place::Item(&place, at).expected("the name of a group", other)),
            };
            fields.list("groups", MAX_LIST)?.iter().enumerate().map(group).collect()
        }
    }
}

fn evidence(fields: &Fields<'_>) -> Result<Evidence, ReadError> {
    if let Some(error) = fields.text("error")? {
        return Ok(Evidence::Failed(error.to_owned()));
    }
    if let (Some(Value::Object(_)), Some(Value::Object(_))) =
        (fields.value("experiment"), fields.value("control"))
    {
        let side = |name| fields.need_object(name, counts);
        return Ok(Evidence::Counts { experiment: side("experiment")?, control: side("control")? });
    }
    Ok(Evidence::Points {
        experiment: points(fields, "experiment")?,
        control: points(fields, "control")?,
    })
}

fn points(fields: &Fields<'_>, name: &str) -> Result<Points, ReadError> {
    let place = Place::Member(fields.place, name);
    let point = |(at, value): (usize, &Value)| match value {
        Value::Null => Ok(None),
        Value::String(text) if text.eq_ignore_ascii_case("nan") => Ok(None),
        value => match value.as_f64() {
            Some(number) if number.abs() <= MAX_VALUE => Ok(Some(number)),
            Some(_) => Err(Place::Item(&place, at).error(format!("beyond {MAX_VALUE:e}"))),
            None => Err(Place::Item(&place, at).expected("a number, null or \"NaN\"", value)),
        },
    };
    fields.list(name, MAX_POINTS)?.iter().enumerate().map(point).collect()
}
