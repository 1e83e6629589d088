//! Turns the tags of a report into cases.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::Read;
use std::sync::Arc;

use quick_xml::errors::{Error, IllFormedError};
use quick_xml::events::{BytesStart, Event};

use super::case::{Case, Ending, Kind, Status, cut, is_timeout, joined};
use super::encoding::Encoding;
use super::input::{Input, Text};
use super::seconds::Times;
use super::{CaseAttempt, Limits, Reason, Refused, Totals};
use crate::model::CaseName;

/// Bytes of text outside of a report that are looked at: enough for byte order marks.
const OUTSIDE: usize = 16;

/// Elements of one case that are read: googletest writes one for each failed check.
const MAX_ENDINGS: u64 = 1000;

const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Reads a report and hands out its attempts in order. What was handed out of a report that is then
/// refused must not be counted: a report that is cut short does not say what else failed, and the whole
/// one, imported later, would count its beginning twice.
pub fn read(
    source: impl Read,
    limits: &Limits,
    each: impl FnMut(CaseAttempt),
) -> Result<Totals, Refused> {
    let mut xml = quick_xml::Reader::from_reader(Input::new(source, limits));
    xml.config_mut().check_comments = false;
    let mut report = Report::new(*limits, each);
    let mut buffer = Vec::new();
    loop {
        let input = xml.get_mut();
        let text = input.text(report.wants()).map_err(|reason| refused(input.line(), reason))?;
        let line = input.line();
        report.text(text).map_err(|reason| refused(line, reason))?;
        if input.is_at_end() {
            break report.finish().map_err(|reason| refused(line, reason));
        }
        input.start_tag();
        buffer.clear();
        let done = match xml.read_event_into(&mut buffer) {
            Ok(event) => report.event(event),
            Err(error) => Err(report.reason(error, xml.get_mut())),
        };
        done.map_err(|reason| refused(line, reason))?;
    }
}

fn refused(line: u64, reason: Reason) -> Refused {
    Refused { line, reason }
}

/// An element that is open.
enum Frame {
    /// `<testsuites>` or `<testsuite>`; the length of the path without it.
    Suite {
        path: usize,
        name: String,
    },
    Case,
    /// An element that says how an attempt ended.
    Ending,
    /// surefire's `<stackTrace>` in such an element.
    Trace,
    /// Anything else: its contents say nothing of cases.
    Other,
}

struct Report<F> {
    limits: Limits,
    each: F,
    /// Open elements, outermost first, each with the place at which its name begins in `names`.
    open: Vec<(usize, Frame)>,
    names: String,
    path: String,
    suite: Arc<str>,
    case: Option<Case>,
    /// The text of the ending that is open.
    text: Vec<u8>,
    /// The last case, for as long as it may be its tear-down that comes next.
    last: Option<(Arc<str>, Case)>,
    /// Attempts by the hash of suite and case: names would fill the memory.
    attempts: HashMap<u64, u32>,
    times: Times,
    encoding: Encoding,
    totals: Totals,
}

impl<F: FnMut(CaseAttempt)> Report<F> {
    fn new(limits: Limits, each: F) -> Self {
        Self {
            limits,
            each,
            open: Vec::new(),
            names: String::new(),
            path: String::new(),
            suite: "".into(),
            case: None,
            text: Vec::new(),
            last: None,
            attempts: HashMap::new(),
            times: Times::default(),
            encoding: Encoding::default(),
            totals: Totals::default(),
        }
    }

    /// Bytes of the next text that are worth keeping.
    fn wants(&self) -> usize {
        match self.open.last() {
            None => OUTSIDE,
            Some((_, Frame::Ending | Frame::Trace)) => {
                self.limits.message.saturating_sub(self.text.len())
            }
            Some(_) => 0,
        }
    }

    fn text(&mut self, text: Text) -> Result<(), Reason> {
        match self.open.last() {
            None if !text.is_blank => self.outside(&text.head),
            Some((_, Frame::Ending | Frame::Trace)) => {
                self.text.extend(text.head);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Documents in a row begin with a byte order mark each.
    fn outside(&self, head: &[u8]) -> Result<(), Reason> {
        if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
            return Err(Reason::Encoding("UTF-16".to_owned()));
        }
        let is_mark = |text: &str| text.replace(BYTE_ORDER_MARK, "").trim().is_empty();
        match str::from_utf8(head).is_ok_and(is_mark) && head.len() < OUTSIDE {
            true => Ok(()),
            false => Err(Reason::Stray),
        }
    }

    fn event(&mut self, event: Event) -> Result<(), Reason> {
        match event {
            Event::Start(tag) => self.start(&tag),
            Event::Empty(tag) => {
                self.start(&tag)?;
                self.end()
            }
            Event::End(_) => self.end(),
            Event::Decl(declaration) => {
                self.encoding = Encoding::declared(&declaration);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn start(&mut self, tag: &BytesStart) -> Result<(), Reason> {
        let name = tag.local_name();
        let element: &str = name.as_ref();
        if self.open.len() >= self.limits.depth {
            return Err(Reason::Depth(self.limits.depth));
        }
        let frame = match (self.open.last().map(|(_, frame)| frame), element) {
            (None, "testsuites" | "testsuite") => {
                self.totals.documents += 1;
                self.suite(tag)?
            }
            (None, _) => return Err(Reason::Root(element.chars().take(80).collect())),
            (Some(Frame::Suite { .. }), "testsuites" | "testsuite") => self.suite(tag)?,
            (Some(Frame::Suite { .. }), "testcase") => self.case(tag)?,
            (Some(Frame::Suite { .. }), "failure" | "error") => {
                self.case = Some(self.suite_itself());
                self.ending(tag, Kind::Failed)?
            }
            (Some(Frame::Case), "testcase" | "testsuite") => return Err(Reason::CaseInCase),
            (Some(Frame::Case), _) => match Kind::of(element) {
                Some(kind) => self.ending(tag, kind)?,
                None => Frame::Other,
            },
            (Some(Frame::Ending), "stackTrace") => Frame::Trace,
            _ => Frame::Other,
        };
        self.open.push((self.names.len(), frame));
        self.names.push_str(element);
        Ok(())
    }

    fn suite(&mut self, tag: &BytesStart) -> Result<Frame, Reason> {
        let mut name = String::new();
        let mut times = Times::default();
        self.encoding.attributes(tag, |key, value| match key {
            "name" => name = value,
            // Not kept, but it may show how this report writes times.
            "time" => _ = times.read(&value),
            _ => {}
        })?;
        self.fits("suite", &name)?;
        let path = self.path.len();
        if !name.is_empty() {
            self.path.push_str(if path > 0 { " > " } else { "" });
            self.path.push_str(&name);
        }
        self.suite = (&*self.path).into();
        self.totals.suites += u64::from(tag.local_name().as_ref() == "testsuite");
        Ok(Frame::Suite { path, name })
    }

    /// The name of the innermost suite that has one.
    fn suite_name(&self) -> String {
        let name = |(_, frame): &(usize, Frame)| match frame {
            Frame::Suite { name, .. } if !name.is_empty() => Some(name.clone()),
            _ => None,
        };
        self.open.iter().rev().find_map(name).unwrap_or_default()
    }

    fn suite_itself(&self) -> Case {
        let name = CaseName { class: self.suite_name(), name: String::new() };
        Case { is_suite: true, name, duration: None, status: Status::Ran, endings: Vec::new() }
    }

    fn case(&mut self, tag: &BytesStart) -> Result<Frame, Reason> {
        let (mut name, mut class, mut other_class, mut time) = (None, None, None, None);
        let mut status = Status::Ran;
        self.encoding.attributes(tag, |key, value| match key {
            "name" => name = Some(value),
            "classname" => class = Some(value),
            "class" => other_class = Some(value),
            "time" => time = Some(value),
            "status" | "result" if status == Status::Ran => status = Status::of(&value),
            _ => {}
        })?;
        let name = name.ok_or(Reason::Nameless)?;
        let class = class.or(other_class).filter(|class| !class.is_empty());
        let class = class.unwrap_or_else(|| self.suite_name());
        self.fits("name", &name)?;
        self.fits("class", &class)?;
        let duration = time.and_then(|time| self.times.read(&time));
        let name = CaseName { class, name };
        self.case = Some(Case { is_suite: false, name, duration, status, endings: Vec::new() });
        Ok(Frame::Case)
    }

    fn ending(&mut self, tag: &BytesStart, kind: Kind) -> Result<Frame, Reason> {
        let (mut message, mut class, mut time) = (String::new(), String::new(), None);
        self.encoding.attributes(tag, |key, value| match key {
            "message" => message = value,
            "type" => class = value,
            "time" => time = Some(value),
            _ => {}
        })?;
        let is_timeout = is_timeout(&class, &message);
        let duration = time.and_then(|time| self.times.read(&time));
        cut(&mut message, self.limits.message);
        let Some(case) = &mut self.case else { return Ok(Frame::Other) };
        self.text.clear();
        // Each may bring a message: what one case holds in memory is bounded.
        if case.endings.len() as u64 >= self.limits.attempts.min(MAX_ENDINGS) {
            return Ok(Frame::Other);
        }
        case.endings.push(Ending { kind, is_timeout, message, duration });
        Ok(Frame::Ending)
    }

    fn end(&mut self) -> Result<(), Reason> {
        let Some((begin, frame)) = self.open.pop() else { return Ok(()) };
        self.names.truncate(begin);
        match frame {
            Frame::Suite { path, .. } => {
                self.path.truncate(path);
                self.suite = (&*self.path).into();
            }
            Frame::Ending => {
                self.end_ending()?;
                if let Some((_, Frame::Suite { .. })) = self.open.last() {
                    self.end_case()?;
                }
            }
            Frame::Case => self.end_case()?,
            Frame::Trace | Frame::Other => {}
        }
        Ok(())
    }

    fn end_ending(&mut self) -> Result<(), Reason> {
        let text = self.message()?;
        if let Some(ending) = self.case.as_mut().and_then(|case| case.endings.last_mut()) {
            // Most runners begin the text with the message.
            let message = std::mem::take(&mut ending.message);
            let repeats = text.starts_with(message.trim());
            let message = if repeats { String::new() } else { message };
            ending.message = joined(message, text, self.limits.message);
        }
        Ok(())
    }

    /// The text of an ending, as far as it was kept.
    fn message(&mut self) -> Result<String, Reason> {
        let mut bytes = std::mem::take(&mut self.text);
        if bytes.len() >= self.limits.message
            && let Some(at) = bytes.iter().rposition(|&byte| byte == b'&')
            && !bytes[at..].contains(&b';')
        {
            bytes.truncate(at);
        }
        self.encoding.text(&bytes)
    }

    fn end_case(&mut self) -> Result<(), Reason> {
        let Some(case) = self.case.take() else { return Ok(()) };
        if let Some((suite, last)) = &mut self.last
            && *suite == self.suite
            && last.name == case.name
            && case.is_tear_down()
        {
            last.endings.extend(case.endings);
            return Ok(());
        }
        self.totals.cases += u64::from(!case.is_suite);
        let next = (self.suite.clone(), case);
        match self.last.replace(next) {
            Some((suite, case)) => self.hand_out(&suite, case),
            None => Ok(()),
        }
    }

    fn hand_out(&mut self, suite: &Arc<str>, case: Case) -> Result<(), Reason> {
        let mut hasher = DefaultHasher::new();
        (suite, &case.name).hash(&mut hasher);
        let count = self.attempts.entry(hasher.finish()).or_default();
        for result in case.attempts(self.limits.message) {
            *count += 1;
            self.totals.attempts += 1;
            if self.totals.attempts > self.limits.attempts {
                return Err(Reason::Attempts(self.limits.attempts));
            }
            (self.each)(CaseAttempt { suite: suite.clone(), attempt: *count, result });
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Totals, Reason> {
        if let Some(element) = self.innermost() {
            return Err(Reason::CutShort(element.to_owned()));
        }
        if self.totals.documents == 0 {
            return Err(Reason::Empty);
        }
        if let Some((suite, case)) = self.last.take() {
            self.hand_out(&suite, case)?;
        }
        Ok(self.totals)
    }

    /// The name of the element that was opened last, of those that are open.
    fn innermost(&self) -> Option<&str> {
        self.open.last().and_then(|(begin, _)| self.names.get(*begin..))
    }

    fn fits(&self, what: &'static str, name: &str) -> Result<(), Reason> {
        match name.len() > self.limits.name {
            true => Err(Reason::LongName(what, self.limits.name)),
            false => Ok(()),
        }
    }

    /// What is wrong, from what the XML reader says and from where the report ends.
    fn reason(&self, error: Error, input: &mut Input<impl Read>) -> Reason {
        if let Some(fault) = input.fault() {
            return fault;
        }
        let ends =
            matches!(error, Error::Syntax(_) | Error::IllFormed(IllFormedError::MissingEndTag(_)));
        match error {
            Error::Io(error) => Reason::Io(std::io::Error::new(error.kind(), error.to_string())),
            Error::Encoding(_) => self.encoding.error(),
            _ if ends && input.is_at_end() => {
                Reason::CutShort(self.innermost().unwrap_or("testsuites").to_owned())
            }
            other => Reason::Xml(other),
        }
    }
}
