//! Runs `kiln` and keeps its exit code and what it printed.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::server::Server;

pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|_| unreachable!("{}{}", self.stdout, self.stderr))
    }

    pub fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        self
    }
}

/// Runs `kiln` in a directory; it asks `server`, if there is one.
pub fn kiln(server: Option<&Server>, directory: &Path, words: &[&str]) -> Said {
    kiln_with(server, directory, words, &[])
}

/// The same with more variables of the environment.
pub fn kiln_with(
    server: Option<&Server>,
    directory: &Path,
    words: &[&str],
    variables: &[(&str, &Path)],
) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.args(words).current_dir(directory).envs(variables.iter().copied());
    if let Some(server) = server {
        command.args(["--server", &server.url()]);
    }
    let output = command.output().expect("it runs");
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
