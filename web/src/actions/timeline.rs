//! A chart of where the time of an action went.

use kiln_protos::events::Timeline;
use kiln_scheduler::journal::{STAGES, Stage, between};
use maud::{Markup, html};

use crate::design::chart::{WIDTH, num};
use crate::design::text::nanos;
use crate::format::duration;

/// One stage of an action that has finished, as the chart shows it.
pub struct Phase {
    pub stage: Stage,
    pub start: i64,
    pub end: i64,
}

impl Phase {
    fn class(&self) -> &'static str {
        match self.stage {
            Stage::Queue => "queue",
            Stage::InputFetch => "fetch",
            Stage::Run => "run",
            Stage::Upload => "upload",
        }
    }
}

pub fn phases(timeline: &Timeline) -> Vec<Phase> {
    let phase = |stage: Stage| {
        let (start, end) = stage.span_of_finished(timeline)?;
        Some(Phase { stage, start, end })
    };
    STAGES.into_iter().filter_map(phase).collect()
}

/// The chart: one row for each phase, all on one scale from the request to the answer.
pub fn timeline(t: &Timeline) -> Markup {
    let phases = phases(t);
    let times = || phases.iter().flat_map(|phase| [phase.start, phase.end]);
    let start = times().chain([t.received]).filter(|at| *at > 0).min().unwrap_or(0);
    let end = times().chain([t.finished]).max().unwrap_or(0);
    let span = between(start, end).max(1) as f64;
    let at = |time: i64| between(start, time) as f64 / span * WIDTH;
    html! {
        table.gantt {
            caption.sr { "Timeline" }
            tbody {
                @for phase in &phases {
                    tr {
                        th scope="row" { (phase.stage.words()) }
                        td { svg viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" {
                            rect.ground x="0" y="0" width="1000" height="10" {}
                            rect class=(phase.class()) x=(num(at(phase.start))) y="0" height="10"
                                width=(num((at(phase.end) - at(phase.start)).max(2.0))) {}
                        } }
                        td.num { (nanos(between(phase.start, phase.end))) }
                    }
                }
                tr.total {
                    th scope="row" { "Request to answer" }
                    td {}
                    td.num { (duration(between(start, end))) }
                }
            }
        }
    }
}
