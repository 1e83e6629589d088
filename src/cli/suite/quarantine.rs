//! `kiln tests quarantine`.

use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Args, Subcommand, ValueEnum, ValueHint};
use kiln_ci::quarantine::Kind;

use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::say::say;
use crate::cli::target::Target;
use crate::cli::text::{self, Table};
use crate::config::parse_time;
use kiln_web::format;
use kiln_web::json::{
    CaseName, Exported, Quarantine, QuarantineChange, QuarantineRequest, Quarantined, SubjectName,
};

/// Characters of a column that people read.
const SHOWN: usize = 100;

/// Look at and change which tests nobody has to wait for.
///
/// A test in quarantine still runs. It enters by itself once it is proven to be flaky, and leaves by itself; what
/// people put in stays until they take it out or its time is up. Each change is in the audit log.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln tests quarantine list
  kiln tests quarantine add //app:login_test --reason 'fails at midnight' --owner @app --stay 72h
  kiln tests quarantine remove //app:login_test --reason 'mended in 3f2a1c'
  kiln tests quarantine export --format bazel >> targets.txt

Changes take the role write-cache or admin; on a loopback address without access files the server's own user or
root.")]
pub struct QuarantineCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Which tests are in quarantine, why, and for how long
    List(List),
    /// Put a test into quarantine, or give it more time there
    Add(Add),
    /// Take a test out of quarantine
    Remove(Remove),
    /// Print the tests in quarantine in the words of a test runner
    Export(Export),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln tests quarantine list
  kiln tests quarantine list --json | jq -r '.entries[] | select(.owner == null) | .label'")]
struct List {
    /// For programs
    #[arg(long)]
    json: bool,
}

/// Which test.
#[derive(Debug, Args)]
struct Named {
    /// The label, or the name of an imported suite
    label: String,
    /// One configuration alone, by its id as `tests show` and gates say it; without, all of them
    #[arg(long, value_name = "ID", default_value = "", value_hint = ValueHint::Other)]
    configuration: String,
    /// One case alone, by its name
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    case: Option<String>,
    /// The class, file or module that the case is in
    #[arg(long, value_name = "NAME", requires = "case", default_value = "", value_hint = ValueHint::Other)]
    class: String,
    /// Why: it is kept with the entry and in the audit log
    #[arg(long, value_name = "TEXT", value_hint = ValueHint::Other)]
    reason: String,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln tests quarantine add //app:login_test --reason 'fails at midnight' --owner @app --stay 72h
  kiln tests quarantine add //app:login_test --configuration \"$ID\" --reason 'fails with --config=asan'
  kiln tests quarantine add suite --class tests.test_login.Login --case test_expiry --reason 'fails at midnight'")]
struct Add {
    #[command(flatten)]
    test: Named,
    /// Who looks after it
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    owner: Option<String>,
    /// For how long [default: as long as may be, 14 days]
    #[arg(long, value_name = "TIME", value_parser = ValueParser::from(parse_time))]
    stay: Option<Duration>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln tests quarantine remove //app:login_test --reason 'mended in 3f2a1c'
  kiln tests quarantine remove suite --class tests.test_login.Login --case test_expiry --reason 'deleted'")]
struct Remove {
    #[command(flatten)]
    test: Named,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln tests quarantine export --format bazel          # for --target_pattern_file, below other patterns
  kiln tests quarantine export --format bazel-attempts --attempts 3   # --flaky_test_attempts for each
  eval \"pytest $(kiln tests quarantine export --format pytest --shell)\"
  cargo nextest run -E \"$(kiln tests quarantine export --format nextest)\"")]
struct Export {
    /// The tool in whose words the quarantine is written
    #[arg(long, value_enum)]
    format: Format,
    /// How often a test is tried, for bazel-attempts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10))]
    attempts: Option<u32>,
    /// On one line, quoted for a shell
    #[arg(long)]
    shell: bool,
    /// For programs
    #[arg(long, conflicts_with = "shell")]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Bazel,
    BazelAttempts,
    Pytest,
    Nextest,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Bazel => "bazel",
            Self::BazelAttempts => "bazel-attempts",
            Self::Pytest => "pytest",
            Self::Nextest => "nextest",
        }
    }
}

impl QuarantineCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let server = Api::new(target)?;
        match self.what {
            What::List(List { json }) => {
                let of = match target.names_instance {
                    false => String::new(),
                    true => format!("?instance={}", format::encode(&target.instance, false)),
                };
                let answer = server.get(&format!("/tests/quarantine{of}")).await?;
                api::print(answer, json, table)?;
            }
            What::Add(Add { test, owner, stay }) => {
                let (json, request) = (test.json, test.request(target, owner, stay));
                let answer = server.post("/tests/quarantine", &request).await?;
                api::print(answer, json, changed)?;
            }
            What::Remove(Remove { test }) => {
                let (json, request) = (test.json, test.request(target, None, None));
                let answer = server.post("/tests/quarantine/remove", &request).await?;
                api::print(answer, json, changed)?;
            }
            What::Export(export) => export.run(&server, target).await?,
        }
        Ok(Exit::Done)
    }
}

impl Named {
    fn request(
        self,
        target: &Target,
        owner: Option<String>,
        stay: Option<Duration>,
    ) -> QuarantineRequest {
        let case = self.case.map(|name| CaseName { class: self.class, name });
        let test = SubjectName {
            instance: target.instance.clone(),
            label: self.label,
            configuration: self.configuration,
            case,
        };
        QuarantineRequest { test, reason: self.reason, owner, stay_s: stay.map(|it| it.as_secs()) }
    }
}

impl Export {
    async fn run(self, server: &Api, target: &Target) -> Result<(), CliError> {
        let attempts = self.attempts.map(|it| format!("&attempts={it}")).unwrap_or_default();
        let path = format!(
            "/tests/quarantine/export?format={}&instance={}{attempts}",
            self.format.name(),
            format::encode(&target.instance, false)
        );
        let answer = server.get(&path).await?;
        if self.json {
            return text::print(&format!("{answer:#}\n"));
        }
        let exported: Exported = api::read(answer)?;
        for left in &exported.left_out {
            say(&format!("left out: {}: {}", named(&left.test), left.reason));
        }
        let lines = match self.shell {
            true => format!("{}\n", exported.shell),
            false => text::lines(&exported.arguments),
        };
        text::write_out(lines.as_bytes())
    }
}

fn named(test: &SubjectName) -> String {
    match &test.case {
        None => test.label.clone(),
        Some(case) if case.class.is_empty() => format!("{} ({})", test.label, case.name),
        Some(case) => format!("{} ({} {})", test.label, case.class, case.name),
    }
}

/// A part of a test's name that may tell tests of one label apart.
type Part = fn(&SubjectName) -> &String;

fn table(it: &Quarantine) -> String {
    let sum = format!(
        "{} of {} tests, {} may be{}\n",
        it.entries.len(),
        it.tests,
        it.allowed,
        if it.over_cap { ": too many, gates mask nothing" } else { "" }
    );
    if it.entries.is_empty() {
        return format!("no test is in quarantine: {sum}");
    }
    // What is needed to name an entry, where entries have it.
    let apart: [(&str, Part); 2] =
        [("instance", |it| &it.instance), ("configuration", |it| &it.configuration)];
    let is_said = |of: Part| it.entries.iter().any(|it| !of(&it.test).is_empty());
    let apart: Vec<_> = apart.into_iter().filter(|(_, of)| is_said(*of)).collect();
    let mut head = vec!["test"];
    head.extend(apart.iter().map(|(name, _)| *name));
    head.extend(["by", "until", "owner", "reason"]);
    let mut table = Table::new(&head, &[]);
    for Quarantined { test, entry } in &it.entries {
        let mut row = vec![format::short(&named(test), SHOWN)];
        row.extend(apart.iter().map(|(_, of)| format::short(of(test), SHOWN)));
        row.extend([
            format::short(&entry.by, SHOWN),
            format::utc(entry.expires),
            format::short(entry.owner.as_deref().unwrap_or("-"), SHOWN),
            format::short(&entry.reason, SHOWN),
        ]);
        table.row(row);
    }
    format!("{}{sum}", table.text(""))
}

fn changed(it: &QuarantineChange) -> String {
    let what = match it.kind {
        Kind::Entered => "is in quarantine",
        Kind::Renewed => "stays in quarantine",
        _ => "is out of quarantine",
    };
    let until = match it.expires {
        0 => String::new(),
        at => format!(" until {}", format::utc(at)),
    };
    format!("{} {what}{until}\n", named(&it.test))
}
