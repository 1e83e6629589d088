//! Policies of environments, rules of windows, expressions, and lines of the audit log: whatever they hold, they are read
//! within their limits or refused, and what was read answers every question.
#![no_main]

use kiln_deploy::audit::{Line, Verifier};
use kiln_deploy::promotion::{Expression, Operand, Operands, Pipeline, Rule};
use kiln_deploy::timestamp::Timestamp;
use libfuzzer_sys::fuzz_target;

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

fuzz_target!(|data: &[u8]| {
    if let Ok(line) = Line::read(data) {
        let written = line.write().expect("what was read can be written");
        assert_eq!(Line::read(&written).expect("what was written can be read"), line);
    }
    let mut verifier = Verifier::new(None, None, Timestamp::from_unix(0));
    // No line of a fuzzer has the hash of what it says, and what holds nothing does not hold.
    let _ = verifier.line(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(rule) = text.parse::<Rule>() {
        let day = "2028-02-29".parse().expect("a day");
        let _ = rule.is_on(day, day);
    }
    if let Ok(expression) = Expression::read(text) {
        let _ = expression.holds(&operands());
    }
    if let Ok(pipeline) = Pipeline::read(text) {
        assert_eq!(pipeline.order.len(), pipeline.environments.len());
        for name in &pipeline.order {
            let environment = &pipeline.environments[name];
            assert!(environment.after.iter().all(|it| pipeline.environments.contains_key(it)));
            for freeze in pipeline.freezes_of(name) {
                let at = Timestamp::from_unix(1_780_000_000);
                assert!(freeze.covers(at).is_none_or(|until| until > at));
            }
        }
    }
});
