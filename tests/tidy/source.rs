//! What one source file says of modules and types: what it declares, imports and names. No macro is
//! expanded and no type is known; that is enough to see which file needs which.

use std::collections::{BTreeSet, HashSet};
use std::iter::Peekable;
use std::str::Chars;

/// The names from the crate's root to a module; empty for the root itself.
pub type Module = Vec<String>;

/// A path as it is written, in the module where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub within: Module,
    pub segments: Vec<String>,
}

/// One name that a `use` brings into its module.
#[derive(Debug, Clone)]
pub struct Import {
    pub path: Written,
    /// The name that the import has in its module, or `*` for all names of the imported module.
    pub name: String,
    pub public: bool,
}

#[derive(Debug, Default)]
pub struct Source {
    /// Modules that the file declares, whether in files of their own or not.
    pub modules: BTreeSet<Module>,
    /// Those of `modules` that only tests have.
    pub tests: BTreeSet<Module>,
    pub imports: Vec<Import>,
    /// Paths of at least two names that stand outside of `use`.
    pub paths: Vec<Written>,
    /// The module and the name of everything that the file defines.
    pub defined: HashSet<(Module, String)>,
    /// Every word that stands outside of `use`.
    pub words: HashSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    /// The sign `::`.
    Of,
    Sign(char),
}

const DEFINES: [&str; 9] =
    ["fn", "struct", "enum", "trait", "type", "const", "static", "union", "macro_rules"];
const DEFINES_TYPES: [&str; 5] = ["struct", "enum", "union", "type", "trait"];
/// Words that begin an item. An item ends with a semicolon or a block, while a field ends with a comma.
const BEGINS: [&str; 14] = [
    "fn",
    "struct",
    "enum",
    "trait",
    "type",
    "const",
    "static",
    "union",
    "macro_rules",
    "mod",
    "impl",
    "use",
    "unsafe",
    "async",
];

/// Reads `text` as the file of `module`.
pub fn read(module: &Module, text: &str) -> Source {
    let mut reader = Reader { tokens: tokens(text), at: 0, blocks: Vec::new(), root: module };
    let mut source = Source::default();
    while reader.at < reader.tokens.len() {
        reader.step(&mut source);
    }
    source
}

/// The name of each type that a text defines, tests and associated types included.
pub fn types(text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let pairs = tokens.windows(2).filter_map(|pair| match pair {
        [Token::Word(kind), Token::Word(name)] if DEFINES_TYPES.contains(&kind.as_str()) => {
            Some(name.clone())
        }
        _ => None,
    });
    pairs.collect()
}

struct Reader<'a> {
    tokens: Vec<Token>,
    at: usize,
    /// For each open block its name if it is a module, otherwise `None`.
    blocks: Vec<Option<String>>,
    root: &'a Module,
}

impl Reader<'_> {
    fn within(&self) -> Module {
        self.root.iter().chain(self.blocks.iter().flatten()).cloned().collect()
    }

    fn is(&self, at: usize, sign: char) -> bool {
        self.tokens.get(at) == Some(&Token::Sign(sign))
    }

    fn word(&self, at: usize) -> Option<&str> {
        match self.tokens.get(at) {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    fn step(&mut self, source: &mut Source) {
        if self.is(self.at, '#') {
            return self.attribute(source);
        }
        let Some(word) = self.word(self.at).map(str::to_owned) else {
            match self.tokens[self.at] {
                Token::Sign('{') => self.blocks.push(None),
                Token::Sign('}') => drop(self.blocks.pop()),
                _ => {}
            }
            self.at += 1;
            return;
        };
        match word.as_str() {
            "use" => self.imports(source),
            "mod" => self.declared(source, false),
            _ => self.named(source, word),
        }
    }

    /// Passes over an attribute, which names nothing, and over the item behind it if that is for tests only.
    fn attribute(&mut self, source: &mut Source) {
        let end = self.closing(self.at + 1 + usize::from(self.is(self.at + 1, '!')));
        let words: Vec<_> = (self.at..end).filter_map(|at| self.word(at)).collect();
        let negated = words.contains(&"not");
        let for_tests = words.first() == Some(&"cfg") && words.contains(&"test") && !negated;
        self.at = end + 1;
        if for_tests {
            self.pass_over(source);
        }
    }

    /// Returns the index of the token that closes the bracket at `at`.
    fn closing(&self, mut at: usize) -> usize {
        let mut open = 0;
        while let Some(token) = self.tokens.get(at) {
            match token {
                Token::Sign('(' | '[' | '{') => open += 1,
                Token::Sign(')' | ']' | '}') => open -= 1,
                _ => {}
            }
            if open == 0 {
                return at;
            }
            at += 1;
        }
        at
    }

    fn pass_over(&mut self, source: &mut Source) {
        while self.is(self.at, '#') {
            self.at = self.closing(self.at + 1) + 1;
        }
        let mut is_item = false;
        let mut is_use = false;
        while let Some(token) = self.tokens.get(self.at) {
            match token {
                Token::Word(word) if word == "mod" && !is_item => {
                    return self.declared(source, true);
                }
                Token::Word(word) => {
                    is_use |= word == "use" && !is_item;
                    is_item |= BEGINS.contains(&word.as_str());
                }
                Token::Sign('{') => {
                    self.at = self.closing(self.at);
                    if !is_use {
                        self.at += 1;
                        return;
                    }
                }
                Token::Sign('(' | '[') => self.at = self.closing(self.at),
                Token::Sign(';') => {
                    self.at += 1;
                    return;
                }
                Token::Sign(',') if !is_item => return,
                Token::Sign('}') => return,
                _ => {}
            }
            self.at += 1;
        }
    }

    fn declared(&mut self, source: &mut Source, for_tests: bool) {
        let Some(name) = self.word(self.at + 1).map(str::to_owned) else {
            self.at += 1;
            return;
        };
        let mut module = self.within();
        module.push(name.clone());
        if for_tests {
            source.tests.insert(module.clone());
        }
        source.modules.insert(module);
        self.at += 2;
        if !self.is(self.at, '{') {
            return;
        }
        if for_tests {
            self.at = self.closing(self.at) + 1;
        } else {
            self.blocks.push(Some(name));
            self.at += 1;
        }
    }

    fn imports(&mut self, source: &mut Source) {
        let before = self.at.checked_sub(1).map(|at| &self.tokens[at]);
        let public = match before {
            Some(Token::Word(word)) => word == "pub",
            Some(Token::Sign(sign)) => *sign == ')',
            _ => false,
        };
        self.at += 1;
        let mut found = Vec::new();
        self.tree(&mut Vec::new(), &mut found);
        let within = self.within();
        source.imports.extend(found.into_iter().map(|(segments, name)| Import {
            path: Written { within: within.clone(), segments },
            name,
            public,
        }));
    }

    /// Reads one branch of a `use`. Adds each path in it to `found`, with the name that it brings in.
    fn tree(&mut self, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, String)>) {
        let length = path.len();
        while let Some(token) = self.tokens.get(self.at).cloned() {
            match token {
                Token::Word(word) if word == "as" => {
                    let name = self.word(self.at + 1).unwrap_or("_").to_owned();
                    found.push((std::mem::take(path), name));
                    self.at += 2;
                    return;
                }
                Token::Word(word) => path.push(word),
                Token::Sign('*') => path.push("*".to_owned()),
                Token::Sign('{') => {
                    self.at += 1;
                    while self.at < self.tokens.len() && !self.is(self.at, '}') {
                        self.tree(&mut path.clone(), found);
                        self.at += usize::from(self.is(self.at, ','));
                    }
                    self.at += 1;
                    return;
                }
                Token::Of => {}
                Token::Sign(_) => break,
            }
            self.at += 1;
        }
        if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
            path.pop();
        }
        if path.len() >= length.max(1) {
            let name = path.last().cloned().unwrap_or_default();
            found.push((path.clone(), name));
        }
    }

    fn named(&mut self, source: &mut Source, word: String) {
        let within = self.within();
        if DEFINES.contains(&word.as_str()) {
            let name = self.at + 1 + usize::from(self.is(self.at + 1, '!'));
            if let Some(name) = self.word(name) {
                source.defined.insert((within, name.to_owned()));
            }
        }
        let before = self.at.checked_sub(1).map(|at| &self.tokens[at]);
        let goes_on = before == Some(&Token::Of) || before == Some(&Token::Word("in".to_owned()));
        source.words.insert(word.clone());
        self.at += 1;
        let mut segments = vec![word];
        while self.tokens.get(self.at) == Some(&Token::Of) {
            let Some(next) = self.word(self.at + 1) else { break };
            source.words.insert(next.to_owned());
            segments.push(next.to_owned());
            self.at += 2;
        }
        if segments.len() > 1 && !goes_on {
            source.paths.push(Written { within: self.within(), segments });
        }
    }
}

/// The words and signs of a text, without comments and what stands between quotes.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(sign) = rest.next() {
        match sign {
            '/' if rest.peek() == Some(&'/') => drop(rest.by_ref().find(|next| *next == '\n')),
            '/' if rest.peek() == Some(&'*') => block_comment(&mut rest),
            '"' => quoted(&mut rest),
            '\'' => character(&mut rest),
            ':' if rest.peek() == Some(&':') => {
                rest.next();
                tokens.push(Token::Of);
            }
            _ if sign.is_alphanumeric() || sign == '_' => {
                let mut word = String::from(sign);
                while let Some(next) = rest.next_if(|next| next.is_alphanumeric() || *next == '_') {
                    word.push(next);
                }
                if matches!(word.as_str(), "r" | "br" | "cr") && raw(&mut rest) {
                    continue;
                }
                tokens.push(Token::Word(word));
            }
            _ if sign.is_whitespace() => {}
            _ => tokens.push(Token::Sign(sign)),
        }
    }
    tokens
}

fn block_comment(rest: &mut Peekable<Chars<'_>>) {
    let (mut open, mut last) = (0, '/');
    for sign in rest.by_ref() {
        match (last, sign) {
            ('/', '*') => open += 1,
            ('*', '/') => open -= 1,
            _ => {
                last = sign;
                continue;
            }
        }
        last = ' ';
        if open == 0 {
            return;
        }
    }
}

fn quoted(rest: &mut Peekable<Chars<'_>>) {
    while let Some(sign) = rest.next() {
        match sign {
            '\\' => drop(rest.next()),
            '"' => return,
            _ => {}
        }
    }
}

/// Passes over a character in quotes, or over the quote of a lifetime, whose name is then read as a word that means
/// nothing here.
fn character(rest: &mut Peekable<Chars<'_>>) {
    let mut ahead = rest.clone();
    match (ahead.next(), ahead.next()) {
        (Some('\\'), _) => {
            rest.next();
            rest.next();
            while rest.next().is_some_and(|sign| sign != '\'') {}
        }
        (Some(_), Some('\'')) => drop((rest.next(), rest.next())),
        _ => while rest.next_if(|sign| sign.is_alphanumeric() || *sign == '_').is_some() {},
    }
}

/// Passes over a raw string after its `r`. Returns `false` if what follows is no raw string.
fn raw(rest: &mut Peekable<Chars<'_>>) -> bool {
    let mut ahead = rest.clone();
    let mut fence = 0;
    while ahead.next_if_eq(&'#').is_some() {
        fence += 1;
    }
    if ahead.next() != Some('"') {
        return false;
    }
    while let Some(sign) = ahead.next() {
        let mut closing = ahead.clone();
        if sign == '"' && (0..fence).all(|_| closing.next() == Some('#')) {
            *rest = closing;
            return true;
        }
    }
    *rest = ahead;
    true
}
