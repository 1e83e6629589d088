//! What a metric's owner says of it. The names are Kayenta's, and it may stand where Kayenta has it
//! (`analysisConfigurations.canary`), so that its configurations can be taken over.

use super::error::ReadError;
use super::place::{Fields, Place};
use crate::judge::case::{Direction, EffectSize, Measure, Metric};
use crate::judge::limits::{Limits, Statistic};
use crate::judge::series::NanStrategy;

/// Members of a metric in which settings may stand as well.
pub const NESTED: [&str; 2] = ["parameters", "analysisConfigurations"];

/// The settings of a metric.
pub const KNOWN: [&str; 13] = [
    "direction",
    "critical",
    "mustHaveData",
    "muted",
    "nanStrategy",
    "outliers",
    "effectSize",
    "tolerance",
    "confidence",
    "confLevel",
    "effectSizeThresholds",
    "criticalThresholds",
    "effectSizeMeasure",
];

const MEASURES: [(&str, Measure); 2] = [("meanRatio", Measure::MeanRatio), ("cles", Measure::Cles)];
/// How many interquartile ranges beyond the quartiles outliers are.
const OUTLIER_FACTOR: f64 = 3.0;
const MOST: f64 = 1e100;

/// Applies what the metric says, then what stands in its parts.
pub fn apply_all(fields: &Fields<'_>, metric: Metric) -> Result<Metric, ReadError> {
    let mut metric = apply(fields, metric)?;
    if let Some(inner) = fields.object("parameters", |inner| nested(inner, metric.clone()))? {
        metric = inner;
    }
    let canary = |all: &Fields<'_>| {
        all.only(&["canary"])?;
        all.object("canary", |inner| nested(inner, metric.clone()))
    };
    Ok(fields.object("analysisConfigurations", canary)?.flatten().unwrap_or(metric))
}

fn nested(fields: &Fields<'_>, metric: Metric) -> Result<Metric, ReadError> {
    fields.only(&KNOWN)?;
    apply(fields, metric)
}

fn apply(fields: &Fields<'_>, mut metric: Metric) -> Result<Metric, ReadError> {
    use Direction::{Decrease, Either, Increase};
    let directions = [("increase", Increase), ("decrease", Decrease), ("either", Either)];
    set(&mut metric.direction, fields.word("direction", &directions)?);
    let strategies = [("remove", NanStrategy::Remove), ("replace", NanStrategy::Replace)];
    set(&mut metric.nan, fields.word("nanStrategy", &strategies)?);
    set(&mut metric.critical, fields.flag("critical")?);
    set(&mut metric.must_have_data, fields.flag("mustHaveData")?);
    set(&mut metric.muted, fields.flag("muted")?);
    set(&mut metric.outliers, fields.object("outliers", outliers)?);
    set(&mut metric.confidence, confidence(fields)?.map(Some));
    set(&mut metric.tolerance, fields.number("tolerance", 0.0, MOST)?.map(Some));
    metric.effect = fields
        .object("effectSize", |inner| effect_size(inner, metric.effect))?
        .unwrap_or(metric.effect);
    set(&mut metric.effect.measure, fields.word("effectSizeMeasure", &MEASURES)?);
    if let Some([decrease, increase]) = pair(fields, "effectSizeThresholds")? {
        (metric.effect.allowed_decrease, metric.effect.allowed_increase) =
            (Some(decrease), Some(increase));
    }
    if let Some([decrease, increase]) = pair(fields, "criticalThresholds")? {
        (metric.effect.critical_decrease, metric.effect.critical_increase) =
            (Some(decrease), Some(increase));
    }
    Ok(metric)
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// A decrease and an increase.
fn pair(fields: &Fields<'_>, name: &str) -> Result<Option<[f64; 2]>, ReadError> {
    if !fields.has(name) {
        return Ok(None);
    }
    let list = fields.list(name, 2)?;
    let numbers: Vec<f64> = list.iter().filter_map(serde_json::Value::as_f64).collect();
    match numbers[..] {
        [decrease, increase] if list.len() == 2 => Ok(Some([decrease, increase])),
        _ => Err(Place::Member(fields.place, name)
            .error("expected two numbers: for a decrease, and for an increase")),
    }
}

/// `confidence`, or `confLevel` as Kayenta has it.
pub fn confidence(fields: &Fields<'_>) -> Result<Option<f64>, ReadError> {
    for name in ["confidence", "confLevel"] {
        if let Some(confidence) = fields.number(name, 0.0, 1.0)? {
            if !(0.5..1.0).contains(&confidence) {
                let place = Place::Member(fields.place, name);
                return Err(place.error("expected a number from 0.5 to less than 1, as 0.99"));
            }
            return Ok(Some(confidence));
        }
    }
    Ok(None)
}

fn outliers(fields: &Fields<'_>) -> Result<Option<f64>, ReadError> {
    fields.only(&["strategy", "outlierFactor", "factor"])?;
    let strategy = fields.word("strategy", &[("remove", true), ("keep", false)])?;
    let factor = fields.number("outlierFactor", 0.0, MOST)?.or(fields.number("factor", 0.0, MOST)?);
    Ok(strategy.unwrap_or_default().then(|| factor.unwrap_or(OUTLIER_FACTOR)))
}

fn effect_size(fields: &Fields<'_>, before: EffectSize) -> Result<EffectSize, ReadError> {
    fields.only(&[
        "measure",
        "allowedIncrease",
        "allowedDecrease",
        "criticalIncrease",
        "criticalDecrease",
    ])?;
    let limit = |name| fields.number(name, -MOST, MOST);
    Ok(EffectSize {
        measure: fields.word("measure", &MEASURES)?.unwrap_or(before.measure),
        allowed_increase: limit("allowedIncrease")?.or(before.allowed_increase),
        allowed_decrease: limit("allowedDecrease")?.or(before.allowed_decrease),
        critical_increase: limit("criticalIncrease")?.or(before.critical_increase),
        critical_decrease: limit("criticalDecrease")?.or(before.critical_decrease),
    })
}

pub fn limits(fields: &Fields<'_>) -> Result<Limits, ReadError> {
    fields.only(&["max", "min", "statistic"])?;
    Ok(Limits {
        max: fields.number("max", -MOST, MOST)?,
        min: fields.number("min", -MOST, MOST)?,
        statistic: fields.word("statistic", &Statistic::NAMES)?.unwrap_or_default(),
    })
}
