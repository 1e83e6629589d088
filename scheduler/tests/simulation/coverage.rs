//! Which functions and branches of the script a simulation has been through.
//!
//! The script is text when it is loaded, so that marks cost nobody else anything; the state machine is compiled, and has none.
//! Where the script came to a branch the machine came to that branch's twin, or did what has the same effects: both are held
//! against each other after each event. What the machine has beyond that the compiler counts (docs/development.md).

use std::collections::BTreeSet;

use kiln_scheduler::engine::redis::script::{FUNCTION, PARTS};

/// The script, which also says at which marks it came by.
pub struct Marked {
    pub source: String,
    marks: Vec<Mark>,
    reached: BTreeSet<usize>,
}

/// The beginning of a function or of a branch.
struct Mark {
    file: &'static str,
    line: usize,
    /// The name of the function that begins here.
    function: Option<String>,
}

/// Notes marks in `HIT`, and gives them back.
const PROLOGUE: &str = "local HIT = {}
local function hits() local all = {} for n in pairs(HIT) do all[#all + 1] = n end return all end
";
const LAST: &str = "table.concat(reply) }";

impl Marked {
    pub fn new() -> Self {
        let (mut source, mut marks) = (PROLOGUE.to_owned(), Vec::new());
        for (file, text) in PARTS {
            Marker { file, text, line: 1, marks: &mut marks }.write(&mut source);
        }
        let end = source.rfind(LAST).expect("the script ends with its effects");
        source.replace_range(end..end + LAST.len(), "table.concat(reply), hits() }");
        source.push_str(&format!("return {FUNCTION}(KEYS, ARGV)\n"));
        Self { source, marks, reached: BTreeSet::new() }
    }

    pub fn reached(&mut self, marks: Vec<usize>) {
        self.reached.extend(marks);
    }

    fn missed(&self) -> impl Iterator<Item = &Mark> {
        let numbered = self.marks.iter().enumerate();
        numbered.filter(|(number, _)| !self.reached.contains(number)).map(|(_, mark)| mark)
    }

    /// Functions that were never called, but for those of `except`, which are files.
    pub fn functions_missed(&self, except: &[&str]) -> Vec<&str> {
        let missed = self.missed().filter(|mark| !except.contains(&mark.file));
        missed.filter_map(|mark| mark.function.as_deref()).collect()
    }

    /// The branches to which the script never came, as `file:line`.
    pub fn branches_missed(&self) -> Vec<String> {
        self.missed().map(|mark| format!("{}:{}", mark.file, mark.line)).collect()
    }
}

/// Copies a file of the script, with a mark where a function or a branch begins.
struct Marker<'a> {
    file: &'static str,
    text: &'static str,
    line: usize,
    marks: &'a mut Vec<Mark>,
}

impl Marker<'_> {
    fn write(mut self, out: &mut String) {
        while let Some(first) = self.text.chars().next() {
            let length = match first {
                '-' if self.text.starts_with("--") => self.text.find('\n').unwrap_or_default(),
                '\'' => 2 + self.text[1..].find('\'').expect("a string ends"),
                c if c.is_alphabetic() || c == '_' => {
                    let rest = |c: char| !c.is_alphanumeric() && c != '_';
                    self.text.find(rest).unwrap_or(self.text.len())
                }
                c => c.len_utf8(),
            };
            match self.copy(length, out) {
                "function" => self.begin_function(out),
                "then" | "else" | "do" => self.mark(None, out),
                _ => {}
            }
        }
    }

    fn copy(&mut self, length: usize, out: &mut String) -> &'static str {
        let (copied, rest) = self.text.split_at(length);
        self.text = rest;
        self.line += copied.matches('\n').count();
        out.push_str(copied);
        copied
    }

    fn begin_function(&mut self, out: &mut String) {
        let end = self.text.find(')').expect("parameters end") + 1;
        let (name, _) = self.copy(end, out).split_once('(').expect("parameters begin");
        let name = name.trim().trim_start_matches("Q.");
        self.mark(Some(name.to_owned()).filter(|name| !name.is_empty()), out);
    }

    fn mark(&mut self, function: Option<String>, out: &mut String) {
        out.push_str(&format!(" HIT[{}] = true ", self.marks.len()));
        self.marks.push(Mark { file: self.file, line: self.line, function });
    }
}
