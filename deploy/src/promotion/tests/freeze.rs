//! Windows: days of rules against those that python-dateutil 2.9 lists, and the edges of daylight saving time.

use jiff::civil::{Date, date};
use proptest::prelude::*;

use super::super::freeze::{Freeze, FreezeError, Rule, RuleError, Schedule};
use crate::timestamp::Timestamp;

/// Start, rule; and of its days up to the first of January twelve years later: how many, the sum of their numbers as Python
/// counts days, the second and the last.
const LISTED: [(&str, &str, usize, i64, &str, &str); 27] = [
    ("2026-01-02", "FREQ=DAILY", 4383, 3251348847, "2026-01-03", "2038-01-01"),
    ("2026-01-02", "FREQ=DAILY;INTERVAL=10", 439, 325653712, "2026-01-12", "2037-12-30"),
    (
        "2026-01-05",
        "FREQ=DAILY;BYMONTH=1,12;BYDAY=MO,WE",
        213,
        158008368,
        "2026-01-07",
        "2037-12-30",
    ),
    ("2026-01-31", "FREQ=DAILY;BYMONTHDAY=-1", 144, 106822353, "2026-02-28", "2037-12-31"),
    ("2026-01-02", "FREQ=WEEKLY;BYDAY=FR", 627, 465114243, "2026-01-09", "2038-01-01"),
    ("2026-01-02", "FREQ=WEEKLY;INTERVAL=2", 314, 232928026, "2026-01-16", "2038-01-01"),
    (
        "2026-01-06",
        "FREQ=WEEKLY;INTERVAL=2;BYDAY=TU,SU;WKST=MO",
        626,
        464372121,
        "2026-01-11",
        "2037-12-27",
    ),
    (
        "2026-01-06",
        "FREQ=WEEKLY;INTERVAL=2;BYDAY=TU,SU;WKST=SU",
        625,
        463630310,
        "2026-01-18",
        "2037-12-22",
    ),
    (
        "2026-01-05",
        "FREQ=WEEKLY;INTERVAL=3;BYDAY=MO,TH;BYMONTH=1,2,3",
        105,
        77877039,
        "2026-01-08",
        "2037-03-26",
    ),
    ("2026-01-31", "FREQ=MONTHLY", 84, 62313249, "2026-03-31", "2037-12-31"),
    ("2026-01-02", "FREQ=MONTHLY;BYDAY=1FR", 145, 107562550, "2026-02-06", "2038-01-01"),
    ("2026-01-30", "FREQ=MONTHLY;BYDAY=-1FR", 144, 106821924, "2026-02-27", "2037-12-25"),
    ("2026-02-13", "FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13", 21, 15578640, "2026-03-13", "2037-11-13"),
    (
        "2026-01-12",
        "FREQ=MONTHLY;INTERVAL=2;BYDAY=2MO,-1TU",
        144,
        106818543,
        "2026-01-27",
        "2037-11-24",
    ),
    ("2026-01-15", "FREQ=MONTHLY;BYMONTHDAY=15,-1,31", 288, 213642483, "2026-01-31", "2037-12-31"),
    ("2026-01-29", "FREQ=MONTHLY;BYDAY=5TH", 51, 37833412, "2026-04-30", "2037-12-31"),
    ("2028-02-29", "FREQ=YEARLY", 3, 2225601, "2032-02-29", "2036-02-29"),
    ("2026-12-24", "FREQ=YEARLY;INTERVAL=2", 6, 4450803, "2028-12-24", "2036-12-24"),
    (
        "2026-01-01",
        "FREQ=YEARLY;BYMONTH=1,7;BYMONTHDAY=1",
        25,
        18545193,
        "2026-07-01",
        "2038-01-01",
    ),
    ("2026-11-26", "FREQ=YEARLY;BYMONTH=11;BYDAY=4TH", 12, 8903446, "2027-11-25", "2037-11-26"),
    ("2026-05-18", "FREQ=YEARLY;BYDAY=20MO", 12, 8901142, "2027-05-17", "2037-05-18"),
    ("2026-12-27", "FREQ=YEARLY;BYDAY=-1SU", 12, 8903846, "2027-12-26", "2037-12-27"),
    ("2026-01-06", "FREQ=YEARLY;BYMONTHDAY=6", 144, 106818834, "2026-02-06", "2037-12-06"),
    ("2026-03-03", "FREQ=YEARLY;BYMONTH=3,9", 24, 17802696, "2026-09-03", "2037-09-03"),
    ("2026-01-06", "FREQ=YEARLY;BYDAY=TU;BYMONTH=1", 53, 39309327, "2026-01-13", "2037-01-27"),
    ("2026-03-29", "FREQ=YEARLY;BYMONTH=3;BYDAY=-1SU", 12, 8900542, "2027-03-28", "2037-03-29"),
    ("2028-02-29", "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=-1", 12, 8908974, "2029-02-28", "2039-02-28"),
];
/// Number of the first day of 1970, as Python counts days.
const EPOCH: i64 = 719_163;

fn days(start: Date, rule: &Rule) -> Vec<Date> {
    let end = date(start.year() + 12, 1, 1);
    let mut day = start;
    let mut found = Vec::new();
    while day <= end {
        if rule.is_on(start, day) {
            found.push(day);
        }
        day = day.tomorrow().unwrap();
    }
    found
}

#[test]
fn rules_have_the_days_that_others_list() {
    for (start, text, count, sum, second, last) in LISTED {
        let start: Date = start.parse().unwrap();
        let found = days(start, &text.parse().unwrap());
        let number = |day: &Date| i64::from((*day - date(1970, 1, 1)).get_days()) + EPOCH;
        assert_eq!(found.len(), count, "{text}");
        assert_eq!(found.iter().map(number).sum::<i64>(), sum, "{text}");
        assert_eq!((found[0], found[1].to_string().as_str()), (start, second), "{text}");
        assert_eq!(found.last().unwrap().to_string(), last, "{text}");
    }
}

#[test]
fn what_is_not_supported_is_named() {
    let read = |text: &str| text.parse::<Rule>().unwrap_err();
    assert_eq!(read("FREQ=WEEKLY;COUNT=4"), RuleError::Unsupported("COUNT".to_owned()));
    assert_eq!(read("FREQ=HOURLY"), RuleError::Frequency("HOURLY".to_owned()));
    assert_eq!(read("BYDAY=FR"), RuleError::NoFrequency);
    assert_eq!(read("FREQ=DAILY;FREQ=DAILY"), RuleError::Twice("FREQ".to_owned()));
    assert_eq!(read("FREQ=DAILY;BYDAYS=FR"), RuleError::Unknown("BYDAYS".to_owned()));
    assert!(matches!(read("FREQ=DAILY;INTERVAL=0"), RuleError::Value { name: "INTERVAL", .. }));
    assert!(matches!(read("FREQ=WEEKLY;BYDAY=1FR"), RuleError::Combination(_)));
    assert!(matches!(read("FREQ=WEEKLY;BYDAY=ÄÖ"), RuleError::Value { .. }));
    assert!(matches!(read("FREQ=DAILY;UNTIL=2026-12-31"), RuleError::Value { .. }));
}

fn window(zone: &str, start: &str, lasts: &str, rule: Option<&str>) -> Freeze {
    let schedule = Schedule { zone, start, lasts, rule, except: Vec::new() };
    Freeze::new("w", "quiet", &schedule).unwrap()
}

/// The end of the window that the moment is in.
fn end(window: &Freeze, at: &str) -> Option<String> {
    window.covers(at.parse().unwrap()).map(|it| it.to_string())
}

#[test]
fn a_weekend_is_frozen_from_friday_evening_on() {
    let weekend = window("Europe/Berlin", "2026-01-02T17:00", "63h", Some("FREQ=WEEKLY;BYDAY=FR"));
    assert_eq!(end(&weekend, "2026-07-10T14:59:59Z"), None);
    assert_eq!(end(&weekend, "2026-07-10T15:00:00Z").unwrap(), "2026-07-13T06:00:00Z");
    assert_eq!(end(&weekend, "2026-07-13T05:59:59Z").unwrap(), "2026-07-13T06:00:00Z");
    assert_eq!(end(&weekend, "2026-07-13T06:00:00Z"), None);
    assert_eq!(end(&weekend, "2025-12-27T12:00:00Z"), None);
}

#[test]
fn a_time_that_a_day_does_not_have_is_read_with_the_offset_before() {
    let daily = window("Europe/Berlin", "2026-03-01T02:30", "1h", Some("FREQ=DAILY"));
    // On 2026-03-29 there is no 02:30: with the offset before, it is 01:30 UTC, which is 03:30.
    assert_eq!(end(&daily, "2026-03-29T01:29:59Z"), None);
    assert_eq!(end(&daily, "2026-03-29T01:30:00Z").unwrap(), "2026-03-29T02:30:00Z");
    assert_eq!(end(&daily, "2026-03-30T00:30:00Z").unwrap(), "2026-03-30T01:30:00Z");
}

#[test]
fn a_time_that_a_day_has_twice_is_the_first_of_both() {
    let daily = window("Europe/Berlin", "2026-10-01T02:30", "1h", Some("FREQ=DAILY"));
    assert_eq!(end(&daily, "2026-10-25T00:30:00Z").unwrap(), "2026-10-25T01:30:00Z");
    assert_eq!(end(&daily, "2026-10-25T01:30:00Z"), None);
    assert_eq!(end(&daily, "2026-10-26T01:30:00Z").unwrap(), "2026-10-26T02:30:00Z");
}

#[test]
fn days_keep_the_hour_and_hours_do_not() {
    let days = window("America/New_York", "2026-03-07T12:00", "1d", None);
    let hours = window("America/New_York", "2026-03-07T12:00", "24h", None);
    assert_eq!(end(&days, "2026-03-07T18:00:00Z").unwrap(), "2026-03-08T16:00:00Z");
    assert_eq!(end(&hours, "2026-03-07T18:00:00Z").unwrap(), "2026-03-08T17:00:00Z");
    let autumn = window("America/New_York", "2026-10-31T12:00", "1d", None);
    assert_eq!(end(&autumn, "2026-10-31T18:00:00Z").unwrap(), "2026-11-01T17:00:00Z");
}

#[test]
fn rules_end_and_leave_days_out() {
    let until = |until: &str| format!("FREQ=DAILY;UNTIL={until}");
    let ends = |text: &str, at: &str| {
        end(&window("Asia/Tokyo", "2026-01-01T09:00", "1h", Some(text)), at).is_some()
    };
    // 09:00 in Tokyo is midnight in UTC.
    assert!(ends(&until("20260105"), "2026-01-05T00:30:00Z"));
    assert!(!ends(&until("20260105"), "2026-01-06T00:30:00Z"));
    assert!(ends(&until("20260105T000000Z"), "2026-01-05T00:30:00Z"));
    assert!(!ends(&until("20260104T235959Z"), "2026-01-05T00:30:00Z"));
    assert!(!ends(&until("20260105T085959"), "2026-01-05T00:30:00Z"));
    let schedule = Schedule {
        zone: "UTC",
        start: "2026-12-20T00:00",
        lasts: "12h",
        rule: Some("FREQ=DAILY"),
        except: vec!["2026-12-24"],
    };
    let freeze = Freeze::new("w", "", &schedule).unwrap();
    assert!(end(&freeze, "2026-12-23T01:00:00Z").is_some());
    assert!(end(&freeze, "2026-12-24T01:00:00Z").is_none());
}

#[test]
fn windows_that_cannot_be_are_refused() {
    let read = |zone, start, lasts, rule| {
        let schedule = Schedule { zone, start, lasts, rule, except: Vec::new() };
        Freeze::new("w", "", &schedule).unwrap_err()
    };
    let start = "2026-01-02T17:00";
    assert!(matches!(read("Europe/Berlim", start, "1h", None), FreezeError::Zone(_)));
    assert!(matches!(read("UTC", "2026-01-02T17:00Z", "1h", None), FreezeError::Start(_)));
    assert!(matches!(read("UTC", "2026-02-30T17:00", "1h", None), FreezeError::Start(_)));
    for lasts in ["", "0h", "-1h", "1w", "367d", "9999h", "h", "1.5h", "1000000000s"] {
        assert!(matches!(read("UTC", start, lasts, None), FreezeError::Lasts(_)), "{lasts}");
    }
    let rule = Some("FREQ=WEEKLY;BYDAY=MO");
    assert!(matches!(read("UTC", start, "1h", rule), FreezeError::NotOfRule(_)));
}

proptest! {
    #[test]
    fn whatever_a_rule_says_it_is_asked_in_bounded_time(text in "(RRULE:)?(FREQ=(DAILY|WEEKLY|MONTHLY|YEARLY))?(;[A-Z]{2,10}=[-0-9A-Z,]{0,12}){0,4}") {
        if let Ok(rule) = text.parse::<Rule>() {
            rule.is_on(date(1, 1, 1), date(9999, 12, 31));
            rule.is_on(date(2024, 2, 29), date(2024, 2, 29));
        }
    }

    #[test]
    fn any_moment_can_be_asked_about(at in any::<i64>()) {
        let long = window("Pacific/Apia", "2011-12-20T00:00", "366d", Some("FREQ=DAILY"));
        let until = long.covers(Timestamp::from_unix(at));
        prop_assert!(until.is_none_or(|it| it > Timestamp::from_unix(at)));
    }
}
