//! PromQL with placeholders. Those for text stand within quotes, where what replaces them cannot end the text;
//! those for times stand outside.

use std::time::Duration;

use crate::rollouts::parts::{Asked, Cohort};
use crate::words::{is_address, is_name};

/// Bytes of a query with everything in it.
const MAX_BYTES: usize = 256 << 10;
const TEXTS: [&str; 5] = ["targets", "addresses", "version", "service", "environment"];
const TIMES: [&str; 2] = ["step", "window"];
/// What RE2 gives a meaning.
const SPECIAL: &str = ".+*?()|[]{}^$\\";

/// The part of PromQL's syntax that a character stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Code,
    Comment,
    /// Opened by this quote.
    Quotes(char),
}

/// The query for a cohort. `Err`: what is wrong with it, in words.
pub fn query(template: &str, asked: &Asked, cohort: &Cohort) -> Result<String, String> {
    let mut query = String::new();
    let mut within = Within::Code;
    let (mut rest, mut separates) = (template, false);
    while let Some(character) = rest.chars().next() {
        if let Some((name, after)) = placeholder(rest) {
            query.push_str(&value(name, within, asked, cohort)?);
            separates |= matches!(name, "targets" | "addresses" | "version");
            rest = after;
        } else {
            let length: usize = match (within, character) {
                // The next character is no end of the text, whatever it is.
                (Within::Quotes('"' | '\''), '\\') => {
                    rest.chars().take(2).map(char::len_utf8).sum()
                }
                _ => character.len_utf8(),
            };
            let (taken, after) = rest.split_at(length);
            query.push_str(taken);
            within = next(within, character);
            rest = after;
        }
        if query.len() > MAX_BYTES {
            return Err(format!(
                "the query has more than {MAX_BYTES} bytes with all targets in it"
            ));
        }
    }
    match within {
        Within::Quotes(quote) => Err(format!("the query ends within {quote}")),
        _ if !separates => Err(
            "the query has none of {{targets}}, {{addresses}} and {{version}}: both versions would be the same"
                .to_owned(),
        ),
        _ => Ok(query),
    }
}

fn next(within: Within, character: char) -> Within {
    match (within, character) {
        (Within::Code, '"' | '\'' | '`') => Within::Quotes(character),
        (Within::Code, '#') => Within::Comment,
        (Within::Comment, '\n') => Within::Code,
        (Within::Quotes(quote), other) if quote == other => Within::Code,
        _ => within,
    }
}

/// The name of a placeholder that `text` begins with, and what follows.
fn placeholder(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.strip_prefix("{{")?.split_once("}}")?;
    let name = name.trim();
    name.bytes().all(|it| it.is_ascii_lowercase()).then_some((name, after))
}

fn value(name: &str, within: Within, asked: &Asked, cohort: &Cohort) -> Result<String, String> {
    let quoted = matches!(within, Within::Quotes('"' | '\''));
    if TEXTS.contains(&name) && !quoted {
        return Err(format!("{{{{{name}}}}} has to stand within \"...\", as a label's value"));
    }
    if TIMES.contains(&name) && within != Within::Code {
        return Err(format!("{{{{{name}}}}} has to stand outside of quotes, as a time"));
    }
    let window = asked.window.to.saturating_sub(asked.window.from);
    match name {
        "targets" => any_of(cohort.targets.iter().map(|target| {
            let name = target.name.as_str();
            is_name(name).then_some(name).ok_or_else(|| format!("{name:?} is no name for a query"))
        })),
        "addresses" => any_of(cohort.targets.iter().map(|target| {
            let address = target.address.as_deref().filter(|address| is_address(address));
            address.ok_or_else(|| format!("the target {} has no address", target.name))
        })),
        "version" => plain(&cohort.version.to_string()),
        "service" => plain(&asked.place.service),
        "environment" => plain(&asked.place.environment),
        "step" => Ok(time(asked.window.step)),
        "window" => Ok(time(Duration::from_millis(window))),
        _ => Err(format!(
            "{{{{{name}}}}} is not known; known are {} and {}",
            TEXTS.join(", "),
            TIMES.join(", ")
        )),
    }
}

/// A regular expression for any of these words, as it stands within quotes.
fn any_of<'a>(words: impl Iterator<Item = Result<&'a str, String>>) -> Result<String, String> {
    let mut all = String::new();
    for word in words {
        if !all.is_empty() {
            all.push('|');
        }
        for character in word?.chars() {
            if SPECIAL.contains(character) {
                // A backslash for the expression, and one for the text that it stands in.
                all.push_str("\\\\");
            }
            all.push(character);
        }
        if all.len() > MAX_BYTES {
            return Err(format!(
                "the query has more than {MAX_BYTES} bytes with all targets in it"
            ));
        }
    }
    Ok(all)
}

/// Text in which nothing ends a text.
fn plain(text: &str) -> Result<String, String> {
    let odd = |it: char| "\"'`\\".contains(it) || it.is_control();
    if text.contains(odd) {
        Err(format!("{text:?} is no text for a query"))
    } else {
        Ok(text.to_owned())
    }
}

fn time(time: Duration) -> String {
    format!("{}ms", time.as_millis().max(1))
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::oci::ContentDigest;
    use crate::rollouts::parts::{Cohorts, Place, Query, Target, Window};

    pub fn cohort(of: &str, targets: &[(&str, Option<&str>)]) -> Cohort {
        let target = |(name, address): &(&str, Option<&str>)| Target {
            name: (*name).to_owned(),
            address: address.map(str::to_owned),
            labels: Default::default(),
        };
        let version = ContentDigest::of(of.as_bytes());
        Cohort { version, targets: targets.iter().map(target).collect() }
    }

    pub fn asked(query: Query) -> Asked {
        Asked {
            place: Place { service: "api".to_owned(), environment: "prod".to_owned() },
            metric: "errors".to_owned(),
            query,
            cohorts: Cohorts {
                canary: cohort("new", &[("c.1", Some("10.0.0.3:80")), ("d", None)]),
                baseline: cohort("old", &[("a", Some("10.0.0.1:80"))]),
            },
            window: Window { from: 0, to: 600_000, step: Duration::from_secs(15) },
        }
    }

    fn of(template: &str) -> Result<String, String> {
        let asked = asked(Query::Points(String::new()));
        query(template, &asked, &asked.cohorts.canary)
    }

    #[test]
    fn placeholders_are_replaced() {
        let digest = ContentDigest::of(b"new");
        for (template, expected) in [
            ("up{t=~\"{{targets}}\"}", "up{t=~\"c\\\\.1|d\"}".to_owned()),
            (
                "up{v='{{version}}', s=\"{{ service }}/{{environment}}\"}",
                format!("up{{v='{digest}', s=\"api/prod\"}}"),
            ),
            (
                "sum(increase(n{v=\"{{version}}\"}[{{window}}])) / {{step}}",
                format!("sum(increase(n{{v=\"{digest}\"}}[600000ms])) / 15000ms"),
            ),
            (
                "n{v=\"{{version}}\", r=~\"a\\\"{2}\"}",
                format!("n{{v=\"{digest}\", r=~\"a\\\"{{2}}\"}}"),
            ),
        ] {
            assert_eq!(of(template), Ok(expected));
        }
    }

    #[test]
    fn a_query_that_could_mean_something_else_is_refused() {
        for (template, part) in [
            ("up", "both versions would be the same"),
            ("up{s=\"{{service}}\"}", "both versions would be the same"),
            ("up{{{targets}}}", "within"),
            ("up{t=~`{{targets}}`}", "within"),
            ("up # \"{{targets}}\"", "within"),
            ("up{t=~\"{{targets}}\"}[\"{{window}}\"]", "outside of quotes"),
            ("up{t=~\"{{tragets}}\"}", "is not known"),
            ("up{t=~\"{{targets}}", "ends within \""),
            ("up{t=~\"{{addresses}}\"}", "the target d has no address"),
        ] {
            let error = of(template).unwrap_err();
            assert!(error.contains(part), "{template}: {error}");
        }
        let mut asked = asked(Query::Points(String::new()));
        asked.cohorts.canary.targets[0].name = "a\"} or vector(1) or up{t=\"".to_owned();
        let error = query("up{t=~\"{{targets}}\"}", &asked, &asked.cohorts.canary).unwrap_err();
        assert!(error.contains("is no name"), "{error}");
        asked.place.service = "a\\".to_owned();
        let error = query("up{t=\"{{service}}\"}", &asked, &asked.cohorts.canary).unwrap_err();
        assert!(error.contains("is no text"), "{error}");
    }

    proptest! {
        /// Whatever a target is called, what is between the quotes has no quote.
        #[test]
        fn names_do_not_end_the_text(name in "\\PC{0,20}") {
            let mut asked = asked(Query::Points(String::new()));
            asked.cohorts.canary.targets[0].name = name;
            if let Ok(query) = query("up{t=~\"{{targets}}\"}", &asked, &asked.cohorts.canary) {
                prop_assert_eq!(query.matches('"').count(), 2);
                // The macro takes its own text for a format.
                let whole = query.ends_with('}');
                prop_assert!(whole);
            }
        }
    }
}
