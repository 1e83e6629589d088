//! The order of environments: each comes behind those whose releases it takes.

use std::collections::BTreeMap;

/// The names in an order in which each comes behind all that it follows; or the names of a circle, in its order.
pub fn order(after: &BTreeMap<String, Vec<String>>) -> Result<Vec<String>, Vec<String>> {
    let mut done: Vec<String> = Vec::with_capacity(after.len());
    let mut left: Vec<&String> = after.keys().collect();
    while !left.is_empty() {
        let before = left.len();
        left.retain(|name| {
            let ready = after.get(*name).is_none_or(|it| it.iter().all(|it| done.contains(it)));
            if ready {
                done.push((*name).clone());
            }
            !ready
        });
        if left.len() == before {
            return Err(circle(after, &done, &left));
        }
    }
    Ok(done)
}

/// Whatever is left follows something that is left: going on and on leads into the circle.
fn circle(after: &BTreeMap<String, Vec<String>>, done: &[String], left: &[&String]) -> Vec<String> {
    let mut path: Vec<String> = Vec::new();
    let mut at = left.first().map(|it| (*it).clone());
    while let Some(name) = at {
        if let Some(start) = path.iter().position(|it| *it == name) {
            return path.split_off(start);
        }
        at = after.get(&name).and_then(|it| it.iter().find(|it| !done.contains(it)).cloned());
        path.push(name);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
        let owned = |it: &[&str]| it.iter().map(|it| (*it).to_owned()).collect();
        edges.iter().map(|(name, after)| ((*name).to_owned(), owned(after))).collect()
    }

    #[test]
    fn each_comes_behind_what_it_follows() {
        let diamond = graph(&[("a", &["b", "c"]), ("b", &["z"]), ("c", &["z"]), ("z", &[])]);
        assert_eq!(order(&diamond).unwrap(), ["z", "b", "c", "a"]);
    }

    #[test]
    fn a_circle_is_named_without_what_leads_to_it() {
        let wrong = graph(&[("dev", &[]), ("prod", &["x"]), ("x", &["y"]), ("y", &["x", "dev"])]);
        assert_eq!(order(&wrong).unwrap_err(), ["x", "y"]);
        assert_eq!(order(&graph(&[("a", &["a"])])).unwrap_err(), ["a"]);
    }
}
