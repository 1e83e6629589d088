//! Who owns a path, by a CODEOWNERS file in GitHub's syntax: the last pattern that matches decides. GitLab's
//! sections are tolerated: their owners are the ones of patterns in them that name none.

use std::fmt;

/// Longer files are not what anybody writes by hand.
const MAX_RULES: usize = 100_000;

#[derive(Clone, Debug, Default)]
pub struct Codeowners {
    rules: Vec<Rule>,
}

/// A line that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The number of the line, counted from 1.
    pub line: usize,
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "line {}: {}", self.line, self.reason)
    }
}

#[derive(Clone, Debug)]
struct Rule {
    pattern: Pattern,
    owners: Vec<String>,
}

#[derive(Clone, Debug)]
struct Pattern {
    segments: Vec<Segment>,
    /// Whether the pattern ends in `/`: it fits what is in the directory, and not a file of this name.
    directory: bool,
    /// Whether the pattern ends in `/*`: it fits files directly in the directory alone.
    direct: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// `**`, which fits any number of segments.
    Any,
    Glob(Vec<Glob>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Glob {
    Star,
    One,
    Is(char),
}

impl Codeowners {
    /// Reads what can be read; a line that cannot be is reported and left out, as GitHub does it.
    pub fn parse(text: &str) -> (Self, Vec<Problem>) {
        let mut owners = Self::default();
        let mut problems = Vec::new();
        let mut defaults = Vec::new();
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let result = match section(line) {
                Some(rest) => names(rest).map(|names| defaults = names),
                None => rule(line, &defaults).map(|rule| owners.rules.push(rule)),
            };
            if let Err(reason) = result {
                problems.push(Problem { line: index + 1, reason });
            }
            if owners.rules.len() == MAX_RULES {
                let reason = format!("more than {MAX_RULES} patterns; the rest is left out");
                problems.push(Problem { line: index + 1, reason });
                break;
            }
        }
        (owners, problems)
    }

    /// The owners of a file, by its path from the root of the repository.
    pub fn of_path(&self, path: &str) -> &[String] {
        let path: Vec<_> = path.split('/').filter(|it| !it.is_empty() && *it != ".").collect();
        let rule = self.rules.iter().rev().find(|it| it.pattern.matches(&path));
        rule.map_or(&[], |it| &it.owners)
    }

    /// The owners of a target: of its first source that is known, or of its package otherwise. A target of
    /// another repository has none.
    pub fn of_label(&self, label: &str, sources: &[&str]) -> &[String] {
        if let Some(source) = sources.first() {
            return self.of_path(source);
        }
        match label.split_once("//") {
            // Buck2 calls the cell of the repository itself `root`.
            Some(("" | "@" | "@@" | "root", rest)) => self.of_path(&rest.replace(':', "/")),
            Some(_) => &[],
            // The name of an imported suite, which may be a path.
            None => self.of_path(label),
        }
    }
}

/// What follows the name of a section: `[name]`, `^[name]` or `[name][2]`.
fn section(line: &str) -> Option<&str> {
    let (_, rest) = line.strip_prefix('^').unwrap_or(line).strip_prefix('[')?.split_once(']')?;
    let rest = match rest.strip_prefix('[') {
        Some(approvals) => approvals.split_once(']')?.1,
        None => rest,
    };
    (rest.is_empty() || rest.starts_with(char::is_whitespace)).then_some(rest)
}

fn rule(line: &str, defaults: &[String]) -> Result<Rule, String> {
    if line.starts_with('!') {
        return Err("a pattern cannot be negated here".to_owned());
    }
    let (pattern, rest) = pattern(line)?;
    let owners = names(rest)?;
    let owners = if owners.is_empty() { defaults.to_vec() } else { owners };
    Ok(Rule { pattern, owners })
}

fn names(text: &str) -> Result<Vec<String>, String> {
    let words = text.split_whitespace().take_while(|it| !it.starts_with('#'));
    words
        .map(|it| {
            if it.contains('@') {
                Ok(it.to_owned())
            } else {
                Err(format!("{it:?} is no owner: write @name, @organisation/team or an address"))
            }
        })
        .collect()
}

/// Reads a pattern up to the first space that is not escaped.
fn pattern(line: &str) -> Result<(Pattern, &str), String> {
    let mut segments = vec![Vec::new()];
    let mut rest = line.chars();
    while let Some(it) = rest.clone().next() {
        if it.is_whitespace() {
            break;
        }
        rest.next();
        let glob = match it {
            '/' => {
                segments.push(Vec::new());
                continue;
            }
            '*' => Glob::Star,
            '?' => Glob::One,
            '\\' => Glob::Is(rest.next().ok_or("it ends in a backslash")?),
            it => Glob::Is(it),
        };
        if let Some(segment) = segments.last_mut() {
            segment.push(glob);
        }
    }
    Ok((Pattern::new(segments)?, rest.as_str()))
}

impl Pattern {
    fn new(mut raw: Vec<Vec<Glob>>) -> Result<Self, String> {
        let directory = raw.len() > 1 && raw.last().is_some_and(Vec::is_empty);
        if directory {
            raw.pop();
        }
        // A slash at the start or in the middle ties it to the root.
        let anchored = raw.len() > 1;
        let direct = anchored && !directory && raw.last().is_some_and(|it| *it == [Glob::Star]);
        let mut segments = Vec::new();
        if !anchored {
            segments.push(Segment::Any);
        }
        for glob in raw.into_iter().filter(|it| !it.is_empty()) {
            let any = glob == [Glob::Star, Glob::Star];
            segments.push(if any { Segment::Any } else { Segment::Glob(glob) });
        }
        if segments.is_empty() {
            // A lone `/` is everything.
            segments.push(Segment::Any);
        }
        Ok(Self { segments, directory, direct })
    }

    /// Whether the pattern matches the path, or a directory that the path is in.
    fn matches(&self, path: &[&str]) -> bool {
        // `reached[n]`: the pattern so far matches the first n parts of the path.
        let mut reached = vec![false; path.len() + 1];
        reached[0] = true;
        for segment in &self.segments {
            let mut next = vec![false; path.len() + 1];
            for at in 0..=path.len() {
                match segment {
                    Segment::Any => next[at] = reached[..=at].contains(&true),
                    Segment::Glob(glob) if at > 0 => {
                        next[at] = reached[at - 1] && glob_matches(glob, path[at - 1]);
                    }
                    Segment::Glob(_) => {}
                }
            }
            reached = next;
        }
        let whole = reached[path.len()] && !path.is_empty() && !self.directory;
        let below = reached[..path.len()].contains(&true) && !self.direct;
        whole || below
    }
}

/// Goes back to the last star alone, so that no pattern takes long.
fn glob_matches(glob: &[Glob], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut seen) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        match glob.get(at) {
            Some(Glob::Star) => {
                star = Some((at, seen));
                at += 1;
            }
            Some(Glob::One) => (at, seen) = (at + 1, seen + 1),
            Some(Glob::Is(it)) if *it == text[seen] => (at, seen) = (at + 1, seen + 1),
            _ => {
                let Some((back, from)) = star else { return false };
                star = Some((back, from + 1));
                (at, seen) = (back + 1, from + 1);
            }
        }
    }
    glob[at..].iter().all(|it| *it == Glob::Star)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner(text: &str, path: &str) -> Option<String> {
        let (owners, problems) = Codeowners::parse(text);
        assert_eq!(problems, []);
        owners.of_path(path).first().cloned()
    }

    fn matches(pattern: &str, path: &str) -> bool {
        owner(&format!("{pattern} @x"), path).is_some()
    }

    #[test]
    fn patterns_match_as_on_github() {
        for (pattern, yes, no) in [
            ("*", vec!["a", "a/b.c"], vec![]),
            ("*.js", vec!["a.js", "x/y/a.js"], vec!["a.jsx"]),
            (
                "/build/logs/",
                vec!["build/logs/a", "build/logs/x/y"],
                vec!["x/build/logs/a", "build/logs"],
            ),
            ("docs/*", vec!["docs/a.md"], vec!["docs/x/a.md", "x/docs/a.md"]),
            ("apps/", vec!["apps/a", "x/apps/y/z"], vec!["apps"]),
            ("/docs/", vec!["docs/a"], vec!["x/docs/a"]),
            ("/scripts", vec!["scripts", "scripts/a/b"], vec!["x/scripts"]),
            ("**/logs", vec!["logs/a", "x/y/logs/z", "logs"], vec!["xlogs"]),
            ("/apps/**/test", vec!["apps/test/a", "apps/x/y/test"], vec!["test"]),
            ("/a/**", vec!["a/b", "a/b/c"], vec!["b/a/c"]),
            ("a?c", vec!["abc", "x/abc"], vec!["ac", "abbc"]),
            ("/with\\ space/", vec!["with space/a"], vec!["with", "space/a"]),
            ("\\#odd", vec!["#odd"], vec!["odd"]),
        ] {
            for path in yes {
                assert!(matches(pattern, path), "{pattern} does not match {path}");
            }
            for path in no {
                assert!(!matches(pattern, path), "{pattern} matches {path}");
            }
        }
    }

    #[test]
    fn the_last_match_decides_also_for_nobody() {
        let text = "\u{feff}# all\n*  @all\n/a/ @a b@example.com # theirs\n/a/free\n";
        assert_eq!(owner(text, "x").as_deref(), Some("@all"));
        assert_eq!(Codeowners::parse(text).0.of_path("a/x"), ["@a", "b@example.com"]);
        assert_eq!(owner(text, "a/free"), None);
    }

    #[test]
    fn sections_give_owners_to_patterns_without() {
        let text = "[Docs] @docs\n*.md\nspecial.md @me\n^[Build][2]\n/b/ @b\n";
        assert_eq!(owner(text, "x/a.md").as_deref(), Some("@docs"));
        assert_eq!(owner(text, "special.md").as_deref(), Some("@me"));
        assert_eq!(owner(text, "b/x").as_deref(), Some("@b"));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let (owners, problems) = Codeowners::parse("!a @x\nb bob\n\nc @c\nd\\");
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems[0], "line 1: a pattern cannot be negated here");
        assert!(problems[1].starts_with("line 2: \"bob\" is no owner"));
        assert_eq!(problems[2], "line 5: it ends in a backslash");
        assert_eq!(owners.of_path("c"), ["@c"]);
    }

    #[test]
    fn labels_are_paths_of_their_packages() {
        let (owners, _) = Codeowners::parse("/a/b/ @b\n/a/b/slow* @slow\n*.py @py\n");
        assert_eq!(owners.of_label("//a/b:t", &[]), ["@b"]);
        assert_eq!(owners.of_label("root//a/b:slow_test", &[]), ["@slow"]);
        assert_eq!(owners.of_label("@@//a/b/c:t", &[]), ["@b"]);
        assert_eq!(owners.of_label("//a/b:t", &["x/t.py"]), ["@py"]);
        assert!(owners.of_label("@other//a/b:t", &[]).is_empty());
        assert!(owners.of_label("//:t", &[]).is_empty());
        assert_eq!(owners.of_label("a/b/suite", &[]), ["@b"]);
    }

    proptest! {
        #[test]
        fn any_file_is_read(text in "(\\PC|\n| |\\*|/|\\[|\\\\){0,80}", path in "[a-c/*]{0,12}") {
            let (owners, _) = Codeowners::parse(&text);
            owners.of_path(&path);
        }

        #[test]
        fn a_path_matches_itself_and_what_is_below(parts in proptest::collection::vec("[a-z]{1,4}", 1..5)) {
            let path = parts.join("/");
            let pattern = format!("/{path}");
            let below = format!("{}/x", path);
            prop_assert!(matches(&pattern, &path));
            prop_assert!(matches(&pattern, &below));
        }
    }

    #[test]
    fn hostile_patterns_take_no_time() {
        let stars = format!("/{}b @x", "**/*a*a*a*a/".repeat(50));
        let path = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/".repeat(50);
        assert_eq!(owner(&stars, &path), None);
    }
}
