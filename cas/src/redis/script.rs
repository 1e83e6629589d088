//! Scripts, and calls of scripts and commands.

use std::sync::Arc;

use ::redis::{Cmd, ToRedisArgs};

use super::slots::slot;

/// Code of the answer to a script that the server does not know.
pub(super) const UNKNOWN_SCRIPT: &str = "NOSCRIPT";

/// A Lua script that runs as one step on the server. It is sent by its hash, and loaded before
/// its first use on a connection; a server that has forgotten it since gets it again.
#[derive(Debug, Clone)]
pub struct Script(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: &'static str,
    source: &'static str,
    sha1: String,
    idempotent: bool,
}

impl Script {
    /// A script that must not run twice when it is called once. When its answer is lost, the
    /// call fails, and [`super::RedisError::may_have_run`].
    pub fn new(name: &'static str, source: &'static str) -> Self {
        let sha1 = ::redis::Script::new(source).get_hash().to_owned();
        Self(Arc::new(Inner { name, source, sha1, idempotent: false }))
    }

    /// A script that may run twice: it is retried when its answer is lost.
    pub fn idempotent(name: &'static str, source: &'static str) -> Self {
        let sha1 = ::redis::Script::new(source).get_hash().to_owned();
        Self(Arc::new(Inner { name, source, sha1, idempotent: true }))
    }

    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Names the script to the server.
    pub(super) fn sha1(&self) -> &str {
        &self.0.sha1
    }

    pub(super) fn load(&self) -> Cmd {
        let mut load = ::redis::cmd("SCRIPT");
        load.arg("LOAD").arg(self.0.source);
        load
    }

    /// A call with these keys, all in one slot. Arguments are added to it.
    pub fn call<K: ToRedisArgs + AsRef<[u8]>>(&self, keys: &[K]) -> Call {
        let mut command = ::redis::cmd("EVALSHA");
        command.arg(&self.0.sha1).arg(keys.len());
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
