//! Each function of the script stands in the file beside its twin of the state machine, under the
//! same name and in the same order.

/// Lists of a file's name, its text in Rust and its text in Lua.
macro_rules! twins {
    ($($name:literal),* $(,)?) => {
        [$((
            $name,
            include_str!(concat!("../../src/queue/", $name, ".rs")),
            include_str!(concat!("../../src/queue/", $name, ".lua")),
        )),*]
    };
}

const TWINS: [(&str, &str, &str); 9] = twins![
    "quotas", "ready", "lanes", "fleet", "tasks", "waiters", "workers", "leases", "dispatch",
];

/// Functions of the state machine that the script does not need, or does in one line.
const MACHINE_ALONE: &[&str] = &[
    // Constructors, what others read, and checks.
    "new",
    "quota",
    "totals",
    "owner",
    "running",
    "named",
    "offer",
    "check",
    "next",
    "place",
    // Sets where the script has a key.
    "class_of",
    "free",
    "change_slots",
    "count",
    // In words, which the script leaves to whoever hears of it.
    "explain",
    "paused_in_words",
    // The script asks `Q.next_task` itself.
    "dispatch/next_task",
];

/// Functions of the script for what the state machine has in its types.
const SCRIPT_ALONE: &[&str] = &[
    // Keys and fields.
    "owner_of",
    "some_run_quota",
    "score",
    "level",
    "registered",
    "pairs_of",
    "satisfies",
    "link",
    "lk",
    "queued",
    "slots_changed",
    // Iterators and closures.
    "head",
    "is_before",
    "offers",
    "better",
    "try",
    // A frontend that is lost takes several waiters with it.
    "waiters_left",
];

fn functions(source: &str, keyword: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = source.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
    let after = lines.filter_map(|line| {
        let (before, after) = line.split_once(keyword)?;
        let declares = |word: &str| word.starts_with("pub") || word == "local";
        before.split_whitespace().all(declares).then_some(after)
    });
    let name = |text: &str| {
        let text = text.trim_start_matches("Q.");
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
        text[..end.unwrap_or(text.len())].to_owned()
    };
    after.map(name).collect()
}

#[test]
fn each_function_of_the_script_stands_beside_its_twin() {
    for (file, machine, script) in TWINS {
        let alone = |list: &[&str], name: &str| {
            list.contains(&name) || list.contains(&format!("{file}/{name}").as_str())
        };
        let mut machine = functions(machine, "fn ");
        machine.retain(|name| !alone(MACHINE_ALONE, name));
        let mut script = functions(script, "function ");
        script.retain(|name| !alone(SCRIPT_ALONE, name));
        assert!(machine.len() > 3, "{file} has hardly any functions");
        assert_eq!(script, machine, "{file}: the script, and the machine");
    }
}
