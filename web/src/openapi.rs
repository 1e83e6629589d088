//! The description of the API, as OpenAPI 3.1: schemas are derived from what is written, the rest is this table.

use std::sync::LazyLock;

use axum::Json;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::actions::{api as action, executions};
use super::builds::{api as build, search::Search};
use super::fleet;
use super::imports::Asked as Import;
use super::json;
use super::merge_queue as merge;
use super::pipelines::api as pipeline;
use super::promotion::api as environment;
use super::releases::api as release;
use super::rollouts::api as rollout;
use super::suite::api as test;
use super::suite::{Filter, Wanted, Which};
use super::verdicts::quarantine as exports;
use super::workers::api as worker;

/// What segments of paths that stand for something are.
const SEGMENTS: [(&str, &str); 9] = [
    ("environment", "The name of an environment."),
    ("invocation", "The id of an invocation, or its beginning where one build begins so."),
    (
        "id",
        "The id of a test, or its label; the name of an execution; the id of a rollout or of a pipeline's run.",
    ),
    ("queue", "The name of a merge queue."),
    ("run", "The number of one of its runs."),
    ("request", "The number of what somebody asked it for."),
    ("function", "`sha256` or `blake3`."),
    ("hash", "Of the action."),
    ("size", "Of the action, in bytes."),
];

static DESCRIBED: LazyLock<Value> = LazyLock::new(describe);

/// Answers with the description of this API.
pub async fn document() -> Json<&'static Value> {
    Json(&DESCRIBED)
}

/// `{"/api/v1/status": …}` and so on, with all that they refer to.
struct Description {
    generator: SchemaGenerator,
    paths: Map<String, Value>,
}

fn describe() -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut all = Description { generator: settings.into_generator(), paths: Map::new() };
    all.server();
    all.builds();
    all.actions();
    all.tests();
    all.releases();
    all.promotion();
    all.rollouts();
    all.fleet();
    all.merge_queues();
    all.pipelines();
    all.audit();
    all.generator.subschema_for::<json::ErrorBody>();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Kiln",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What ran, what was cached and why not, and what is known of tests. Times are RFC 3339 \
                            in UTC; durations say their unit in their names.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": all.paths,
        "components": { "schemas": all.generator.take_definitions(true) },
    })
}

impl Description {
    fn server(&mut self) {
        self.get::<json::Status>("/status", "How the server does", &[]);
        self.get::<worker::Workers>("/workers", "Workers", &[]);
        self.get::<worker::Queue>("/queue", "What runs and waits", &[]);
        let filter = super::hermeticity::api::Filter::json_schema(&mut self.generator);
        self.get::<json::Checks>("/hermeticity", "Actions that were run again", &[filter]);
        self.get::<Map<String, Value>>("/openapi.json", "This description", &[]);
    }

    fn builds(&mut self) {
        let filter = build::BuildsFilter::json_schema(&mut self.generator);
        self.get::<json::Builds>("/builds", "Builds, newest first", &[filter]);
        self.get::<json::Build>("/builds/{invocation}", "One build", &[]);
        let two = super::builds::compare::Which::json_schema(&mut self.generator);
        self.get::<json::Comparison>("/builds/compare", "Two builds side by side", &[two]);
        let search = Search::json_schema(&mut self.generator);
        self.get::<json::Invocations>("/invocations", "Builds that told of themselves", &[search]);
    }

    fn actions(&mut self) {
        let options = super::actions::load::Options::json_schema(&mut self.generator);
        let path = "/actions/{function}/{hash}/{size}";
        self.get::<json::Action>(path, "One action", &[options]);
        let compared = action::Compared::json_schema(&mut self.generator);
        let path = "/actions/{function}/{hash}/{size}/difference";
        self.get::<json::Explanation>(path, "How it differs from another one", &[compared]);
        let filter = executions::Filter::json_schema(&mut self.generator);
        self.get::<json::Executions>("/executions", "Executions, newest first", &[filter]);
        self.get::<json::Execution>("/executions/{id}", "One execution", &[]);
        let name = executions::Name::json_schema(&mut self.generator);
        self.get::<json::Found>("/find", "What a name may mean", &[name]);
    }

    fn tests(&mut self) {
        let filter = Filter::json_schema(&mut self.generator);
        let wanted = Wanted::json_schema(&mut self.generator);
        self.get::<json::Tests>(
            "/tests",
            "Tests with their outcomes",
            std::slice::from_ref(&filter),
        );
        self.get::<json::TestFigures>(
            "/tests/kpi",
            "What tests cost",
            std::slice::from_ref(&filter),
        );
        let grid = "What became of tests at commits or in invocations";
        self.get::<json::Grid>("/tests/grid", grid, &[filter, wanted]);
        self.verdicts();
        self.plans();
        let attempts = test::Attempts::json_schema(&mut self.generator);
        let which = Which::json_schema(&mut self.generator);
        let queries = [attempts, which];
        self.get::<json::TestShown>("/tests/{id}", "One test with its attempts", &queries);
        let import = Import::json_schema(&mut self.generator);
        let mut import = self.operation::<json::Receipt>(
            "/tests/import",
            "Bring in a report of tests that ran elsewhere",
            &[import],
        );
        import["requestBody"] = json!({
            "description": "JUnit's XML.",
            "required": true,
            "content": { "application/xml": {} },
        });
        self.add("/tests/import", "post", import);
    }

    fn verdicts(&mut self) {
        let gate = "Whether a change may go on in spite of failures";
        self.post::<json::GateQuestion, json::Gate>("/tests/gate", gate);
        let filter = super::verdicts::flakes::Filter::json_schema(&mut self.generator);
        self.get::<json::Flakes>("/tests/flakes", "Tests that are flaky or may be", &[filter]);
        let quarantine = "/tests/quarantine";
        let of = exports::Of::json_schema(&mut self.generator);
        self.get::<json::Quarantine>(quarantine, "Tests that nobody has to wait for", &[of]);
        let enter = "Put a test there, or give it more time";
        self.post::<json::QuarantineRequest, json::QuarantineChange>(quarantine, enter);
        let past = "What became of the quarantine, and what gates let pass";
        self.get::<json::QuarantineHistory>("/tests/quarantine/history", past, &[]);
        let leave = "/tests/quarantine/remove";
        self.post::<json::QuarantineRequest, json::QuarantineChange>(leave, "Take a test out");
        let wanted = exports::Wanted::json_schema(&mut self.generator);
        let export = "The same in the words of test runners";
        self.get::<json::Exported>("/tests/quarantine/export", export, &[wanted]);
    }

    fn releases(&mut self) {
        let page = release::Page::json_schema(&mut self.generator);
        self.get::<json::Releases>("/releases", "Releases in the order of their names", &[page]);
        let create = "Make a release that the server signs";
        self.post::<json::ReleaseRequest, json::Release>("/releases", create);
        let named = release::Named::json_schema(&mut self.generator);
        self.get::<json::Release>("/releases/show", "One release", &[named]);
        let lines = release::Lines::json_schema(&mut self.generator);
        let provenance = "Where a release comes from";
        self.get::<json::ReleaseProvenance>("/releases/provenance", provenance, &[lines]);
        let two = release::Two::json_schema(&mut self.generator);
        let diff = "What differs between what two releases were made of";
        self.get::<json::ReleaseDifference>("/releases/diff", diff, &[two]);
        let prepare = "Make everything of a release but its signatures";
        self.post::<json::ReleaseRequest, json::ReleaseDraft>("/releases/prepare", prepare);
        let sign = "Bring the signatures of a release that was prepared";
        self.post::<json::ReleaseSignatures, json::Release>("/releases/sign", sign);
        let reject = "Say for good that a release is not to be used";
        self.post::<json::ReleaseRejection, json::Release>("/releases/reject", reject);
        let import = "Take in an export of another server";
        self.post::<json::ReleaseImport, json::Release>("/releases/import", import);
        let gc = "Remove releases that nothing keeps, or say which would be";
        self.post::<json::ReleaseGc, json::ReleaseFates>("/releases/gc", gc);
        let content = release::Content::json_schema(&mut self.generator);
        self.get::<json::Explained>("/explain", "Where content comes from", &[content]);
    }

    fn plans(&mut self) {
        let plans = "/tests/plans";
        let wanted = super::plans::Wanted::json_schema(&mut self.generator);
        self.get::<json::PlanStanding>(plans, "How far a plan is", &[wanted]);
        let put = "Put a plan here whose pieces runners take";
        self.post::<json::NewPlan, json::PlanStanding>(plans, put);
        let next = "/tests/plans/next";
        self.post::<json::PlanTurn, json::PlanNext>(next, "Take the next piece of a plan");
    }

    fn promotion(&mut self) {
        let all = "Environments, each behind those that it follows";
        self.get::<json::Environments>("/environments", all, &[]);
        let page = environment::Page::json_schema(&mut self.generator);
        let one = "One environment, with what stood there";
        self.get::<json::EnvironmentShown>("/environments/{environment}", one, &[page]);
        let which = environment::Which::json_schema(&mut self.generator);
        let summary = "What was signed of a promotion";
        let path = "/environments/{environment}/summary";
        self.get::<json::PromotionSummary>(path, summary, &[which]);
        let promote = "Promote a release, or say what stands in the way";
        self.post::<json::PromotionRequest, json::PromotionAnswer>("/promotions", promote);
        let back = "Return to a release that stood there";
        self.post::<json::RollbackRequest, json::PlacedRelease>("/promotions/rollback", back);
        let say = "Approve, hold or override";
        self.post::<json::SayRequest, json::PromotionChange>("/promotions/say", say);
    }

    fn rollouts(&mut self) {
        let page = rollout::Page::json_schema(&mut self.generator);
        self.get::<json::Rollouts>("/rollouts", "Rollouts, newest first", &[page]);
        let start = "Roll a release out";
        self.post::<json::RolloutRequest, json::RolloutShown>("/rollouts", start);
        let looks = rollout::Looks::json_schema(&mut self.generator);
        self.get::<json::RolloutShown>("/rollouts/{id}", "One rollout", &[looks]);
        let say = "Pause a rollout, let it go on, or abort it";
        self.post::<json::RolloutSay, json::RolloutShown>("/rollouts/say", say);
        self.post::<json::RolloutAbandon, json::RolloutAbandon>("/rollouts/abandon", "Give one up");
        let plan = "What a rollout would do with the targets that are there";
        self.post::<json::RolloutPlanRequest, json::RolloutPlanned>("/rollouts/plan", plan);
        self.get::<json::DeployLocks>("/locks", "Who has which deploy lock", &[]);
        let lock = "Hold up rollouts of a service in an environment";
        self.post::<json::LockRequest, json::DeployLock>("/locks", lock);
        let unlock = "Give a deploy lock back";
        self.post::<json::UnlockRequest, json::DeployLock>("/locks/remove", unlock);
    }

    fn fleet(&mut self) {
        let page = fleet::FleetPage::json_schema(&mut self.generator);
        self.get::<json::FleetAgents>("/fleet", "Agents, with versions and drift", &[page]);
        let named = fleet::Named::json_schema(&mut self.generator);
        self.get::<json::FleetAgent>("/fleet/show", "One agent", &[named]);
        let tell = "Tell an agent what to run";
        self.post::<json::FleetTelling, json::AgentOrder>("/fleet/tell", tell);
        self.post::<json::FleetRemoval, json::FleetRemoval>("/fleet/remove", "Forget an agent");
        let report = "An agent says how it is";
        self.post::<json::AgentReport, json::AgentHeard>("/fleet/agent/report", report);
        let order = "An agent asks what it is to run, and waits for it";
        self.post::<json::AgentQuestion, json::AgentAnswer>("/fleet/agent/order", order);
        let content = "What a release is made of that an agent was told";
        self.post::<json::AgentFetch, json::Release>("/fleet/agent/content", content);
        let blob = "A blob of such a release";
        self.post::<json::AgentFetch, json::Release>("/fleet/agent/blob", blob);
        let pieces = "The list of the pieces of such a release";
        self.post::<json::AgentFetch, json::Release>("/fleet/agent/pieces", pieces);
        for path in ["/api/v1/fleet/agent/blob", "/api/v1/fleet/agent/pieces"] {
            self.paths[path]["post"]["responses"]["200"]["content"] =
                json!({ "application/octet-stream": {} });
        }
        let share = "An agent says which pieces it has, and hears who else has some";
        self.post::<json::AgentShare, json::AgentShared>("/fleet/agent/share", share);
    }

    fn pipelines(&mut self) {
        let page = pipeline::Page::json_schema(&mut self.generator);
        let runs = "Runs of pipelines, newest first, and pipelines that the operator declares";
        self.get::<json::Pipelines>("/pipelines", runs, &[page]);
        self.post::<json::PipelineRequest, json::PipelineShown>("/pipelines", "Begin a run");
        let say = "Cancel, resume, approve or refuse";
        self.post::<json::PipelineSay, json::PipelineShown>("/pipelines/say", say);
        let given_up = "Give one up whose records cannot be read";
        self.post::<json::PipelineAbandon, json::PipelineAbandon>("/pipelines/abandon", given_up);
        self.get::<json::PipelineShown>("/pipelines/{id}", "One run with its stages", &[]);
        let part = pipeline::Part::json_schema(&mut self.generator);
        let printed = "What an attempt at a stage printed";
        self.get::<json::PipelineLog>("/pipelines/{id}/log", printed, &[part]);
        self.get::<json::Previews>("/previews", "Environments for a while", &[]);
        let parity = "What differs from what one stands for";
        self.get::<json::PreviewParity>("/previews/{name}/parity", parity, &[]);
        self.post::<json::PreviewRemoval, json::PreviewShown>("/previews/down", "Take one down");
    }

    fn merge_queues(&mut self) {
        let all = "/merge-queues";
        self.get::<json::MergeQueues>(all, "Merge queues, with who runs them", &[]);
        let ended = merge::Ended::json_schema(&mut self.generator);
        let one = "One merge queue: what waits and why, what is tested, what has left";
        self.get::<json::MergeQueueShown>("/merge-queues/{queue}", one, &[ended]);
        let branch = merge::Branch::json_schema(&mut self.generator);
        let change = "/merge-queues/{queue}/change";
        self.get::<json::MergeChangeShown>(change, "What is known of a branch", &[branch]);
        let run = "/merge-queues/{queue}/runs/{run}";
        self.get::<json::MergeRan>(run, "One run that has ended, with the end of its log", &[]);
        let request = "/merge-queues/{queue}/requests/{request}";
        self.get::<json::MergeRequest>(request, "What became of a request", &[]);
        let say = "Add a change, take one out, pause or let go on";
        self.post::<json::MergeSay, json::MergeRequest>("/merge-queues/say", say);
        let forget = "Forget a queue that nobody runs any more";
        self.post::<json::MergeRemoval, json::MergeRemoval>("/merge-queues/forget", forget);
        let take = "A runner wants a queue";
        self.post::<json::MergeTake, json::MergeTaken>("/merge-queues/runner/take", take);
        let lane = "A runner reads its queue back";
        self.post::<json::MergeCall, json::MergeLane>("/merge-queues/runner/lane", lane);
        let asked = "A runner looks what it is asked for";
        self.post::<json::MergeCall, json::MergeAsked>("/merge-queues/runner/requests", asked);
        let step = "A runner writes what happened";
        self.post::<json::MergeStep, json::MergeHeard>("/merge-queues/runner/step", step);
        let leave = "A runner gives its queue back";
        self.post::<json::MergeCall, json::MergeHeard>("/merge-queues/runner/leave", leave);
    }

    fn audit(&mut self) {
        let filter = super::audit::api::Filter::json_schema(&mut self.generator);
        self.get::<json::AuditEntries>("/audit", "The audit log, newest first", &[filter]);
        self.get::<json::AuditCheck>("/audit/check", "Whether its chain holds", &[]);
        let after = super::audit::api::After::json_schema(&mut self.generator);
        let export = "The audit log as it was hashed, oldest first, with signed checkpoints";
        self.get::<json::AuditExport>("/audit/export", export, &[after]);
    }

    fn post<Q: JsonSchema, T: JsonSchema>(&mut self, path: &str, summary: &str) {
        let question = self.generator.subschema_for::<Q>();
        let content = json!({ "application/json": { "schema": question } });
        let mut operation = self.operation::<T>(path, summary, &[]);
        operation["requestBody"] = json!({ "required": true, "content": content });
        self.add(path, "post", operation);
    }

    fn get<T: JsonSchema>(&mut self, path: &str, summary: &str, queries: &[Schema]) {
        let operation = self.operation::<T>(path, summary, queries);
        self.add(path, "get", operation);
    }

    fn add(&mut self, path: &str, method: &str, operation: Value) {
        let path = self.paths.entry(format!("/api/v1{path}")).or_insert_with(|| json!({}));
        path[method] = operation;
    }

    /// Each operation may fail alike.
    fn operation<T: JsonSchema>(&mut self, path: &str, summary: &str, queries: &[Schema]) -> Value {
        let answer = self.generator.subschema_for::<T>();
        let failed = self.generator.subschema_for::<json::ErrorBody>();
        let content = |schema: &Schema| json!({ "application/json": { "schema": schema } });
        let parameters: Vec<Value> =
            segments(path).chain(queries.iter().flat_map(parameters)).collect();
        json!({
            "summary": summary,
            "parameters": parameters,
            "responses": {
                "200": { "description": summary, "content": content(&answer) },
                "default": {
                    "description": "What was wrong, and what to do about it",
                    "content": content(&failed),
                },
            },
        })
    }
}

fn segments(path: &str) -> impl Iterator<Item = Value> {
    let named = path.split('/').filter_map(|it| it.strip_prefix('{')?.strip_suffix('}'));
    let described = |name: &str| {
        let known = SEGMENTS.iter().find(|(known, _)| *known == name);
        let description = known.map_or("", |(_, description)| description);
        json!({
            "name": name,
            "in": "path",
            "required": true,
            "description": description,
            "schema": { "type": "string" },
        })
    };
    named.map(described).collect::<Vec<_>>().into_iter()
}

/// What stands in the query, of the schema of what it is read into.
fn parameters(query: &Schema) -> Vec<Value> {
    let required = query.get("required").and_then(Value::as_array);
    let is_required = |name: &str| required.is_some_and(|all| all.iter().any(|it| it == name));
    let properties = query.get("properties").and_then(Value::as_object);
    let described = |(name, schema): (&String, &Value)| {
        json!({
            "name": name,
            "in": "query",
            "required": is_required(name),
            "description": schema["description"],
            "schema": { "type": schema["type"] },
        })
    };
    properties.into_iter().flatten().map(described).collect()
}
