//! Expressions: what they answer, and that none costs more than it may.

use super::super::expression::{Expression, ExpressionError, MAX_BYTES, Operand, Operands};

fn operands() -> Operands {
    let text = |it: &str| Operand::Text(it.to_owned());
    let signers = (0..64).map(|it| format!("key-{it}")).collect();
    let release = vec![
        ("branch", text("main")),
        ("level", Operand::Number(3)),
        ("signers", Operand::List(signers)),
    ];
    vec![
        ("release", release),
        ("environment", vec![("name", text("prod"))]),
        ("now", vec![("unix", Operand::Number(1_000))]),
    ]
}

fn holds(text: &str) -> Result<bool, ExpressionError> {
    Expression::read(text)?.holds(&operands())
}

#[test]
fn expressions_ask_about_a_release() {
    assert_eq!(holds("release.level >= 3 && release.branch == 'main'"), Ok(true));
    assert_eq!(holds("release.branch.startsWith('release/')"), Ok(false));
    assert_eq!(holds("release.signers.exists(it, it == 'key-7')"), Ok(true));
    assert_eq!(holds("'key-7' in release.signers && size(release.signers) == 64"), Ok(true));
    assert_eq!(holds("environment.name != 'prod' || now.unix > 2000"), Ok(false));
    assert!(Expression::read("now.unix > 1").unwrap().asks_for_now());
    assert!(!Expression::read("release.level > 1").unwrap().asks_for_now());
    let bound = Expression::read("release.signers.all(now, now != '')").unwrap();
    assert!(!bound.asks_for_now());
    let unbound = Expression::read("release.signers.all(it, true) && it == ''");
    assert!(matches!(unbound, Err(ExpressionError::Unknown { .. })));
}

#[test]
fn what_has_no_answer_says_why() {
    assert!(matches!(holds("release.level +"), Err(ExpressionError::Syntax(_))));
    assert!(matches!(holds("relaese.level == 3"), Err(ExpressionError::Unknown { .. })));
    assert!(matches!(holds("release.lvl == 3"), Err(ExpressionError::Evaluate(_))));
    assert!(matches!(holds("release.level"), Err(ExpressionError::NoAnswer(_))));
    assert!(matches!(holds("release.level / 0 == 1"), Err(ExpressionError::Evaluate(_))));
    assert!(matches!(holds("release.branch.matches('.*')"), Err(ExpressionError::Evaluate(_))));
}

#[test]
fn lists_are_looked_through_and_never_built() {
    let doubling = format!("[1]{} == [1]", ".map(it, [it, it])".repeat(8));
    assert_eq!(holds(&doubling), Err(ExpressionError::Builds));
    assert_eq!(holds("release.signers.filter(it, it != '') == []"), Err(ExpressionError::Builds));
    let two = "release.signers.all(a, release.signers.exists(b, a == b))";
    assert_eq!(holds(two), Ok(true));
    let three = "release.signers.all(a, release.signers.all(b, release.signers.all(c, true)))";
    assert_eq!(holds(three), Err(ExpressionError::Loops));
}

#[test]
fn nothing_overflows_the_stack_or_takes_for_ever() {
    assert_eq!(holds(&" ".repeat(MAX_BYTES + 1)), Err(ExpressionError::TooLong(MAX_BYTES + 1)));
    let half = MAX_BYTES / 2;
    let deep = [
        format!("{}true{}", "(".repeat(half - 2), ")".repeat(half - 2)),
        format!("{}true", "!".repeat(MAX_BYTES - 4)),
        format!("{}1", "-".repeat(MAX_BYTES - 1)),
        "[".repeat(MAX_BYTES),
        format!("{}1{}", "[".repeat(half - 1), "]".repeat(half - 1)),
        "true?".repeat(200),
        format!("{}true", "true?true:".repeat(100)),
        format!("release{}", ".a".repeat(500)),
        format!("{}true", "true||".repeat(170)),
        "{".repeat(MAX_BYTES),
        "'".repeat(MAX_BYTES),
        "\u{0}".repeat(MAX_BYTES),
    ];
    for text in deep {
        // Some are true; whatever they are, they end.
        let _ = holds(&text);
    }
}
