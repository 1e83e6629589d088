//! What an action's platform properties ask for. They choose no worker, so they are taken out of what one has to
//! offer.

/// The property that asks for shards: `auto` or a number of them.
pub const SHARDS: &str = "kiln-shards";
/// The property that says how the runner reads the list of cases in `TESTBRIDGE_TEST_ONLY`.
pub const FILTER: &str = "kiln-shard-filter";

/// Shards of one action, at most.
pub const MAX_SHARDS: u32 = 64;

/// How many shards are wished for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// As many shards as are worth it.
    Auto,
    Exactly(u32),
}

/// How a runner reads a list of cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// `Suite.Case:Suite.Other`, and after a minus those to leave out.
    Googletest,
    /// A regular expression that is looked for in `Class#method`.
    Java,
}

/// An action that may be fanned out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    pub number: Number,
    /// `None`: the runner is not known to filter.
    pub filter: Option<Filter>,
}

type Pair = (String, String);

/// Takes the wish out of an action's properties. Errors: the property that is wrong, and what it may be.
pub fn take(
    properties: impl IntoIterator<Item = Pair>,
) -> Result<(Vec<Pair>, Option<Wish>), String> {
    let (mut number, mut filter, mut rest) = (None, None, Vec::new());
    for (name, value) in properties {
        match name.as_str() {
            SHARDS => number = parse_number(&value)?,
            FILTER => filter = Some(parse_filter(&value)?),
            _ => rest.push((name, value)),
        }
    }
    Ok((rest, number.map(|number| Wish { number, filter })))
}

fn parse_number(value: &str) -> Result<Option<Number>, String> {
    if value == "auto" {
        return Ok(Some(Number::Auto));
    }
    match value.parse() {
        Ok(0 | 1) => Ok(None),
        Ok(number) if number <= MAX_SHARDS => Ok(Some(Number::Exactly(number))),
        _ => Err(format!(
            "platform property {SHARDS} = {value:?}: the values are auto and numbers up to {MAX_SHARDS}"
        )),
    }
}

fn parse_filter(value: &str) -> Result<Filter, String> {
    match value {
        "googletest" => Ok(Filter::Googletest),
        "java" => Ok(Filter::Java),
        _ => Err(format!(
            "platform property {FILTER} = {value:?}: the values are googletest and java"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(pairs: &[(&str, &str)]) -> Result<(usize, Option<Wish>), String> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        take(pairs.iter().map(pair)).map(|(rest, wish)| (rest.len(), wish))
    }

    #[test]
    fn a_wish_is_taken_out_and_chooses_no_worker() {
        let wish = |number| Some(Wish { number, filter: None });
        assert_eq!(taken(&[("os", "linux")]), Ok((1, None)));
        assert_eq!(taken(&[("os", "linux"), (SHARDS, "auto")]), Ok((1, wish(Number::Auto))));
        assert_eq!(taken(&[(SHARDS, "64")]), Ok((0, wish(Number::Exactly(64)))));
        let filtered = Wish { number: Number::Auto, filter: Some(Filter::Java) };
        assert_eq!(taken(&[(FILTER, "java"), (SHARDS, "auto")]), Ok((0, Some(filtered))));
        assert_eq!(taken(&[(SHARDS, "1"), (FILTER, "googletest")]), Ok((0, None)));
    }

    #[test]
    fn what_is_no_wish_is_refused_and_named() {
        for (name, value) in [
            (SHARDS, "65"),
            (SHARDS, "-1"),
            (SHARDS, ""),
            (SHARDS, "many"),
            (SHARDS, "99999999999"),
            (FILTER, "pytest"),
        ] {
            let error = taken(&[(name, value)]).unwrap_err();
            assert!(error.contains(name) && error.contains("the values are"), "{error}");
        }
    }
}
