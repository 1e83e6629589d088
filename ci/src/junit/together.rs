//! Several reports as one: the suites of all, as they were written.

use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;
use thiserror::Error;

use super::{CaseAttempt, Limits, Refused, read};
use crate::model::Outcome;

/// Numbers of the root that are sums over its suites.
const SUMS: [&str; 5] = ["tests", "failures", "errors", "skipped", "disabled"];

/// Why reports cannot be put together.
#[derive(Debug, Error)]
pub enum NotTogether {
    #[error("report {number}: {refused}")]
    Refused {
        /// The number of the report in the list, counted from 1.
        number: usize,
        #[source]
        refused: Refused,
    },
    /// A declaration says so, and a document has one for all of it.
    #[error("report {0} is not in UTF-8")]
    Encoding(usize),
    #[error("report {0} has no suite where one was read")]
    Lost(usize),
}

#[derive(Default)]
struct Together {
    suites: Vec<u8>,
    sums: Sums,
}

/// What a report comes to.
#[derive(Clone, Copy, Default)]
struct Sums {
    counts: [u64; SUMS.len()],
    seconds: f64,
}

/// What the suites of a report say that they come to, and whether each of them does.
#[derive(Default)]
struct Said {
    sums: Sums,
    is_silent: bool,
}

/// Puts reports together as one with the suites of all, in their order. Each is read first: what is no report is
/// refused.
pub fn put_together<T: AsRef<[u8]>>(
    reports: &[T],
    limits: &Limits,
) -> Result<Vec<u8>, NotTogether> {
    let mut together = Together::default();
    for (number, report) in (1..).zip(reports) {
        let report = report.as_ref();
        let mut counted = Sums::default();
        let totals = read(report, limits, |it| counted.count(&it));
        let totals = totals.map_err(|refused| NotTogether::Refused { number, refused })?;
        counted.counts[0] = totals.cases;
        let said = together.add(report, number)?;
        // Many runners leave the numbers to whoever reads the cases.
        together.sums.add(if said.is_silent { &counted } else { &said.sums });
    }
    Ok(together.finish())
}

impl Sums {
    /// A case as it ended; cases that failed and those with an error are not told apart.
    fn count(&mut self, it: &CaseAttempt) {
        match it.result.outcome {
            Outcome::Failed | Outcome::TimedOut | Outcome::Infrastructure => self.counts[1] += 1,
            Outcome::Skipped => self.counts[3] += 1,
            Outcome::Passed => {}
        }
        self.seconds += it.result.duration.map_or(0.0, |it| it.as_secs_f64());
    }

    fn add(&mut self, other: &Self) {
        for (sum, more) in self.counts.iter_mut().zip(other.counts) {
            *sum = sum.saturating_add(more);
        }
        self.seconds += other.seconds;
    }
}

impl Together {
    fn add(&mut self, report: &[u8], number: usize) -> Result<Said, NotTogether> {
        let mut said = Said::default();
        // Bytes that are no text are what a test printed: they are shown as such.
        let text = String::from_utf8_lossy(report);
        let text = text.trim_start_matches('\u{feff}');
        let mut xml = Reader::from_str(text);
        let (mut depth, mut within_root, mut begins) = (0_usize, false, None);
        let lost = || NotTogether::Lost(number);
        loop {
            let before = position(&xml);
            let event = xml.read_event().map_err(|_| lost())?;
            let (opens, closes, tag) = match &event {
                Event::Start(tag) => (true, false, Some(tag)),
                Event::Empty(tag) => (true, true, Some(tag)),
                Event::End(_) => (false, true, None),
                Event::Decl(declaration) => {
                    let name = declaration.encoding().and_then(Result::ok);
                    if name.is_some_and(|name| !name.eq_ignore_ascii_case("utf-8")) {
                        return Err(NotTogether::Encoding(number));
                    }
                    continue;
                }
                Event::Eof => return Ok(said),
                _ => continue,
            };
            let is_root =
                |tag: &&BytesStart| depth == 0 && tag.local_name().as_ref() == "testsuites";
            if opens {
                within_root = if depth == 0 { tag.filter(is_root).is_some() } else { within_root };
                if depth == usize::from(within_root) && begins.is_none() {
                    begins = tag.filter(|tag| !is_root(tag)).map(|tag| {
                        said.hear(tag);
                        before
                    });
                }
                depth += 1;
            }
            if closes {
                depth = depth.saturating_sub(1);
                if depth == usize::from(within_root)
                    && let Some(begin) = begins.take()
                {
                    let suite = text.get(begin..position(&xml)).ok_or_else(lost)?;
                    self.suites.extend_from_slice(suite.trim().as_bytes());
                    self.suites.push(b'\n');
                }
            }
        }
    }

    fn finish(self) -> Vec<u8> {
        let Sums { counts, seconds } = self.sums;
        let sums: String =
            SUMS.iter().zip(counts).map(|(name, sum)| format!(" {name}=\"{sum}\"")).collect();
        let mut all = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites{sums} time=\"{seconds:.3}\">\n"
        )
        .into_bytes();
        all.extend(self.suites);
        all.extend_from_slice(b"</testsuites>\n");
        all
    }
}

impl Said {
    /// What cannot be read as a number counts for none.
    fn hear(&mut self, suite: &BytesStart) {
        let mut tests = None;
        for attribute in suite.attributes().with_checks(false).flatten() {
            let Ok(value) = str::from_utf8(attribute.value.as_ref().as_bytes()) else { continue };
            let key: &str = attribute.key.as_ref();
            if let Some(place) = SUMS.iter().position(|name| *name == key) {
                let number: Option<u64> = value.trim().parse().ok();
                tests = tests.or(number.filter(|_| place == 0));
                let sum = &mut self.sums.counts[place];
                *sum = sum.saturating_add(number.unwrap_or(0));
            } else if key == "time" {
                let seconds: f64 = value.trim().parse().unwrap_or(0.0);
                let seconds = if seconds.is_finite() { seconds.max(0.0) } else { 0.0 };
                self.sums.seconds += seconds;
            }
        }
        let is_suite = suite.local_name().as_ref() == "testsuite";
        self.is_silent |= is_suite && tests.is_none();
    }
}

fn position(xml: &Reader<&[u8]>) -> usize {
    usize::try_from(xml.buffer_position()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn together(reports: &[&str]) -> Result<String, NotTogether> {
        let all = put_together(reports, &Limits::default())?;
        Ok(String::from_utf8(all).unwrap())
    }

    fn cases(report: &str) -> Vec<(String, String)> {
        let mut cases = Vec::new();
        let each = |it: super::super::CaseAttempt| {
            cases.push((it.suite.to_string(), it.result.case.name));
        };
        read(report.as_bytes(), &Limits::default(), each).unwrap();
        cases
    }

    #[test]
    fn suites_of_all_reports_are_in_one_as_they_were_written() {
        let one = "\u{feff}<?xml version='1.0' encoding='utf-8'?>\n<testsuites tests=\"9\"><properties/>\
            <testsuite name=\"A\" tests=\"1\" time=\"1.5\"><testcase name=\"a &amp; b\"><failure>&lt;x&gt;<![CDATA[</testsuite>]]>\
            </failure></testcase></testsuite><!-- no --> <testsuite name=\"E\" tests=\"0\"/></testsuites>";
        let two = "<testsuite name=\"B\" tests=\"2\" failures=\"1\" time=\"x\"><testsuite name=\"C\">\
            <testcase name=\"c\"/></testsuite><testcase name=\"d\"/></testsuite>\n";
        let all = together(&[one, two]).unwrap();
        let case = |suite: &str, name: &str| (suite.to_owned(), name.to_owned());
        assert_eq!(cases(&all), [case("A", "a & b"), case("B > C", "c"), case("B", "d")]);
        let root = all.lines().nth(1).unwrap();
        assert_eq!(
            root,
            "<testsuites tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"0\" disabled=\"0\" time=\"1.500\">"
        );
        assert!(all.contains("<testsuite name=\"E\" tests=\"0\"/>\n"), "{all}");
        assert!(all.contains("<![CDATA[</testsuite>]]>"), "{all}");
    }

    #[test]
    fn cases_are_counted_where_a_suite_does_not_say_how_many_it_has() {
        let silent = "<testsuite name=\"A\"><testcase name=\"a\" time=\"1.5\"/><testcase name=\"b\" time=\"0.25\">\
            <failure/></testcase><testcase name=\"c\"><skipped/></testcase></testsuite>";
        let says = "<testsuite name=\"B\" tests=\"2\" errors=\"1\" time=\"3\"><testcase name=\"d\"/></testsuite>";
        let all = together(&[silent, says]).unwrap();
        assert_eq!(
            all.lines().nth(1).unwrap(),
            "<testsuites tests=\"5\" failures=\"1\" errors=\"1\" skipped=\"1\" disabled=\"0\" time=\"4.750\">"
        );
    }

    #[test]
    fn what_was_put_together_can_be_again() {
        let suite =
            |name: &str| format!("<testsuite name=\"{name}\"><testcase name=\"t\"/></testsuite>");
        let two = together(&[&suite("A"), &suite("B")]).unwrap();
        let three = together(&[&two, &suite("C")]).unwrap();
        let suites: Vec<_> = cases(&three).into_iter().map(|(suite, _)| suite).collect();
        assert_eq!(suites, ["A", "B", "C"]);
    }

    #[test]
    fn what_is_no_report_is_named() {
        let good = "<testsuite name=\"A\"/>";
        for (bad, said) in [
            ("<testsuite>", "report 2: line 1"),
            (
                "<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]><testsuite>&e;</testsuite>",
                "report 2",
            ),
            ("<?xml version='1.0' encoding='ISO-8859-1'?><testsuite/>", "report 2 is not in UTF-8"),
            ("", "report 2"),
        ] {
            let error = together(&[good, bad]).unwrap_err().to_string();
            assert!(error.starts_with(said), "{bad}: {error}");
        }
    }
}
