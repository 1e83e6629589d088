use std::io::Read;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{CaseName, Outcome};
use Outcome::{Failed, Passed, Skipped, TimedOut};

fn limits() -> Limits {
    Limits::default()
}

fn all(xml: &[u8], limits: &Limits) -> Result<(Totals, Vec<CaseAttempt>), Refused> {
    let mut found = Vec::new();
    let totals = read(xml, limits, |attempt| found.push(attempt))?;
    Ok((totals, found))
}

fn attempts(xml: &str) -> Vec<CaseAttempt> {
    all(xml.as_bytes(), &limits()).unwrap_or_else(|error| panic!("{error}: {xml}")).1
}

/// What matters most, in a row: suite, class, name, attempt, outcome, milliseconds.
type Row = (String, String, String, u32, Outcome, Option<u128>);

fn rows(xml: &str) -> Vec<Row> {
    let row = |attempt: CaseAttempt| {
        let CaseName { class, name } = attempt.result.case;
        let time = attempt.result.duration.map(|time| time.as_millis());
        (attempt.suite.to_string(), class, name, attempt.attempt, attempt.result.outcome, time)
    };
    attempts(xml).into_iter().map(row).collect()
}

fn row(
    suite: &str,
    class: &str,
    name: &str,
    attempt: u32,
    outcome: Outcome,
    time: Option<u128>,
) -> Row {
    (suite.to_owned(), class.to_owned(), name.to_owned(), attempt, outcome, time)
}

/// Line and words of a refusal.
fn refusal(xml: &[u8], limits: &Limits) -> (u64, String) {
    let error = all(xml, limits).expect_err("it is refused");
    (error.line, error.reason.to_string())
}

#[test]
fn suites_nest_and_name_their_cases() {
    let xml = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="all">
  <testsuite name="a"><testsuite name="b">
    <testcase name="one" classname="A" time="1.5"/>
    <testcase name="two"/>
  </testsuite>
    <testcase name="three" classname="" time="-1"></testcase>
  </testsuite>
  <testcase name="four" class="C"><skipped/></testcase>
</testsuites>"#;
    assert_eq!(
        rows(xml),
        [
            row("all > a > b", "A", "one", 1, Passed, Some(1500)),
            row("all > a > b", "b", "two", 1, Passed, None),
            row("all > a", "a", "three", 1, Passed, None),
            row("all", "C", "four", 1, Skipped, None),
        ]
    );
    let (totals, _) = all(xml.as_bytes(), &limits()).expect("it is read");
    assert_eq!(totals, Totals { documents: 1, suites: 2, cases: 4, attempts: 4 });
}

#[test]
fn a_suite_may_be_the_root_and_documents_may_follow_each_other() {
    let one = "\u{feff}<?xml version=\"1.0\"?>\n<testsuite name=\"s\"><testcase name=\"t\"/></testsuite>\n";
    let rows = rows(&format!("{one}{one}<!-- the end --><testsuites/>"));
    assert_eq!(rows, [row("s", "s", "t", 1, Passed, None), row("s", "s", "t", 2, Passed, None)]);
}

#[test]
fn an_empty_report_is_a_report() {
    for xml in ["<testsuites/>", "<testsuites></testsuites>", "<testsuite name='s' tests='0'/>"] {
        assert_eq!(rows(xml), []);
    }
}

#[test]
fn the_worst_result_of_a_case_is_its_outcome() {
    let xml = r#"<testsuite name="s">
<testcase name="a"><skipped/><failure message="first">more
 of first</failure><failure message="second"/><error>third</error></testcase>
<testcase name="b" status="notrun"/>
<testcase name="c" status="run" result="suppressed"/>
<testcase name="d" status="fail"/>
<testcase name="e"><failure type="test timeout"/></testcase>
<testcase name="f"><error type="org.junit.runners.model.TestTimedOutException"/><failure/></testcase>
<testcase name="g"><system-out><![CDATA[</testcase><failure/>]]></system-out></testcase>
</testsuite>"#;
    let outcomes: Vec<_> = rows(xml).into_iter().map(|row| row.4).collect();
    assert_eq!(outcomes, [Failed, Skipped, Skipped, Failed, TimedOut, Failed, Passed]);
    let message = attempts(xml)[0].result.message.clone();
    assert_eq!(message.as_deref(), Some("first\nmore\n of first\nsecond\nthird"));
}

#[test]
fn repeated_attempts_are_counted_in_the_order_in_which_they_ran() {
    let xml = r#"<testsuite name="s">
<testcase name="flaky" time="3">
  <flakyFailure message="m1" type="T" time="1"><stackTrace><![CDATA[m1 & trace]]></stackTrace>
    <system-out>not a message</system-out></flakyFailure>
  <flakyError message="m2" time="2">e</flakyError>
</testcase>
<testcase name="broken" time="4"><failure message="f">f</failure>
  <system-out/><rerunFailure message="r1" time="5"/><rerunError message="r2"/></testcase>
</testsuite>"#;
    assert_eq!(
        rows(xml),
        [
            row("s", "s", "flaky", 1, Failed, Some(1000)),
            row("s", "s", "flaky", 2, Failed, Some(2000)),
            row("s", "s", "flaky", 3, Passed, Some(3000)),
            row("s", "s", "broken", 1, Failed, Some(4000)),
            row("s", "s", "broken", 2, Failed, Some(5000)),
            row("s", "s", "broken", 3, Failed, None),
        ]
    );
    let messages: Vec<_> = attempts(xml).into_iter().map(|one| one.result.message).collect();
    let messages: Vec<_> = messages.iter().map(Option::as_deref).collect();
    assert_eq!(
        messages,
        [Some("m1 & trace"), Some("m2\ne"), None, Some("f"), Some("r1"), Some("r2")]
    );
}

#[test]
fn a_case_that_occurs_again_is_its_retry_and_another_suite_is_not() {
    let xml = r#"<testsuites><testsuite name="s">
<testcase classname="A" name="t"><failure/></testcase>
<testcase classname="A" name="u"/>
<testcase classname="A" name="t"/></testsuite>
<testsuite name="other"><testcase classname="A" name="t"/></testsuite></testsuites>"#;
    assert_eq!(
        rows(xml),
        [
            row("s", "A", "t", 1, Failed, None),
            row("s", "A", "u", 1, Passed, None),
            row("s", "A", "t", 2, Passed, None),
            row("other", "A", "t", 1, Passed, None),
        ]
    );
}

#[test]
fn a_tear_down_that_fails_after_its_case_is_no_second_attempt() {
    let again = |message: &str| {
        rows(&format!(
            r#"<testsuite name="s"><testcase classname="A" name="t" time="1"><failure message="m"/></testcase>
<testcase classname="A" name="t" time="0"><error message="{message}"/></testcase></testsuite>"#
        ))
    };
    assert_eq!(again("failed on teardown with &quot;x&quot;").len(), 1);
    assert_eq!(again("failed on setup").len(), 2);
}

#[test]
fn a_suite_that_fails_by_itself_is_a_failure_without_a_name() {
    let xml = r#"<testsuite name="s"><error message="no database">trace</error>
<testcase name="t"/></testsuite>"#;
    assert_eq!(
        rows(xml),
        [row("s", "s", "", 1, Failed, None), row("s", "s", "t", 1, Passed, None)]
    );
}

#[test]
fn what_a_suite_says_of_itself_is_never_the_tear_down_of_a_case() {
    let error = "<error message='failed on teardown with x'/>";
    let xml = format!("<testsuite name='s'>{error}{error}<testcase name=''/></testsuite>");
    let (totals, found) = all(xml.as_bytes(), &limits()).expect("it is read");
    assert_eq!((totals.cases, found.len()), (1, 3));
}

#[test]
fn entities_and_document_types_are_refused() {
    let declared = b"<?xml version='1.0'?>\n<!DOCTYPE r [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>\n<testsuite/>";
    let (line, reason) = refusal(declared, &limits());
    assert_eq!(line, 2);
    assert!(reason.contains("never followed"), "{reason}");
    let (line, reason) = refusal(b"<testsuite>\n\n<testcase name='a&x;'/></testsuite>", &limits());
    assert_eq!(
        (line, &*reason),
        (3, "&x; is none of XML's own entities, and no others are followed")
    );
    let billion = format!("<!DOCTYPE r [{}", "<!ENTITY a '&b;&b;'>".repeat(10_000));
    assert!(refusal(billion.as_bytes(), &limits()).1.contains("never followed"));
    assert_eq!(rows("<testsuite name='&lt;&#65;&amp;'/>"), []);
}

#[test]
fn what_is_no_report_is_refused_with_its_line() {
    for (xml, line, words) in [
        (&b""[..], 1, "there is no report"),
        (b" \n\n", 3, "there is no report"),
        (b"<?xml version='1.0'?>\n", 2, "there is no report"),
        (b"\n<assemblies/>", 2, "<assemblies> is no JUnit report"),
        (b"<testcase name='t'/>", 1, "<testcase> is no JUnit report"),
        (b"{\"a\": 1}", 1, "text stands outside"),
        (b"<testsuite/>\nPASS\n", 3, "text stands outside"),
        (b"\xff\xfe<\0t\0", 1, "it is in UTF-16"),
        (b"<testsuite>\n<testcase/></testsuite>", 2, "has no name"),
        (b"<testsuite>\n<testcase name='\xff'/></testsuite>", 2, "not UTF-8"),
        (b"<?xml version='1.0' encoding='ISO-8859-1'?><testsuite name='\xe4'/>", 1, "ISO-8859-1"),
        (
            b"<testsuite>\n<testcase name='a'><testcase name='b'/></testcase></testsuite>",
            2,
            "within",
        ),
        (b"<testsuite>\n</testsuites>", 2, "not well-formed"),
        (b"<testsuite>\n<!-> x --></testsuite>", 2, "<! begins neither"),
        (b"<testsuite>\n<!ELEMENT a ANY></testsuite>", 2, "<! begins neither"),
        (b"<testsuite>\n<testcase name=a/></testsuite>", 2, "not well-formed"),
    ] {
        let (at, reason) = refusal(xml, &limits());
        let xml = String::from_utf8_lossy(xml);
        assert!(at == line && reason.contains(words), "{xml}: line {at}: {reason}");
    }
}

#[test]
fn a_report_that_is_cut_short_anywhere_is_refused() {
    let xml = r#"<?xml version="1.0"?><testsuites><testsuite name="s">
<testcase name="t" time="1"><failure message="a>b">t <![CDATA[x]]> &amp; y</failure></testcase>
</testsuite></testsuites>"#;
    assert_eq!(rows(xml).len(), 1);
    let root = xml.find("<testsuites>").expect("a root");
    for end in root + 1..xml.len() {
        let (_, reason) = refusal(&xml.as_bytes()[..end], &limits());
        assert!(reason.contains("it ends within <"), "{}: {reason}", &xml[..end]);
    }
}

#[test]
fn limits_are_kept() {
    let case = "<testcase name='t'/>";
    let suite = |inner: &str| format!("<testsuite>{inner}</testsuite>");
    let small = Limits { report: 400, tag: 100, name: 10, message: 8, attempts: 3, depth: 4 };
    assert_eq!(all(suite(&case.repeat(3)).as_bytes(), &small).expect("it fits").0.attempts, 3);
    for (inner, words) in [
        (case.repeat(4), "more than 3 attempts"),
        (case.repeat(30), "more than 400 bytes"),
        ("x".repeat(400), "more than 400 bytes"),
        (format!("<properties a='{}'/>", "x".repeat(200)), "a tag has more than 100 bytes"),
        ("<testcase name='12345678901'/>".to_owned(), "the name of a case has more than 10"),
        ("<a><a><a><a>".to_owned(), "nested more than 4 deep"),
    ] {
        let (_, reason) = refusal(suite(&inner).as_bytes(), &small);
        assert!(reason.contains(words), "{inner}: {reason}");
    }
    // What tests print counts only against the limit of the whole report. Messages are cut after a whole
    // character and never within an escape.
    for (text, message) in [
        ("1234567\u{e4}", "1234567"),
        ("12345&amp;", "12345"),
        ("<![CDATA[&&&]]>", "&"),
        ("ab\u{e4}", "ab\u{e4}"),
    ] {
        let xml = suite(&format!("<testcase name='t'><failure>{text}</failure></testcase>"));
        let (_, found) = all(xml.as_bytes(), &small).expect("it is read");
        let kept = found[0].result.message.clone().unwrap_or_default();
        assert_eq!(kept.trim_end_matches('\u{fffd}'), message, "{text}");
    }
}

/// Hands out what it holds in pieces of one length.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.1.min(self.0.len()).min(into.len());
        into[..length].copy_from_slice(&self.0[..length]);
        self.0 = &self.0[length..];
        Ok(length)
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;").replace('>', "&gt;")
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        cases in prop::collection::vec(("[ -~\u{e4}\u{20ac}]{1,12}", "[!-~]{1,9}", 0_u32..100_000, 0..4, any::<bool>()), 0..20),
        piece in 1_usize..40,
    ) {
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<testsuites><testsuite name=\"s\">");
        for (name, class, time, outcome, in_cdata) in &cases {
            let seconds = f64::from(*time) / 1000.0;
            xml += &format!("<testcase name=\"{}\" classname=\"{}\" time=\"{seconds}\">", escaped(name), escaped(class));
            let text = if *in_cdata { format!("<![CDATA[{class}]]>") } else { escaped(class) };
            xml += &match outcome {
                0 => String::new(),
                1 => format!("<failure>{text}</failure>"),
                2 => "<skipped/>".to_owned(),
                _ => format!("<flakyFailure>{text}</flakyFailure><system-out>{text}</system-out>"),
            };
            xml += "</testcase>\n";
        }
        xml += "</testsuite></testsuites>";
        prop_assume!(!xml.contains("]]>]]>"));
        let (totals, found) = all(xml.as_bytes(), &limits()).expect("it is well-formed");
        prop_assert_eq!(totals.cases, cases.len() as u64);
        let mut found_in_pieces = Vec::new();
        read(Pieces(xml.as_bytes(), piece), &limits(), |one| found_in_pieces.push(one)).expect("the same");
        prop_assert_eq!(&found, &found_in_pieces);
        let mut rest = found.into_iter();
        for (name, class, time, outcome, _) in cases {
            let case = CaseName { class: class.clone(), name };
            if outcome == 3 {
                let first = rest.next().expect("a failed attempt").result;
                prop_assert_eq!((&first.case, first.outcome), (&case, Failed));
                prop_assert_eq!(first.message.as_deref(), Some(&*class));
            }
            let last = rest.next().expect("an attempt").result;
            let expected = match outcome { 1 => Failed, 2 => Skipped, _ => Passed };
            prop_assert_eq!((&last.case, last.outcome), (&case, expected));
            prop_assert_eq!(last.duration, Some(Duration::from_millis(time.into())));
            prop_assert_eq!(last.message, (outcome == 1).then_some(class));
        }
        prop_assert!(rest.next().is_none());
    }

    #[test]
    fn nothing_makes_it_panic_or_depends_on_how_bytes_arrive(
        words in prop::collection::vec(prop::sample::select(vec![
            "<testsuite name='a'>", "</testsuite>", "<testsuites>", "</testsuites>", "<testcase name='b'>",
            "</testcase>", "<testcase name='c' time='1,5'/>", "<failure message='m'>", "</failure>", "<error/>",
            "<![CDATA[", "]]>", "<!--", "-->", "&amp;", "&#x", ";", "text", "<?xml version='1.0'?>", "\n",
            "<!DOCTYPE", "<!", "?>", ">", "<", "\u{feff}", "<rerunFailure>", "</rerunFailure>", "'", "]", "-",
        ]), 0..30),
        piece in 1_usize..20,
    ) {
        let xml = words.concat();
        let small = Limits { message: 12, depth: 5, attempts: 5, ..limits() };
        let mut in_pieces = Vec::new();
        let other = read(Pieces(xml.as_bytes(), piece), &small, |one| in_pieces.push(one));
        match (all(xml.as_bytes(), &small), other) {
            (Ok((totals, found)), Ok(other)) => {
                prop_assert_eq!((totals, found), (other, in_pieces));
            }
            (Err(one), Err(other)) => prop_assert_eq!(one.to_string(), other.to_string()),
            (one, other) => prop_assert!(false, "{:?} and {:?}", one, other),
        }
    }
}
