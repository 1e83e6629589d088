//! A build and the attempts at its tests, put together from the events of its stream.

use std::collections::{BTreeMap, HashMap, VecDeque};

use kiln_protos::bep::{self, build_event::Payload, build_event_id::Id};

use super::attempt::{self, NoAttempt, Told};
use super::facts::{
    Aborted, Configuration, Facts, FailedAction, FileRef, Options, Origin, Target, TargetKey,
    TargetOutcome, TestTotals,
};
use super::limits::Limits;
use super::sets::FileSets;
use super::wire::{self, KeptEvent};
use crate::attempts::{cut, name};

/// Takes events in order, each once.
#[derive(Clone, Debug)]
pub struct Build {
    pub(super) limits: Limits,
    instance: String,
    facts: Facts,
    /// Indexes of targets in the facts.
    targets: HashMap<TargetKey, usize>,
    /// What is known of targets before their configuration is.
    kinds: BTreeMap<String, (String, Vec<String>)>,
    sets: FileSets,
    progress: VecDeque<u8>,
    attempts: u64,
    told: Vec<Told>,
    /// Bytes of events from which something was kept.
    pub(super) kept: usize,
}

impl Build {
    pub fn new(instance: &str, invocation: &str, limits: Limits) -> Self {
        let facts = Facts { invocation: name(invocation), ..Facts::default() };
        Self {
            limits,
            instance: name(instance),
            facts,
            targets: HashMap::new(),
            kinds: BTreeMap::new(),
            sets: FileSets::default(),
            progress: VecDeque::new(),
            attempts: 0,
            told: Vec::new(),
            kept: 0,
        }
    }

    /// What is known so far.
    pub fn facts(&self) -> Facts {
        let (one, two) = self.progress.as_slices();
        let bytes = [one, two].concat();
        Facts { progress: String::from_utf8_lossy(&bytes).into_owned(), ..self.facts.clone() }
    }

    /// What is known of the build, without what was printed, of which [`Self::facts`] has the end.
    pub fn known(&self) -> &Facts {
        &self.facts
    }

    pub fn is_complete(&self) -> bool {
        self.facts.is_complete
    }

    /// Attempts that were told since this was asked last, with the places of their reports. They carry the
    /// commit and branch that are known by now.
    pub fn take_attempts(&mut self) -> Vec<Told> {
        let mut told = std::mem::take(&mut self.told);
        for it in &mut told {
            it.attempt.commit.clone_from(&self.facts.origin.commit);
            it.attempt.branch.clone_from(&self.facts.origin.branch);
        }
        told
    }

    pub fn apply(&mut self, entry: &KeptEvent) {
        self.facts.events += 1;
        match entry {
            KeptEvent::Bazel(event) => self.event(event),
            KeptEvent::Finished => self.facts.is_complete = true,
            KeptEvent::Other => {}
            KeptEvent::Cut => self.facts.left_out.events += 1,
        }
    }

    fn event(&mut self, event: &bep::BuildEvent) {
        let id = event.id.as_ref().and_then(|id| id.id.as_ref());
        if event.last_message {
            self.facts.is_complete = true;
        }
        if !self.has_room(event) {
            self.facts.left_out.events += 1;
            return;
        }
        match (&event.payload, id) {
            (Some(Payload::Progress(it)), _) => {
                self.print(&it.stderr);
                self.print(&it.stdout);
            }
            (Some(Payload::TestResult(it)), Some(Id::TestResult(id))) => self.test_result(id, it),
            (Some(Payload::NamedSetOfFiles(it)), Some(Id::NamedSet(id))) => self.set(&id.id, it),
            (Some(Payload::Completed(it)), Some(Id::TargetCompleted(id))) => self.completed(id, it),
            (Some(Payload::Configured(it)), Some(Id::TargetConfigured(id))) => {
                self.configured(id, it);
            }
            (Some(Payload::TestSummary(it)), Some(Id::TestSummary(id))) => self.summary(id, it),
            (Some(Payload::Action(it)), Some(Id::ActionCompleted(id))) => self.action(id, it),
            (Some(Payload::Configuration(it)), Some(Id::Configuration(id))) => {
                self.configuration(&id.id, it);
            }
            (Some(Payload::Aborted(it)), id) => self.aborted(id, it),
            (Some(Payload::Expanded(_)), Some(Id::Pattern(id))) => {
                self.facts.patterns = self.texts(&id.pattern);
            }
            (Some(payload), _) => self.whole_build(payload),
            (None, _) => {}
        }
    }

    /// What is said of the build as a whole.
    fn whole_build(&mut self, payload: &Payload) {
        match payload {
            Payload::Started(it) => {
                self.facts.command = self.text(&it.command);
                self.facts.tool_version = self.text(&it.build_tool_version);
                self.facts.directory = self.text(&it.workspace_directory);
                self.facts.started = wire::time(it.start_time.as_ref(), it.start_time_millis);
            }
            Payload::UnstructuredCommandLine(it) => {
                self.facts.options.command_line = self.texts(&it.args);
            }
            Payload::OptionsParsed(it) => {
                self.facts.options = Options {
                    explicit: self.texts(&it.explicit_cmd_line),
                    effective: self.texts(&it.cmd_line),
                    startup: self.texts(&it.startup_options),
                    command_line: std::mem::take(&mut self.facts.options.command_line),
                };
            }
            Payload::WorkspaceStatus(it) => {
                let items = it.item.iter().map(|it| (&it.key, &it.value));
                self.facts.workspace_status = self.pairs(items);
                self.origin();
            }
            Payload::BuildMetadata(it) => {
                self.facts.metadata = self.pairs(it.metadata.iter());
                self.origin();
            }
            Payload::BuildToolLogs(it) => {
                let logs = it.log.iter().take(self.limits.items);
                self.facts.logs = logs.map(wire::file).collect();
            }
            Payload::Finished(it) => self.finished(it),
            _ => {}
        }
    }

    fn finished(&mut self, it: &bep::BuildFinished) {
        self.facts.finished = wire::time(it.finish_time.as_ref(), it.finish_time_millis);
        self.facts.exit_code = match &it.exit_code {
            Some(code) => Some((code.code, self.text(&code.name))),
            None => Some((i32::from(!it.overall_success), String::new())),
        };
    }

    fn origin(&mut self) {
        self.facts.origin = Origin::of(&self.facts.metadata, &self.facts.workspace_status);
    }

    fn test_result(&mut self, id: &bep::build_event_id::TestResultId, it: &bep::TestResult) {
        match attempt::told(&self.instance, &self.facts.invocation, id, it) {
            Ok(_) if self.attempts >= self.limits.attempts => self.facts.left_out.attempts += 1,
            Ok(told) => {
                self.attempts += 1;
                self.told.push(told);
            }
            Err(NoAttempt::Cached) => self.facts.cached_tests += 1,
            Err(NoAttempt::DidNotRun) => {}
        }
    }

    fn set(&mut self, id: &str, it: &bep::NamedSetOfFiles) {
        self.facts.left_out.files += self.sets.add(id, it, &self.limits);
    }

    /// The files of sets and of all that are in them, each set once, at most so many.
    pub fn files(&self, sets: &[String], most: usize) -> Vec<FileRef> {
        self.sets.files(sets, most)
    }

    fn completed(&mut self, id: &bep::build_event_id::TargetCompletedId, it: &bep::TargetComplete) {
        let why = it.failure_detail.as_ref().map(|it| self.text(&it.message));
        let groups = it.output_group.iter().take(self.limits.items);
        let outputs = groups.map(|group| {
            let sets = group.file_sets.iter().take(self.limits.items).map(|it| name(&it.id));
            (name(&group.name), sets.collect())
        });
        let (outputs, tags) = (outputs.collect(), self.texts(&it.tag));
        let key = key(&id.label, id.configuration.as_ref(), &id.aspect);
        if !it.success {
            self.failed_first(&id.label);
        }
        if let Some(target) = self.target(key) {
            target.outcome = if it.success { TargetOutcome::Built } else { TargetOutcome::Failed };
            target.why = why;
            target.outputs = outputs;
            target.tags = tags;
            if target.kind.is_empty() {
                target.kind = name(&it.target_kind);
            }
        }
    }

    fn configured(
        &mut self,
        id: &bep::build_event_id::TargetConfiguredId,
        it: &bep::TargetConfigured,
    ) {
        if id.aspect.is_empty() && self.kinds.len() < self.limits.targets {
            let kind = (name(&it.target_kind), self.texts(&it.tag));
            self.kinds.insert(name(&id.label), kind);
        }
    }

    fn summary(&mut self, id: &bep::build_event_id::TestSummaryId, it: &bep::TestSummary) {
        let number = |it: i32| u32::try_from(it).unwrap_or(0);
        let status = it.overall_status().as_str_name().to_ascii_lowercase();
        if !matches!(status.as_str(), "passed" | "flaky" | "no_status") {
            self.failed_first(&id.label);
        }
        let totals = TestTotals {
            status,
            runs: number(it.run_count),
            shards: number(it.shard_count),
            attempts: number(it.total_run_count),
            cached: number(it.total_num_cached),
            duration: wire::duration(it.total_run_duration.as_ref(), it.total_run_duration_millis),
        };
        if let Some(target) = self.target(key(&id.label, id.configuration.as_ref(), "")) {
            target.test = Some(totals);
        }
    }

    fn action(&mut self, id: &bep::build_event_id::ActionCompletedId, it: &bep::ActionExecuted) {
        if it.success {
            return;
        }
        let label = if id.label.is_empty() { &it.label } else { &id.label };
        self.failed_first(label);
        if self.facts.failed_actions.len() >= self.limits.failed_actions {
            self.facts.left_out.actions += 1;
            return;
        }
        let failed = FailedAction {
            label: name(label),
            configuration: id.configuration.as_ref().map(|it| name(&it.id)).unwrap_or_default(),
            mnemonic: name(&it.r#type),
            exit_code: it.exit_code,
            output: name(&id.primary_output),
            logs: [&it.stdout, &it.stderr].into_iter().flatten().map(wire::file).collect(),
        };
        self.facts.failed_actions.push(failed);
    }

    fn configuration(&mut self, id: &str, it: &bep::Configuration) {
        if self.facts.configurations.len() >= self.limits.items {
            return;
        }
        let it = Configuration {
            mnemonic: self.text(&it.mnemonic),
            platform: self.text(&it.platform_name),
            cpu: self.text(&it.cpu),
            is_tool: it.is_tool,
        };
        self.facts.configurations.insert(name(id), it);
    }

    fn aborted(&mut self, id: Option<&Id>, it: &bep::Aborted) {
        use bep::aborted::AbortReason;
        let target = match id {
            Some(Id::TargetCompleted(id)) => {
                Some(key(&id.label, id.configuration.as_ref(), &id.aspect))
            }
            Some(Id::ConfiguredLabel(id)) => Some(key(&id.label, id.configuration.as_ref(), "")),
            Some(Id::UnconfiguredLabel(id)) => Some(key(&id.label, None, "")),
            Some(Id::TargetConfigured(id)) => Some(key(&id.label, None, &id.aspect)),
            _ => None,
        };
        let asked_for = matches!(
            it.reason(),
            AbortReason::Skipped | AbortReason::NoBuild | AbortReason::NoAnalyze
        );
        if self.facts.aborted.len() < self.limits.items {
            let aborted = Aborted {
                reason: it.reason().as_str_name().to_ascii_lowercase(),
                description: self.text(&it.description),
                label: target.as_ref().map(|it| it.label.clone()),
            };
            self.facts.aborted.push(aborted);
        }
        let Some(key) = target else { return };
        if !asked_for {
            self.failed_first(&key.label);
        }
        let why = self.text(&it.description);
        if let Some(target) = self.target(key) {
            let outcome = if asked_for { TargetOutcome::Skipped } else { TargetOutcome::Aborted };
            target.outcome = outcome;
            target.why = Some(why);
        }
    }

    fn target(&mut self, key: TargetKey) -> Option<&mut Target> {
        let at = match self.targets.get(&key) {
            Some(at) => *at,
            None if self.facts.targets.len() >= self.limits.targets => {
                self.facts.left_out.targets += 1;
                return None;
            }
            None => {
                let (kind, tags) = self.kinds.get(&key.label).cloned().unwrap_or_default();
                self.targets.insert(key.clone(), self.facts.targets.len());
                self.facts.targets.push((key, Target { kind, tags, ..Target::default() }));
                self.facts.targets.len() - 1
            }
        };
        self.facts.targets.get_mut(at).map(|(_, target)| target)
    }

    fn failed_first(&mut self, label: &str) {
        if self.facts.first_failure.is_none() && !label.is_empty() {
            self.facts.first_failure = Some(name(label));
        }
    }

    fn print(&mut self, text: &[u8]) {
        self.facts.progress_bytes += text.len() as u64;
        let text = &text[text.len() - text.len().min(self.limits.progress)..];
        let over = (self.progress.len() + text.len()).saturating_sub(self.limits.progress);
        self.progress.drain(..over);
        self.progress.extend(text);
    }

    fn text(&mut self, text: &str) -> String {
        let kept = cut(text, self.limits.text);
        self.facts.left_out.texts += u64::from(kept.len() < text.len());
        kept.to_owned()
    }

    fn texts(&mut self, texts: &[String]) -> Vec<String> {
        let kept = &texts[..texts.len().min(self.limits.items)];
        self.facts.left_out.texts += (texts.len() - kept.len()) as u64;
        kept.iter().map(|it| self.text(it)).collect()
    }

    fn pairs<'a>(
        &mut self,
        pairs: impl ExactSizeIterator<Item = (&'a String, &'a String)>,
    ) -> BTreeMap<String, String> {
        self.facts.left_out.texts += pairs.len().saturating_sub(self.limits.items) as u64;
        pairs.take(self.limits.items).map(|(key, value)| (name(key), self.text(value))).collect()
    }
}

fn key(
    label: &str,
    configuration: Option<&bep::build_event_id::ConfigurationId>,
    aspect: &str,
) -> TargetKey {
    TargetKey {
        label: name(label),
        configuration: configuration.map(|it| name(&it.id)).unwrap_or_default(),
        aspect: name(aspect),
    }
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
