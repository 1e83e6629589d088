//! Answers of Prometheus' HTTP API: one series, or one value.

use serde::Deserialize;
use serde_json::Value;

const MAX_SAID: usize = 300;

#[derive(Deserialize)]
struct Envelope {
    status: String,
    data: Option<Data>,
    error: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Vec<Value>,
}

#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    values: Vec<(f64, String)>,
    value: Option<(f64, String)>,
}

/// The values of the one series of a range query, by time in seconds. `None`: no series. `Err`: what is wrong, in words.
pub fn range(data: &[u8]) -> Result<Option<Vec<(f64, f64)>>, String> {
    let Some(series) = one(data, "matrix")? else { return Ok(None) };
    let value = |(time, text): &(f64, String)| Ok((*time, number(text)?));
    series.values.iter().map(value).collect::<Result<_, String>>().map(Some)
}

/// The one value of an instant query.
pub fn instant(data: &[u8]) -> Result<Option<f64>, String> {
    let Some(series) = one(data, "vector")? else { return Ok(None) };
    let (_, text) = series.value.ok_or("its answer has a series without a value")?;
    number(&text).map(Some)
}

fn one(data: &[u8], kind: &str) -> Result<Option<Series>, String> {
    let unreadable = |error: serde_json::Error| format!("its answer is not understood: {error}");
    let answer: Envelope = serde_json::from_slice(data).map_err(unreadable)?;
    if answer.status != "success" {
        let why = answer.error.unwrap_or(answer.status);
        return Err(format!("it says: {}", shown(&why)));
    }
    // Part of the data may be missing.
    if let Some(warning) = answer.warnings.first() {
        return Err(format!("it warns: {}", shown(warning)));
    }
    let data = answer.data.ok_or("its answer has no data")?;
    if data.result_type != kind {
        return Err(format!(
            "the query gives a {}, not a {kind} of one series",
            shown(&data.result_type)
        ));
    }
    let count = data.result.len();
    match data.result.into_iter().next() {
        None => Ok(None),
        Some(series) if count == 1 => Series::deserialize(series).map(Some).map_err(unreadable),
        Some(_) => Err(format!(
            "the query gives {count} series of one version; put sum(...) or the like around it"
        )),
    }
}

fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| format!("it gives {:?} for a number", shown(text)))
}

/// The beginning, on one line.
pub fn shown(text: &str) -> String {
    text.chars().take(MAX_SAID).map(|it| if it.is_control() { ' ' } else { it }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(result: &str) -> String {
        format!(
            "{{\"status\":\"success\",\"data\":{{\"resultType\":\"matrix\",\"result\":[{result}]}}}}"
        )
    }

    #[test]
    fn one_series_is_read() {
        let series =
            "{\"metric\":{\"a\":\"b\"},\"values\":[[1.5,\"2\"],[2.5,\"NaN\"],[3.5,\"+Inf\"]]}";
        let values = range(matrix(series).as_bytes()).unwrap().unwrap();
        assert_eq!(values.len(), 3);
        assert!(values[0] == (1.5, 2.0) && values[1].1.is_nan() && values[2].1.is_infinite());
        assert_eq!(range(matrix("").as_bytes()), Ok(None));
        let two = format!("{series},{series}");
        assert!(range(matrix(&two).as_bytes()).unwrap_err().contains("2 series"));
        let vector = "{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[{\"value\":[1,\"7\"]}]}}";
        assert_eq!(instant(vector.as_bytes()), Ok(Some(7.0)));
        assert!(range(vector.as_bytes()).unwrap_err().contains("gives a vector"));
    }

    #[test]
    fn what_is_no_answer_is_told() {
        for (text, part) in [
            ("<html>", "not understood"),
            (
                "{\"status\":\"error\",\"errorType\":\"bad_data\",\"error\":\"parse\\nerror\"}",
                "it says: parse error",
            ),
            ("{\"status\":\"success\"}", "no data"),
            (&matrix("{\"values\":[[1,\"x\"]]}"), "\"x\" for a number"),
            (&matrix("7"), "not understood"),
            (
                &matrix("").replace("{\"status", "{\"warnings\":[\"store is away\"],\"status"),
                "it warns: store is away",
            ),
        ] {
            let error = range(text.as_bytes()).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
