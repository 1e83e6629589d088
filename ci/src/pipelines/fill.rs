//! Values are put into what a stage does.

use std::collections::BTreeMap;

use super::file::TemplateError;
use super::stage::{Approval, Command, Listed, Program, Promotion, Release, Rollout, Waited, Work};

type Filled<T> = Result<T, TemplateError>;

/// What a stage does, with each of its texts as `fill` makes it. Scripts and declarations stay as they are.
pub fn filled(work: &Work, fill: &mut dyn FnMut(&str) -> Filled<String>) -> Filled<Work> {
    Ok(match work {
        Work::Command(it) => Work::Command(command(it, fill)?),
        Work::Build(it) => Work::Build(command(it, fill)?),
        Work::Test(it) => Work::Test(command(it, fill)?),
        Work::Release(it) => Work::Release(Release {
            name: fill(&it.name)?,
            from: it.from.clone(),
            outputs: texts(&it.outputs, fill)?,
        }),
        Work::Promote(it) => Work::Promote(Promotion {
            release: fill(&it.release)?,
            environment: fill(&it.environment)?,
            reason: fill(&it.reason)?,
        }),
        Work::Rollout(it) => Work::Rollout(Rollout {
            release: fill(&it.release)?,
            environment: fill(&it.environment)?,
            declaration: it.declaration.clone(),
            reason: fill(&it.reason)?,
            supersede: it.supersede,
        }),
        Work::Approve(it) => Work::Approve(Approval { message: fill(&it.message)?, ..it.clone() }),
        Work::Program(it) => {
            Work::Program(Listed { name: it.name.clone(), arguments: texts(&it.arguments, fill)? })
        }
        Work::Preview(it) => Work::Preview(it.clone()),
        Work::Wait(it) => Work::Wait(Waited { invocation: fill(&it.invocation)?, gate: it.gate }),
    })
}

fn command(it: &Command, fill: &mut dyn FnMut(&str) -> Filled<String>) -> Filled<Command> {
    let program = match &it.program {
        Program::Arguments(arguments) => Program::Arguments(texts(arguments, fill)?),
        Program::Script(script) => Program::Script(script.clone()),
    };
    Ok(Command {
        program,
        directory: fill(&it.directory)?,
        image: it.image.as_deref().map(&mut *fill).transpose()?,
        platform: pairs(&it.platform, fill)?,
        environment: pairs(&it.environment, fill)?,
        secrets: it.secrets.clone(),
        network: it.network,
        outputs: texts(&it.outputs, fill)?,
        from: it.from.clone(),
        reports: texts(&it.reports, fill)?,
    })
}

fn texts(all: &[String], fill: &mut dyn FnMut(&str) -> Filled<String>) -> Filled<Vec<String>> {
    all.iter().map(|text| fill(text)).collect()
}

fn pairs(
    all: &BTreeMap<String, String>,
    fill: &mut dyn FnMut(&str) -> Filled<String>,
) -> Filled<BTreeMap<String, String>> {
    all.iter().map(|(name, text)| Ok((name.clone(), fill(text)?))).collect()
}

/// Bytes of what is put into no text: scripts and declarations.
pub fn fixed(work: &Work) -> usize {
    match work {
        Work::Rollout(it) => it.declaration.len(),
        _ => match work.command().map(|it| &it.program) {
            Some(Program::Script(script)) => script.len(),
            _ => 0,
        },
    }
}
