//! Schedules in time zones, and over the changes of clocks.

use super::{Cron, CronError};
use crate::model::Time;

fn at(text: &str) -> Time {
    let time: jiff::Timestamp = text.parse().expect("a time");
    Time(u64::try_from(time.as_millisecond()).expect("after 1970"))
}

fn shown(time: Time) -> String {
    let millis = i64::try_from(time.0).expect("not far from now");
    jiff::Timestamp::from_millisecond(millis).expect("a time").to_string()
}

/// The next times after one.
fn due(text: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let cron = Cron::read(text, zone).expect("an expression");
    let mut times = vec![at(after)];
    for _ in 0..count {
        let last = *times.last().expect("one");
        times.push(cron.next(last).expect("there is one"));
    }
    times.into_iter().skip(1).map(shown).collect()
}

#[test]
fn fields_are_lists_ranges_steps_and_names() {
    assert_eq!(
        due("*/20 9-10 * * mon-fri", "UTC", "2026-11-27T10:30:00Z", 4),
        [
            "2026-11-27T10:40:00Z",
            "2026-11-30T09:00:00Z",
            "2026-11-30T09:20:00Z",
            "2026-11-30T09:40:00Z"
        ]
    );
    assert_eq!(
        due("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", 1),
        ["2104-02-29T00:00:00Z"],
        "eight years"
    );
    // Either of both fields of days, as crontab(5) says.
    assert_eq!(
        due("0 12 13 * fri", "UTC", "2026-11-07T00:00:00Z", 2),
        ["2026-11-13T12:00:00Z", "2026-11-20T12:00:00Z"]
    );
    assert_eq!(due("@weekly", "UTC", "2026-11-30T00:00:00Z", 1), ["2026-12-06T00:00:00Z"]);
    assert_eq!(due("0 0 * * 7", "UTC", "2026-11-30T00:00:00Z", 1), ["2026-12-06T00:00:00Z"]);
}

#[test]
fn what_is_no_expression_is_refused() {
    for text in
        ["", "* * * *", "60 * * * *", "* * 0 * *", "*/0 * * * *", "5-1 * * * *", "a * * * *"]
    {
        assert!(Cron::read(text, "UTC").is_err(), "{text}");
    }
    assert_eq!(Cron::read("0 0 30 2 *", "UTC"), Err(CronError::Never));
    assert!(matches!(Cron::read("@daily", "Europe/Nowhere"), Err(CronError::Zone(_))));
}

/// On 2026-03-29 the clocks of Zurich go from 02:00 to 03:00.
#[test]
fn a_time_that_is_left_out_is_due_later_once() {
    assert_eq!(
        due("30 2 * * *", "Europe/Zurich", "2026-03-28T02:00:00Z", 2),
        ["2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]
    );
    assert_eq!(
        due("0,30 * * * *", "Europe/Zurich", "2026-03-29T00:15:00Z", 3),
        ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"]
    );
}

/// On 2026-10-25 the clocks of Zurich go from 03:00 back to 02:00.
#[test]
fn a_time_that_comes_twice_is_due_once_and_each_hour_is_an_hour() {
    assert_eq!(
        due("30 2 * * *", "Europe/Zurich", "2026-10-24T12:00:00Z", 2),
        ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
    );
    assert_eq!(
        due("30 * * * *", "Europe/Zurich", "2026-10-25T00:00:00Z", 3),
        ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"]
    );
}

/// The result has to be that of a look at one time after the other, over a change of Zurich's clocks.
#[test]
fn the_last_of_many_times_is_found_without_a_look_at_each() {
    let (from, minute) = (at("2026-03-28T00:00:00Z"), 60_000);
    for text in ["*/20 1-3 * * *", "30 2 * * *", "0 * * * *", "0 0 1 * *"] {
        let cron = Cron::read(text, "Europe/Zurich").expect("an expression");
        for minutes in [0, 59, 60, 61, 1_439, 1_440, 1_530, 3_000] {
            let until = Time(from.0 + minutes * minute);
            let times = std::iter::successors(cron.next(from), |it| cron.next(*it));
            let last = times.take_while(|it| *it <= until).last();
            assert_eq!(cron.latest(from, until), last, "{text} {minutes}");
        }
    }
    let minutely = Cron::read("* * * * *", "Europe/Zurich").expect("an expression");
    let year = at("2027-03-28T00:00:30Z");
    assert_eq!(minutely.latest(from, year).map(shown).as_deref(), Some("2027-03-28T00:00:00Z"));
}
