//! The build tool that a workspace is for, and how it is asked for its targets.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_ci::impact::{BuckError, Cells, Framing, Graph, GraphError};
use kiln_net::causes::chain;
use thiserror::Error;

use super::process::{ProcessError, ask};
use crate::cli::error::CliError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bazel,
    Buck2,
}

/// Files that say where a workspace begins.
const BAZEL: [&str; 5] =
    ["MODULE.bazel", "REPO.bazel", "WORKSPACE.bazel", "WORKSPACE", "WORKSPACE.bzlmod"];
const BUCK2: [&str; 2] = [".buckroot", ".buckconfig"];

/// Files of which Bazel's every target is made, whatever its own inputs are.
const BAZEL_COMMON: [&str; 10] = [
    ".bazelrc",
    ".bazelversion",
    ".bazeliskrc",
    ".bazelignore",
    "MODULE.bazel",
    "MODULE.bazel.lock",
    "WORKSPACE",
    "WORKSPACE.bazel",
    "WORKSPACE.bzlmod",
    "tools/bazel",
];
const BUCK2_COMMON: [&str; 3] = [".buckconfig", ".buckversion", ".buckroot"];
/// Bazel's name for targets one by one; older versions name it when they refuse it.
const STREAMED: &str = "streamed_proto";
/// Most files that .bazelrc files import.
const IMPORTS: usize = 100;

#[derive(Debug, Error)]
pub enum ToolError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error("Buck2 prints what is no text")]
    Text(#[from] std::string::FromUtf8Error),
    #[error("Buck2 does not say where its cells are")]
    Cells(#[source] serde_json::Error),
    #[error(transparent)]
    Buck(#[from] BuckError),
}

pub struct Tool {
    kind: Kind,
    program: PathBuf,
    /// The tool's name for itself, with its version.
    pub version: String,
    universe: String,
    cquery: bool,
    limit: Duration,
}

/// The workspace that a directory is in: the nearest one upwards.
pub fn workspace(from: &Path) -> Result<(PathBuf, Kind), CliError> {
    for directory in from.ancestors() {
        let has = |names: &[&str]| names.iter().any(|name| directory.join(name).is_file());
        match (has(&BAZEL), has(&BUCK2)) {
            (true, _) => return Ok((directory.to_owned(), Kind::Bazel)),
            (false, true) => return Ok((directory.to_owned(), Kind::Buck2)),
            (false, false) => {}
        }
    }
    Err(CliError::usage(format!("{} is in no workspace of Bazel or Buck2", from.display()))
        .hint("run it where MODULE.bazel, WORKSPACE or .buckconfig is, or below"))
}

/// The path of a program that PATH leads to.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

fn program(kind: Kind, workspace: &Path) -> Option<PathBuf> {
    let names: &[&str] = match kind {
        Kind::Bazel => &["bazelisk", "bazel"],
        Kind::Buck2 => &["buck2"],
    };
    let wrapper = workspace.join("tools/bazel");
    let wrapper = (kind == Kind::Bazel && wrapper.is_file()).then_some(wrapper);
    // Bazel itself looks for the wrapper and tells it where the real one is.
    let found = names.iter().find_map(|name| on_path(name));
    found.or(wrapper)
}

impl Tool {
    pub async fn new(
        kind: Kind,
        given: Option<PathBuf>,
        workspace: &Path,
        cquery: bool,
        universe: &str,
        limit: Duration,
    ) -> Result<Self, CliError> {
        if universe.starts_with('-') {
            return Err(CliError::usage(format!("--universe {universe}: that is an option"))
                .hint("write a pattern of targets, such as //... or //app/..."));
        }
        let program = given.or_else(|| program(kind, workspace)).ok_or_else(|| {
            CliError::machine("no bazelisk, bazel or buck2 is in PATH")
                .hint("name it with --bazel FILE")
        })?;
        let version = ask(&program, &["--version".into()], workspace, limit).await;
        let version = version.map_err(|error| {
            CliError::machine(chain(&error)).hint("name the build tool with --bazel FILE")
        })?;
        let version = String::from_utf8_lossy(&version).trim().to_owned();
        Ok(Self { kind, program, version, universe: universe.to_owned(), cquery, limit })
    }

    /// The tool's version and options, which decide beside a commit what its targets are said to
    /// be.
    pub fn question(&self) -> [&str; 3] {
        [&self.version, &self.universe, if self.cquery { "cquery" } else { "query" }]
    }

    /// Paths of files in a workspace that every target depends on. Some may not be there.
    pub fn common(&self, workspace: &Path) -> Vec<String> {
        let fixed: &[&str] = match self.kind {
            Kind::Bazel => &BAZEL_COMMON,
            Kind::Buck2 => &BUCK2_COMMON,
        };
        let mut paths: Vec<_> = fixed.iter().map(|path| (*path).to_owned()).collect();
        let mut next = 0;
        while next < paths.len() && paths.len() < IMPORTS {
            if paths[next].ends_with("rc") {
                let text = kiln_net::files::read_text(&workspace.join(&paths[next]));
                let text = text.unwrap_or_default();
                let new = imports(&text).filter(|path| !paths.contains(path)).collect::<Vec<_>>();
                paths.extend(new);
            }
            next += 1;
        }
        paths
    }

    /// The targets of a workspace. `alone`: nobody else uses the tool's server there.
    pub async fn targets(&self, workspace: &Path, alone: bool) -> Result<Graph, ToolError> {
        match self.kind {
            Kind::Bazel => self.bazel(workspace, alone).await,
            Kind::Buck2 => self.buck2(workspace, alone).await,
        }
    }

    async fn bazel(&self, workspace: &Path, alone: bool) -> Result<Graph, ToolError> {
        // Bazel 7 and newer can print targets one by one, which has no limit of 2 GB. Distributions' builds
        // say no version: they are asked.
        let streamed = major(&self.version).is_none_or(|major| major >= 7);
        if self.cquery {
            return self.query(workspace, alone, Framing::Configured).await;
        }
        if !streamed {
            return self.query(workspace, alone, Framing::Whole).await;
        }
        match self.query(workspace, alone, Framing::Streamed).await {
            Err(ToolError::Process(ProcessError::Failed { said, .. }))
                if said.contains(STREAMED) =>
            {
                self.query(workspace, alone, Framing::Whole).await
            }
            answer => answer,
        }
    }

    async fn query(
        &self,
        workspace: &Path,
        alone: bool,
        framing: Framing,
    ) -> Result<Graph, ToolError> {
        let output = match framing {
            Framing::Streamed => STREAMED,
            Framing::Whole | Framing::Configured => "proto",
        };
        let mut arguments: Vec<OsString> = Vec::new();
        if alone {
            arguments.push("--max_idle_secs=60".into());
        }
        arguments.push(if self.cquery { "cquery" } else { "query" }.into());
        arguments.push(format!("--output={output}").into());
        if !self.cquery {
            arguments.push("--order_output=no".into());
        }
        arguments.extend(["--color=no", "--curses=no"].map(OsString::from));
        arguments.push(format!("deps({})", self.universe).into());
        let answer = ask(&self.program, &arguments, workspace, self.limit).await?;
        Ok(Graph::from_query(&answer, framing)?)
    }

    async fn buck2(&self, workspace: &Path, alone: bool) -> Result<Graph, ToolError> {
        let asked = self.ask_buck2(workspace, alone, &["audit", "cell", "--json"]).await?;
        let cells: Cells = serde_json::from_slice(&asked).map_err(ToolError::Cells)?;
        let mut words = vec![
            "targets",
            "--streaming",
            "--imports",
            "--json-lines",
            "--show-unconfigured-target-hash",
            "--target-hash-file-mode=paths_and_contents",
            "--output-attribute=^name$",
            "--output-attribute=^labels$",
            "--output-attribute=^buck\\.",
        ];
        words.push(&self.universe);
        let answer = self.ask_buck2(workspace, alone, &words).await?;
        Ok(Graph::from_buck2(&String::from_utf8(answer)?, &cells)?)
    }

    async fn ask_buck2(
        &self,
        workspace: &Path,
        alone: bool,
        words: &[&str],
    ) -> Result<Vec<u8>, ProcessError> {
        let apart: &[&str] = if alone { &["--isolation-dir", "kiln-impact"] } else { &[] };
        let arguments: Vec<_> = apart.iter().chain(words).map(OsString::from).collect();
        ask(&self.program, &arguments, workspace, self.limit).await
    }
}

/// The first number of `bazel 7.4.1`; `None` for a development build.
fn major(version: &str) -> Option<u32> {
    let number =
        version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    number.split('.').next()?.parse().ok()
}

/// The files of the workspace that a .bazelrc imports.
fn imports(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let import = matches!(words.next(), Some("import" | "try-import"));
        let path = words.next()?.trim_matches('"');
        let path = path.strip_prefix("%workspace%/").unwrap_or(path).trim_start_matches("./");
        (import && !path.starts_with('/')).then(|| path.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn versions_and_imports_are_read() {
        assert_eq!(major("bazel 4.2.3- (@non-git)"), Some(4));
        assert_eq!(major("bazel 10.0.0"), Some(10));
        assert_eq!(major("bazel no_version"), None);
        let text = "build --jobs=3\nimport %workspace%/ci/a.bazelrc\n try-import ./user.rc\nimport /etc/x\n# import y\n";
        assert_eq!(imports(text).collect::<Vec<_>>(), ["ci/a.bazelrc", "user.rc"]);
    }

    #[test]
    fn the_nearest_workspace_upwards_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("WORKSPACE"), "").unwrap();
        fs::write(dir.path().join("a/.buckconfig"), "").unwrap();
        let found = workspace(&dir.path().join("a/b")).unwrap();
        assert_eq!(found, (dir.path().join("a"), Kind::Buck2));
        assert_eq!(workspace(dir.path()).unwrap(), (dir.path().to_owned(), Kind::Bazel));
    }
}
