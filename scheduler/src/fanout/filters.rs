//! Lists of cases as their runner reads them in `TESTBRIDGE_TEST_ONLY`. No I/O.
//!
//! The last list is what all others leave: so cases that are not known yet run as well, and each exactly once.

use super::wish::Filter;
use crate::reports::CaseTime;

/// Linux takes 128 KiB in one variable; the Command message is to stay small as well.
const MAX_BYTES: usize = 96 << 10;

/// A filter for each list. `None`: they cannot be said exactly, or are too long.
pub fn filters(filter: Filter, cases: &[CaseTime], lists: &[Vec<usize>]) -> Option<Vec<String>> {
    let (last, others) = lists.split_last()?;
    if others.is_empty() || last.is_empty() {
        return None;
    }
    let names = |list: &Vec<usize>| -> Option<Vec<String>> {
        list.iter().map(|place| name(filter, cases.get(*place)?)).collect()
    };
    let mut all: Vec<String> = Vec::with_capacity(lists.len());
    let mut taken = Vec::new();
    for list in others {
        let names = names(list)?;
        all.push(only(filter, &names));
        taken.extend(names);
    }
    all.push(all_but(filter, &taken));
    all.iter().all(|text| text.len() <= MAX_BYTES).then_some(all)
}

fn name(filter: Filter, case: &CaseTime) -> Option<String> {
    let CaseTime { class, name, .. } = case;
    let is_plain = !class.is_empty() && !name.is_empty();
    let has = |signs: &str| {
        class.chars().chain(name.chars()).any(|c| signs.contains(c) || c.is_control())
    };
    match filter {
        Filter::Googletest if is_plain && !has(":-*?") => Some(format!("{class}.{name}")),
        // The runner writes parameters behind the method's name, and looks for the filter without them.
        Filter::Java if is_plain && !has("[](){}#,; ") => {
            Some(format!("{}#{}", literal(class), literal(name)))
        }
        _ => None,
    }
}

/// A regular expression that is the text itself.
fn literal(text: &str) -> String {
    let mut literal = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\^$.|?*+".contains(c) {
            literal.push('\\');
        }
        literal.push(c);
    }
    literal
}

fn only(filter: Filter, names: &[String]) -> String {
    match filter {
        Filter::Googletest => names.join(":"),
        Filter::Java => format!("^(?:{})$", names.join("|")),
    }
}

fn all_but(filter: Filter, names: &[String]) -> String {
    match filter {
        Filter::Googletest => format!("*-{}", names.join(":")),
        Filter::Java => format!("^(?!(?:{})$)", names.join("|")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(class: &str, name: &str) -> CaseTime {
        CaseTime { class: class.to_owned(), name: name.to_owned(), ran: true, ms: 1 }
    }

    #[test]
    fn the_last_list_is_what_the_others_leave() {
        let cases = [case("S", "a"), case("S", "b"), case("T", "c")];
        let lists = [vec![0, 2], vec![1]];
        let of = |filter| filters(filter, &cases, &lists).unwrap();
        assert_eq!(of(Filter::Googletest), ["S.a:T.c", "*-S.a:T.c"]);
        assert_eq!(of(Filter::Java), ["^(?:S#a|T#c)$", "^(?!(?:S#a|T#c)$)"]);
    }

    #[test]
    fn what_cannot_be_said_exactly_is_not_said() {
        for (filter, class, name) in [
            (Filter::Googletest, "S", "a*"),
            (Filter::Googletest, "", "a"),
            (Filter::Java, "S", "a[1]"),
            (Filter::Java, "S", "a\nb"),
        ] {
            let cases = [case(class, name), case("S", "b")];
            assert_eq!(filters(filter, &cases, &[vec![0], vec![1]]), None, "{class} {name}");
        }
        let cases = [case("S", &"a".repeat(MAX_BYTES)), case("S", "b")];
        assert_eq!(filters(Filter::Googletest, &cases, &[vec![0], vec![1]]), None);
        assert_eq!(
            filters(Filter::Googletest, &cases, &[vec![0, 1]]),
            None,
            "one list is no fan-out"
        );
        assert_eq!(
            filters(Filter::Java, &[case("a.B$C", "d")], &[vec![0], vec![0]]).unwrap()[0],
            r"^(?:a\.B\$C#d)$"
        );
    }
}
