//! The page of the figures.

use std::cmp::Reverse;
use std::ops::RangeInclusive;

use axum::extract::{Query as Arguments, State};
use axum::response::Html;
use kiln_ci::history::{Day, Figures, HistoryError, LOOKED_AT, Suites};
use maud::{Markup, html};

use super::chart;
use super::filter::{Filter, Row, SPANS};
use super::list::{millis, no_tests};
use super::lost;
use super::names::Names;
use super::tabs::{Tab, tabs};
use super::teams::{self, Team};
use crate::design::chart::{WIDTH, grid, num, scaled};
use crate::design::layout::{self, Place};
use crate::design::parts::tile;
use crate::error::WebError;
use crate::format::{count, counted, date, duration, percent};
use crate::kept::{AllTests, shown_days, today};
use crate::state::WebState;

const HEIGHT: f64 = 160.0;
/// Tests of a ranking.
const RANKED: usize = 15;

pub async fn page(
    State(state): State<WebState>,
    Arguments(filter): Arguments<Filter>,
) -> Result<Html<String>, WebError> {
    let days = filter.days();
    let tests = state.kept.tested(&state.tests.history, days).await?;
    let (figures, teams) = read(&state, &tests).await?;
    let effects = lost::read(&state, &figures.runs).await?;
    let span = shown_days(today(), days);
    let rows: Vec<Row<'_>> = tests.iter().map(Row::of).collect();
    let names = Names::of(tests.iter().map(|it| &it.test));
    let ranking = |title, of: fn(&Day) -> u64, words: fn(&Day) -> String| {
        ranking(title, (&rows, &names), of, words)
    };
    let body = html! {
        div.title { h1 { "Figures of tests" }
            p { @for of in SPANS { @if of == days { b { (of) " d " } } @else { a href={ "/tests/kpi?days=" (of) } { (of) " d" } " " } } } }
        (tabs(Some(Tab::Figures)))
        @if tests.is_empty() { (no_tests(days)) } @else {
            dl.tiles { (tiles(&figures)) (lost::tiles(&effects)) }
            div.charts {
                section.panel { header { h2 { "Flake rate by day" } } (rates(&figures, &span)) }
                section.panel { header { h2 { "Attempts by day" } } (chart::outcomes(&figures.days, &span)) }
            }
            (teams::section(&teams))
            div.charts {
                (ranking("Flakiest", |sum| sum.flaky, |sum| {
                    format!("{} of {}", count(sum.flaky), count(sum.first))
                }))
                (ranking("Most time", |sum| sum.took, |sum| duration(millis(sum.took.into()))))
            }
            div.charts {
                (ranking("Slowest on average", mean, |sum| duration(millis(mean(sum).into()))))
                (ranking("Most failures", |sum| sum.failed + sum.timed_out, |sum| {
                    count(sum.failed + sum.timed_out)
                }))
            }
        }
    };
    Ok(layout::page(Place::Tests, "Figures of tests", state.version, &body))
}

/// The figures, of all tests and by owner.
pub async fn read(state: &WebState, tests: &AllTests) -> Result<(Figures, Vec<Team>), WebError> {
    let (history, owners) = (state.tests.history.clone(), state.verdicts.owners.clone());
    let all = tests.clone();
    let read = async move {
        let figures = history.figures(&all).await?;
        Ok::<_, HistoryError>((figures, teams::teams(&all, &*owners)))
    };
    Ok(state.kept.beside(read).await??)
}

fn mean(sum: &Day) -> u64 {
    sum.mean().map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX))
}

fn share(share: Option<f64>) -> Markup {
    html! { @match share { Some(share) => (percent(share)), None => "–" } }
}

fn tiles(figures: &Figures) -> Markup {
    let (sum, suites) = (&figures.sum, &figures.suites);
    let Suites { well, false_red, .. } = *suites;
    html! {
        (tile("Flake rate", &share(sum.flake_rate()), &html! {
            (count(sum.flaky)) " of " (counted(sum.first, "first attempt"))
        }))
        (tile("Red without retries", &share(suites.observed()), &html! {
            (count(false_red)) " of " (counted(well, "invocation")) " that were well, of the newest " (LOOKED_AT)
        }))
        (tile("The same, predicted", &share(suites.predicted), &html! { "by the flake rates of the tests that ran" }))
        (tile("Shard balance", &share(suites.balance), &html! {
            "mean by longest shard, " (counted(suites.sharded, "sharded run"))
        }))
        (tile("Tests", &html! { (count(figures.tests)) }, &html! { (counted(sum.attempts(), "attempt")) }))
        (tile("Test time", &html! { (duration(millis(sum.took.into()))) }, &html! { "of what passed" }))
    }
}

/// A column a day.
fn rates(figures: &Figures, span: &RangeInclusive<u64>) -> Markup {
    let columns = span.end().saturating_sub(*span.start()) + 1;
    let slot = WIDTH / columns as f64;
    let days: Vec<_> = figures.days.range(span.clone()).collect();
    let rate = |day: &Day| day.flake_rate().unwrap_or(0.0);
    let top = days.iter().map(|(_, day)| rate(day)).fold(0.001, f64::max);
    let chart = html! {
        svg.chart.tests viewBox={ "0 0 1000 " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label="Flake rate by day" {
            (grid(HEIGHT))
            @for (number, day) in &days {
                @let tall = (rate(day) / top * HEIGHT * 0.96).max(1.0);
                @let x = (*number - span.start()) as f64 * slot;
                rect.flaky x=(num(x + slot * 0.14)) y=(num(HEIGHT - tall)) width=(num(slot * 0.72)) height=(num(tall)) {
                    title { (date(**number)) ": " (percent(rate(day))) ", " (day.flaky) " of " (day.first) }
                }
            }
        }
    };
    let scale = [percent(top), percent(top / 2.0), "0 %".to_owned()];
    scaled(&chart, &scale, None, &[date(*span.start()), date(*span.end())])
}

fn ranking(
    title: &str,
    (rows, names): (&[Row<'_>], &Names<'_>),
    of: fn(&Day) -> u64,
    words: fn(&Day) -> String,
) -> Markup {
    let mut ranked: Vec<&Row<'_>> = rows.iter().filter(|row| of(&row.sum) > 0).collect();
    ranked.sort_by_key(|row| Reverse(of(&row.sum)));
    let most = ranked.first().map_or(1, |row| of(&row.sum)).max(1) as f64;
    html! {
        section.panel {
            header { h2 { (title) } }
            @if ranked.is_empty() { p.quiet { "None." } }
            ul.ranking {
                @for row in ranked.into_iter().take(RANKED) {
                    li {
                        span { (names.link(&row.tested.test)) }
                        span.right { (words(&row.sum)) }
                        svg viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true" {
                            rect.ground x="0" y="0" width="100" height="4" {}
                            rect.executed x="0" y="0" height="4" width=(num(of(&row.sum) as f64 / most * 100.0)) {}
                        }
                    }
                }
            }
        }
    }
}
