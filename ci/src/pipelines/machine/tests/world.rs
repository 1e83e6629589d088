//! Pipelines made by chance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use crate::pipelines::machine::Spec;
use crate::pipelines::stage::{Approval, Command, On, Program, Retry, RetryOn, Stage, Work};

pub const MOST: usize = 8;

pub fn command() -> Work {
    Work::Command(Command::plain(Program::Arguments(vec!["true".to_owned()])))
}

pub fn stage(at: usize, needs: Vec<u32>) -> Stage {
    Stage {
        name: format!("s{at}"),
        group: format!("s{at}"),
        matrix: BTreeMap::new(),
        needs,
        on: On::Success,
        left_out: None,
        retry: Retry { again: 0, backoff: Duration::from_secs(1), on: RetryOn::Infrastructure },
        timeout: Duration::from_secs(100),
        may_fail: false,
        work: command(),
    }
}

fn approval() -> Work {
    Work::Approve(Approval { count: 2, by: Vec::new(), own: false, message: String::new() })
}

/// Stages that need some of those before them.
pub fn spec() -> impl Strategy<Value = Arc<Spec>> {
    let one = (any::<u8>(), 0..3u8, 0..3u32, any::<bool>(), 0..10u8);
    let stages = prop::collection::vec(one, 1..MOST);
    (stages, 1..4usize).prop_map(|(drawn, most)| {
        let stages = drawn.into_iter().enumerate().map(|(at, (needs, on, again, any, kind))| {
            let needs = (0u32..).take(at).filter(|need| needs & (1 << need) != 0).collect();
            let mut stage = stage(at, needs);
            stage.on = [On::Success, On::Failure, On::Always][usize::from(on)];
            stage.retry.again = again;
            stage.retry.on = if any { RetryOn::Any } else { RetryOn::Infrastructure };
            match kind {
                0 => stage.may_fail = true,
                1 => stage.left_out = Some("not here".to_owned()),
                2 | 3 => stage.work = approval(),
                _ => {}
            }
            stage
        });
        Arc::new(Spec::new(stages.collect(), "ann", Duration::from_secs(10_000), most))
    })
}
