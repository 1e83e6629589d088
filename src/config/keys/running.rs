//! The scheduler, and what is told of what happens.

use super::key::{Key, Kind, key};

/// Operations that a scheduler is asked to hold.
const MOST_QUEUED: u64 = 10_000_000;

pub const KEYS: &[Key] = &[
    key(
        "scheduler.default_timeout",
        "1h",
        Kind::DurationFrom(1_000),
        "For actions that name no timeout.",
    ),
    key(
        "scheduler.max_timeout",
        "24h",
        Kind::DurationFrom(1_000),
        "An action that names a longer timeout is refused.",
    ),
    key(
        "scheduler.worker_grace",
        "30s",
        Kind::Duration,
        "How long an action waits for a worker that could run it at all.",
    ),
    key(
        "scheduler.max_queued",
        "auto",
        Kind::NumberIn(1, MOST_QUEUED),
        "Most operations that wait. auto: 250000.",
    ),
    key("journal.max_executions", "100000", Kind::Number, "Executions kept for the web pages."),
    key("journal.max_builds", "2000", Kind::Number, "Builds kept for the web pages."),
    key(
        "tests.record",
        "true",
        Kind::Bool,
        "Whether runs of tests become history, and build events (--bes_backend) are taken in. See \
         docs/tests-history.md.",
    ),
    key(
        "tests.keep",
        "4320h",
        Kind::DurationFrom(3_600_000),
        "How long runs of tests are kept one by one.",
    ),
    key(
        "tests.keep_days",
        "19200h",
        Kind::DurationFrom(3_600_000),
        "How long it is kept what the runs of each day came to.",
    ),
    key(
        "tests.max_size",
        "1GiB",
        Kind::SizeFrom(1 << 20),
        "Most bytes of the history of tests. Beyond them the oldest runs go first.",
    ),
    key(
        "tests.keep_events",
        "720h",
        Kind::DurationFrom(3_600_000),
        "How long the events of a build are kept after its last one.",
    ),
    key(
        "tests.max_stream",
        "1GiB",
        Kind::SizeFrom(1 << 20),
        "Most bytes of one build's events. What comes beyond is left out, and the build's page says so.",
    ),
    key(
        "tests.max_streams",
        "16GiB",
        Kind::SizeFrom(1 << 20),
        "Most bytes of the events of all builds of an instance. Beyond them the oldest builds' go first.",
    ),
    key(
        "tests.judge",
        "true",
        Kind::Bool,
        "Whether failures of tests are judged: run again in the shadow, and told apart as flaky or broken. Needs \
         tests.record. See docs/tests-gate.md.",
    ),
    key(
        "tests.shadow_runs",
        "64",
        Kind::NumberIn(0, 1_000),
        "Most shadow runs for one failure. 0: none is run again.",
    ),
    key(
        "tests.shadow_at_once",
        "16",
        Kind::NumberIn(1, 4_096),
        "Most shadow runs at the same time.",
    ),
    key(
        "tests.shadow_budget",
        "8h",
        Kind::Duration,
        "Most worker time that shadow runs take in a day.",
    ),
    key(
        "tests.shadow_reserve",
        "1",
        Kind::NumberIn(0, 1_000_000),
        "Idle slots that shadow runs leave alone, for what builds ask for next.",
    ),
    key(
        "tests.window",
        "1m",
        Kind::DurationFrom(1_000),
        "Failures that begin within this time are looked at together, before anything is called broken.",
    ),
    key(
        "tests.hedge",
        "2",
        Kind::NumberIn(0, 1_000),
        "A part of a test that runs in parts and takes so many times what it is expected to is run once more on an idle \
         slot; the first answer counts. 0: none is. See docs/sharding.md.",
    ),
    key(
        "tests.quarantine_stay",
        "336h",
        Kind::DurationFrom(3_600_000),
        "How long a test may stay in quarantine.",
    ),
    key(
        "tests.quarantine_share",
        "0.02",
        Kind::Share,
        "The part of all tests that may be in quarantine; five always may. Beyond it gates mask nothing.",
    ),
    key(
        "tests.codeowners",
        "",
        Kind::Path,
        "A CODEOWNERS file that says who looks after tests. Read again when it changes.",
    ),
    key(
        "tests.webhook",
        "",
        Kind::Secret,
        "http:// or https:// address to which each change of the quarantine is sent. Empty: nowhere.",
    ),
    key(
        "tests.webhook_format",
        "json",
        Kind::Choice(&["json", "slack"]),
        "What is understood there.",
    ),
    key(
        "releases.record",
        "true",
        Kind::Bool,
        "Whether executions are recorded. Without, nothing can be said of where new releases come from. See \
         docs/releases.md.",
    ),
    key(
        "releases.keep_records",
        "720h",
        Kind::DurationFrom(3_600_000),
        "How long the record of an execution is kept after a build was last given its result.",
    ),
    key(
        "releases.key",
        "",
        Kind::Text,
        "The key that releases are signed with: a file, or env:NAME. It has a private key (PEM, PKCS #8), or says in JSON which \
         program signs. Empty: whoever makes a release signs it. Relative to the current directory. See docs/releases.md.",
    ),
    key(
        "releases.passphrase",
        "env:KILN_RELEASE_PASSPHRASE",
        Kind::Text,
        "Where the passphrase of an encrypted releases.key is: env:NAME.",
    ),
    key(
        "releases.keep_for",
        "2160h",
        Kind::Duration,
        "How long a release stays at least. What stands in an environment stays however old it is. See docs/promotion.md.",
    ),
    key(
        "releases.keep_newest",
        "10",
        Kind::NumberIn(0, 1_000_000),
        "Releases of each repository, the newest, that stay however old they are.",
    ),
    key(
        "releases.keep_predecessors",
        "5",
        Kind::NumberIn(0, 16),
        "Former releases of each environment that stay: rollbacks return to them.",
    ),
    key(
        "releases.gc",
        "false",
        Kind::Bool,
        "Whether releases that nothing keeps are removed by themselves. Else `kiln release gc` does it.",
    ),
    key(
        "releases.webhook",
        "",
        Kind::Secret,
        "An http:// or https:// address that is told of releases that are made, taken in, rejected and removed, as POST requests.",
    ),
    key(
        "releases.webhook_format",
        "json",
        Kind::Choice(&["json", "slack"]),
        "What is understood there.",
    ),
    key(
        "promotion.policy",
        "",
        Kind::Path,
        "The file of environments, and of what a release has to show before it stands in one. Read again when it changes. \
         Empty: there are none. See docs/promotion.md.",
    ),
    key(
        "promotion.keys",
        "",
        Kind::Path,
        "Whose signatures count in environments: a public key (PEM), or a policy of keys (JSON). Read again when it \
         changes. Empty: the server's own.",
    ),
    key(
        "promotion.webhook",
        "",
        Kind::Secret,
        "An http:// or https:// address that is told of changes of environments, as POST requests.",
    ),
    key(
        "promotion.webhook_format",
        "json",
        Kind::Choice(&["json", "slack"]),
        "What is understood there.",
    ),
    key(
        "rollouts.parts",
        "",
        Kind::Path,
        "The file of what rollouts may name: programs that drive targets, balancers, servers of metrics. Empty: only agents. \
         See docs/rollouts.md.",
    ),
    key(
        "rollouts.webhook",
        "",
        Kind::Secret,
        "An http:// or https:// address that is told of what rollouts do, as POST requests.",
    ),
    key(
        "rollouts.webhook_format",
        "json",
        Kind::Choice(&["json", "slack"]),
        "What is understood there.",
    ),
    key(
        "merge_queue.webhook",
        "",
        Kind::Secret,
        "An http:// or https:// address that is told what becomes of changes in merge queues, as POST requests.",
    ),
    key(
        "merge_queue.webhook_format",
        "json",
        Kind::Choice(&["json", "slack"]),
        "What is understood there.",
    ),
    key(
        "forges.file",
        "",
        Kind::Path,
        "The file of forges (GitHub, GitLab, Gitea) whose webhooks ask merge queues for changes, and which are told what \
         becomes of these. Empty: there are none. See docs/forges.md.",
    ),
    key(
        "stages.parts",
        "",
        Kind::Path,
        "The file of what stages of pipelines may name: programs on the server's side and their secrets. Empty: none. \
         See docs/stages.md.",
    ),
    key(
        "stages.allow_network",
        "false",
        Kind::Bool,
        "Let commands of pipelines ask for the network, where workers grant it as well (workers.allow_network).",
    ),
    key(
        "stages.webhook",
        "",
        Kind::Secret,
        "An http:// or https:// address that is told of environments that cannot be taken down, as POST requests.",
    ),
    key(
        "stages.webhook_format",
        "json",
        Kind::Choice(&["json", "slack"]),
        "What is understood there.",
    ),
    key(
        "pipelines.directory",
        "",
        Kind::Path,
        "A directory with pipelines (*.toml): their triggers begin runs, and `kiln pipeline run --name` does. It is read again \
         every 15 s. Empty: there are none. See docs/pipelines.md.",
    ),
    key(
        "pipelines.instance",
        "",
        Kind::Text,
        "The instance of the runs of these: in its store they have their sources and outputs, and its roles count.",
    ),
    key(
        "pipelines.keep",
        "30d",
        Kind::Duration,
        "How long runs of pipelines are kept after their end.",
    ),
    key(
        "pipelines.most",
        "100",
        Kind::NumberIn(1, 1_000),
        "Stages of one run that run at the same time.",
    ),
    key(
        "hermeticity.rate",
        "0",
        Kind::Share,
        "The part of executed actions that is run again under changed conditions while workers are \
         idle, from 0 (none) to 1 (all). See docs/hermeticity.md.",
    ),
    key(
        "hermeticity.concurrency",
        "1",
        Kind::NumberIn(1, 4096),
        "Actions whose hermeticity is checked at the same time.",
    ),
    key("log.format", "text", Kind::Choice(&["text", "json"]), "How logs are written to stderr."),
    key(
        "log.filter",
        "info,aws_config=warn",
        Kind::LogFilter,
        "What is logged, e.g. info,kiln_scheduler=debug.",
    ),
    key(
        "telemetry.otlp_endpoint",
        "",
        Kind::Text,
        "Where traces go, e.g. http://127.0.0.1:4317, or https:// (OTLP over gRPC). Empty: nowhere.",
    ),
    key(
        "telemetry.otlp_ca",
        "",
        Kind::Path,
        "Authorities (PEM) that are trusted for an https:// collector. Empty: the system's.",
    ),
];
