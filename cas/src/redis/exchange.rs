//! Commands go out over a connection, and their answers come back.

use std::collections::HashMap;

use ::redis::{Cmd, RedisError, ServerError, Value};

use super::link::Link;
use super::script::{Script, is_unknown};

/// One command, and the script that the server must have loaded before it.
pub(super) struct Step {
    pub(super) command: Cmd,
    pub(super) script: Option<Script>,
}

/// Runs the steps, after loading each script that this connection has not loaded yet. Returns one answer
/// for each step, in order; a step whose script could not be loaded is answered with the reason. Where the
/// server refuses a library, the step is answered as one whose script is not known, and the connection calls
/// scripts instead of functions from then on.
pub(super) async fn run(link: &Link, steps: Vec<Step>) -> Result<Vec<Value>, RedisError> {
    let functions = link.has_functions();
    let mut absent: Vec<Script> = Vec::new();
    {
        let known = link.scripts();
        for script in steps.iter().filter_map(|step| step.script.as_ref()) {
            let is_new = absent.iter().all(|other| other.sha1() != script.sha1());
            if is_new && !known.contains(script.sha1()) {
                absent.push(script.clone());
            }
        }
    }
    let mut commands: Vec<Cmd> = absent.iter().map(|script| script.load(functions)).collect();
    let command = |step: Step| match step.script {
        Some(script) if !functions => {
            (Some(script.clone()), script.without_functions(step.command))
        }
        script => (script, step.command),
    };
    let (scripts, called): (Vec<_>, Vec<_>) = steps.into_iter().map(command).unzip();
    commands.extend(called);
    let mut answers = exchange(link, commands).await?.into_iter();
    let mut known = link.scripts();
    let mut failed: HashMap<&str, ServerError> = HashMap::new();
    for (script, answer) in absent.iter().zip(answers.by_ref()) {
        match answer {
            Value::ServerError(error) if functions && is_there(&error) => {
                known.insert(script.sha1().to_owned());
            }
            Value::ServerError(error) if functions && script.is_function() && forbids(&error) => {
                link.forgo_functions(&error);
            }
            Value::ServerError(error) => drop(failed.insert(script.sha1(), error)),
            _ => drop(known.insert(script.sha1().to_owned())),
        }
    }
    let judged = scripts.into_iter().zip(answers).map(|(script, answer)| {
        let (Some(script), Value::ServerError(error)) = (&script, &answer) else { return answer };
        if !is_unknown(error) {
            return answer;
        }
        // It was forgotten in between: the next who calls it loads it again.
        known.remove(script.sha1());
        failed.get(script.sha1()).cloned().map_or(answer, Value::ServerError)
    });
    Ok(judged.collect())
}

/// Whether the library is there because another connection has loaded it. Its name has the hash of its content,
/// so that it is the same one.
fn is_there(error: &ServerError) -> bool {
    error.code() == "ERR" && error.details().is_some_and(|it| it.ends_with("already exists"))
}

/// Whether the server has no libraries, or does not let this user load them.
fn forbids(error: &ServerError) -> bool {
    matches!(error.code(), "ERR" | "NOPERM")
}

async fn exchange(link: &Link, mut commands: Vec<Cmd>) -> Result<Vec<Value>, RedisError> {
    let mut connection = link.connection.clone();
    if commands.len() == 1
        && let Some(only) = commands.pop()
    {
        return Ok(vec![connection.send_packed_command(&only).await?]);
    }
    let mut pipeline = ::redis::Pipeline::with_capacity(commands.len());
    for command in commands {
        pipeline.add_command(command);
    }
    connection.send_packed_commands(&pipeline, 0, pipeline.len()).await
}
