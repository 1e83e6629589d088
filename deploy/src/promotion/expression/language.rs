//! The language itself, by a library that parses and evaluates it.

use std::collections::HashMap;

use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr};
use cel::objects::Map;
use cel::{Context, Env, IdedExpr, Value};

use super::terms::{ExpressionError, MAX_LOOPS, MAX_NODES, Operand, Operands};

/// What an expression may ask about.
const VARIABLES: [&str; 3] = ["release", "environment", "now"];
/// Brackets within brackets, for the parser.
const MAX_NESTING: u16 = 32;
/// Bytes of the stack of the thread that parses: the parser's recursion is deep.
const STACK: usize = 32 << 20;
/// Characters of a message of the library.
const MAX_MESSAGE: usize = 400;

/// An expression that was read, and whether it asks what time it is.
#[derive(Clone)]
pub struct Parsed {
    expression: IdedExpr,
    asks_for_now: bool,
}

impl Parsed {
    pub fn read(text: &str) -> Result<Self, ExpressionError> {
        let source = text.to_owned();
        // In a thread of its own: whatever is written, it is this stack that it needs, and a parser that gives up by
        // a panic ends nothing else.
        let parsing = std::thread::Builder::new().stack_size(STACK).spawn(move || parse(&source));
        let parsing = parsing.map_err(|it| ExpressionError::Syntax(it.to_string()))?;
        let gave_up = |_| ExpressionError::Syntax("the parser gave up".to_owned());
        let (expression, asks_for_now) = parsing.join().map_err(gave_up)??;
        Ok(Self { expression, asks_for_now })
    }

    pub fn asks_for_now(&self) -> bool {
        self.asks_for_now
    }

    pub fn holds(&self, operands: &Operands) -> Result<bool, ExpressionError> {
        let mut context = Context::default();
        for (name, members) in operands {
            context.add_variable_from_value(*name, object(members));
        }
        match context.resolve(&self.expression) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(ExpressionError::NoAnswer(cut(&format!("{:?}", other.type_of())))),
            Err(error) => Err(ExpressionError::Evaluate(cut(&error.to_string()))),
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_MESSAGE).collect()
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
