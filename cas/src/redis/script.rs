//! Scripts, and calls of scripts and commands.

use std::borrow::Cow;
use std::sync::Arc;

use ::redis::{Arg, Cmd, ServerError, ToRedisArgs};

use super::slots::slot;

/// Code of the answer to a script that the server does not know.
pub(super) const UNKNOWN_SCRIPT: &str = "NOSCRIPT";
/// Message of the answer to a function that the server does not know; its code is `ERR`, as of most errors.
const UNKNOWN_FUNCTION: &str = "Function not found";
/// Words before keys and arguments in a call: the command, and what is called.
const WORDS: usize = 2;

/// A Lua script that runs as one step on the server. It is sent by its hash, and loaded before
/// its first use on a connection; a server that has forgotten it since gets it again.
#[derive(Debug, Clone)]
pub struct Script(Arc<ScriptDefinition>);

#[derive(Debug, Clone)]
struct ScriptDefinition {
    name: &'static str,
    source: Cow<'static, str>,
    sha1: String,
    /// The same script as a function of a library, for servers that have these.
    library: Option<Library>,
    idempotent: bool,
}

/// A library of one function. Both have the same name, which ends in the hash of what they do: another
/// version of Kiln at the same server has another one, and neither takes the other's place.
#[derive(Debug, Clone)]
struct Library {
    name: String,
    source: String,
}

impl Script {
    /// A script that must not run twice when it is called once. When its answer is lost, the
    /// call fails, and [`super::RedisError::may_have_run`].
    pub fn new(name: &'static str, source: &'static str) -> Self {
        Self::made(name, source.into(), None)
    }

    /// A script that is a function of a library where the server has these (Redis 7 and newer): it is set up when
    /// it is loaded, and not anew for each call. `function` is what `definitions` calls it; it takes the keys
    /// and the arguments.
    pub fn function(name: &'static str, definitions: &str, function: &str) -> Self {
        let source = format!("{definitions}return {function}(KEYS, ARGV)\n");
        let library = format!("kiln_{}", sha1(&source));
        let head = format!("#!lua name={library}\n");
        let last = format!("redis.register_function('{library}', {function})\n");
        let code = [&head, definitions, &last].concat();
        Self::made(name, source.into(), Some(Library { name: library, source: code }))
    }

    /// A script that may run twice: it is retried when its answer is lost.
    pub fn idempotent(name: &'static str, source: &'static str) -> Self {
        Self::new(name, source).repeatable()
    }

    fn made(name: &'static str, source: Cow<'static, str>, library: Option<Library>) -> Self {
        let sha1 = sha1(&source);
        Self(Arc::new(ScriptDefinition { name, source, sha1, library, idempotent: false }))
    }

    /// The same script, which may run twice.
    pub fn repeatable(&self) -> Self {
        Self(Arc::new(ScriptDefinition { idempotent: true, ..ScriptDefinition::clone(&self.0) }))
    }

    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// SHA-1 of the source in hexadecimal digits, by which `EVALSHA` names the script.
    pub(super) fn sha1(&self) -> &str {
        &self.0.sha1
    }

    /// Whether the script can be called as a function too.
    pub(super) fn is_function(&self) -> bool {
        self.0.library.is_some()
    }

    /// The command that loads the script. `functions`: the server has functions, and a script that can be one is
    /// loaded as a library.
    pub(super) fn load(&self, functions: bool) -> Cmd {
        let (command, source) = match &self.0.library {
            Some(library) if functions => ("FUNCTION", &*library.source),
            _ => ("SCRIPT", &*self.0.source),
        };
        let mut load = ::redis::cmd(command);
        load.arg("LOAD").arg(source);
        load
    }

    /// A call of this script for a server that has no functions.
    pub(super) fn without_functions(&self, call: Cmd) -> Cmd {
        if !self.is_function() {
            return call;
        }
        let mut command = self.command(false);
        for argument in call.args_iter().skip(WORDS) {
            if let Arg::Simple(bytes) = argument {
                command.arg(bytes);
            }
        }
        command
    }

    /// The words with which a call begins.
    fn command(&self, functions: bool) -> Cmd {
        let (command, called) = match &self.0.library {
            Some(library) if functions => ("FCALL", &library.name),
            _ => ("EVALSHA", &self.0.sha1),
        };
        let mut words = ::redis::cmd(command);
        words.arg(called);
        words
    }

    /// A call with these keys, all in one slot. Arguments are added to it.
    pub fn call<K: ToRedisArgs + AsRef<[u8]>>(&self, keys: &[K]) -> Call {
        let mut command = self.command(true);
        command.arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        let mut slots = keys.iter().map(|key| slot(key.as_ref()));
        let first = slots.next();
        Call {
            name: self.0.name,
            command,
            script: Some(self.clone()),
            slot: first,
            scattered: slots.any(|slot| Some(slot) != first),
            idempotent: self.0.idempotent,
        }
    }
}

fn sha1(source: &str) -> String {
    ::redis::Script::new(source).get_hash().to_owned()
}

/// Whether the server answers that it does not know what is called: nothing was run.
pub(super) fn is_unknown(error: &ServerError) -> bool {
    error.code() == UNKNOWN_SCRIPT
        || error.details().is_some_and(|details| details.starts_with(UNKNOWN_FUNCTION))
}

/// One script or command with its keys and arguments.
#[derive(Clone)]
pub struct Call {
    pub(super) name: &'static str,
    pub(super) command: Cmd,
    pub(super) script: Option<Script>,
    /// Where its keys are; `None`: it has none and any node will do.
    pub(super) slot: Option<u16>,
    /// Its keys are in several slots: an error.
    pub(super) scattered: bool,
    pub(super) idempotent: bool,
}

impl Call {
    /// A plain command with its key first; it is taken for one that must not run twice.
    pub fn command(name: &'static str, key: impl ToRedisArgs + AsRef<[u8]>) -> Self {
        let slot = Some(slot(key.as_ref()));
        let mut command = ::redis::cmd(name);
        command.arg(key);
        Self { name, command, script: None, slot, scattered: false, idempotent: false }
    }

    /// A plain command without a key, for any node of a cluster.
    pub fn anywhere(name: &'static str) -> Self {
        let command = ::redis::cmd(name);
        Self { name, command, script: None, slot: None, scattered: false, idempotent: false }
    }

    pub fn arg(mut self, arg: impl ToRedisArgs) -> Self {
        self.command.arg(arg);
        self
    }

    /// Running it twice does no harm.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }
}
