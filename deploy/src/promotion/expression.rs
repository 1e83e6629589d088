//! Conditions in the Common Expression Language, bounded in what they may cost.
//!
//! An expression has at most [`MAX_BYTES`] bytes and [`MAX_NODES`] nodes. It looks through lists with `exists`, `all` and
//! `exists_one`, at most two deep, and builds none (`map` and `filter` could double a list again and again), so that it ends
//! after a known number of steps: there is nothing to interrupt. There are no regular expressions in it.

use std::collections::HashMap;
use std::fmt;

use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr};
use cel::objects::Map;
use cel::{Context, Env, IdedExpr, Value};

/// Bytes of an expression.
pub const MAX_BYTES: usize = 1_024;
const MAX_NODES: usize = 400;
/// Lists within lists that are looked through.
const MAX_LOOPS: usize = 2;
/// Brackets within brackets, for the parser.
const MAX_NESTING: u16 = 32;
/// Of the thread that parses: the parser's recursion is deep.
const STACK: usize = 32 << 20;
/// Characters of a message of the library.
const MAX_MESSAGE: usize = 400;

/// What an expression may ask about.
pub const VARIABLES: [&str; 3] = ["release", "environment", "now"];

/// A value of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    Text(String),
    Number(i64),
    List(Vec<String>),
}

/// The variables with their members.
pub type Operands = Vec<(&'static str, Vec<(&'static str, Operand)>)>;

/// An expression that was read.
#[derive(Clone)]
pub struct Expression {
    text: String,
    parsed: IdedExpr,
    asks_for_now: bool,
}

/// Why an expression is not taken, or has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    #[error("the expression has {0} bytes; at most {MAX_BYTES} are")]
    TooLong(usize),
    #[error("no expression in CEL: {0}")]
    Syntax(String),
    #[error("the expression has more than {MAX_NODES} parts")]
    TooLarge,
    #[error("lists are looked through within each other more than {MAX_LOOPS} deep")]
    Loops,
    #[error("map() and filter() are not supported: use exists() and all()")]
    Builds,
    #[error("{name} is not known; {hint}")]
    Unknown { name: String, hint: String },
    #[error("the expression cannot be evaluated: {0}")]
    Evaluate(String),
    #[error("the expression is neither true nor false, but {0}")]
    NoAnswer(String),
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_MESSAGE).collect()
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Expression {
    pub fn read(text: &str) -> Result<Self, ExpressionError> {
        if text.len() > MAX_BYTES {
            return Err(ExpressionError::TooLong(text.len()));
        }
        let source = text.to_owned();
        // In a thread of its own: whatever is written, it is this stack that it needs, and a parser that gives up by
        // a panic ends nothing else.
        let parsing = std::thread::Builder::new().stack_size(STACK).spawn(move || parse(&source));
        let parsing = parsing.map_err(|it| ExpressionError::Syntax(it.to_string()))?;
        let gave_up = |_| ExpressionError::Syntax("the parser gave up".to_owned());
        let (parsed, asks_for_now) = parsing.join().map_err(gave_up)??;
        Ok(Self { text: text.to_owned(), parsed, asks_for_now })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it may be true later although it is false now, for the same release.
    pub fn asks_for_now(&self) -> bool {
        self.asks_for_now
    }

    pub fn holds(&self, operands: &Operands) -> Result<bool, ExpressionError> {
        let mut context = Context::default();
        for (name, members) in operands {
            context.add_variable_from_value(*name, object(members));
        }
        match context.resolve(&self.parsed) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(ExpressionError::NoAnswer(cut(&format!("{:?}", other.type_of())))),
            Err(error) => Err(ExpressionError::Evaluate(cut(&error.to_string()))),
        }
    }
}

fn object(members: &[(&'static str, Operand)]) -> Value {
    let value = |operand: &Operand| match operand {
        Operand::Text(text) => Value::from(text.as_str()),
        Operand::Number(number) => Value::Int(*number),
        Operand::List(list) => Value::from(list.clone()),
    };
    let members = members.iter().map(|(name, operand)| ((*name).to_owned(), value(operand)));
    Value::Map(Map::from(members.collect::<HashMap<_, _>>()))
}

/// The expression, and whether it asks what time it is.
fn parse(source: &str) -> Result<(IdedExpr, bool), ExpressionError> {
    let parser = Env::stdlib().parser().max_recursion_depth(MAX_NESTING);
    let parsed = parser.parse(source);
    let parsed = parsed.map_err(|it| ExpressionError::Syntax(cut(&it.to_string())))?;
    let mut walk = Walk::default();
    walk.check(&parsed)?;
    let asks_for_now = walk.asks_for_now;
    Ok((parsed, asks_for_now))
}

/// Counts the parts of an expression, and looks at its loops and variables.
#[derive(Default)]
struct Walk<'e> {
    nodes: usize,
    loops: usize,
    /// Variables of the loops around.
    bound: Vec<&'e str>,
    asks_for_now: bool,
}

impl<'e> Walk<'e> {
    fn check(&mut self, expr: &'e IdedExpr) -> Result<(), ExpressionError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(ExpressionError::TooLarge);
        }
        match &expr.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.variable(name),
            Expr::Call(call) => self.all(call.target.as_deref().into_iter().chain(&call.args)),
            Expr::List(list) => self.all(&list.elements),
            Expr::Select(select) => self.check(&select.operand),
            Expr::Map(map) => self.all(map.entries.iter().flat_map(|it| entry(&it.expr))),
            Expr::Struct(made) => self.all(made.entries.iter().flat_map(|it| entry(&it.expr))),
            Expr::Comprehension(inner) => self.comprehension(inner),
        }
    }

    fn all(
        &mut self,
        parts: impl IntoIterator<Item = &'e IdedExpr>,
    ) -> Result<(), ExpressionError> {
        parts.into_iter().try_for_each(|it| self.check(it))
    }

    fn variable(&mut self, name: &'e str) -> Result<(), ExpressionError> {
        // Names that begin so are the library's own.
        if self.bound.contains(&name) || name.starts_with('@') {
            return Ok(());
        }
        if !VARIABLES.contains(&name.trim_start_matches('.')) {
            let hint = format!("known are {}", VARIABLES.join(", "));
            return Err(ExpressionError::Unknown { name: cut(name), hint });
        }
        self.asks_for_now |= name.trim_start_matches('.') == "now";
        Ok(())
    }

    fn comprehension(&mut self, inner: &'e ComprehensionExpr) -> Result<(), ExpressionError> {
        if matches!(inner.accu_init.expr, Expr::List(_) | Expr::Map(_)) {
            return Err(ExpressionError::Builds);
        }
        if self.loops >= MAX_LOOPS {
            return Err(ExpressionError::Loops);
        }
        self.check(&inner.iter_range)?;
        let outside = self.bound.len();
        let names = [&inner.iter_var, &inner.accu_var].into_iter().chain(&inner.iter_var2);
        self.bound.extend(names.map(String::as_str));
        self.loops += 1;
        self.all([&inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result])?;
        self.loops -= 1;
        self.bound.truncate(outside);
        Ok(())
    }
}

fn entry(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}
