//! What brings an environment of a kind up, and takes it down: programs, with what each of them reads.

use crate::model::Time;

/// A program, one of several that run one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub argv: Vec<String>,
    /// The text on the program's standard input; `None`: it reads nothing.
    pub stdin: Option<String>,
}

/// How the address of an environment is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// The last line that bringing it up prints on standard output.
    LastLine,
    /// A text in which `{name}` stands for the name.
    Template(String),
}

/// The steps for one environment. Each step is the same however often it is done: what is there already, or gone
/// already, is no failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    pub up: Vec<Step>,
    pub check: Vec<Step>,
    pub down: Vec<Step>,
    /// Prints names that are there, one a line; `None`: nobody can say.
    pub list: Option<Step>,
    pub address: Address,
}

/// The environment that a recipe is for.
#[derive(Debug, Clone, Copy)]
pub struct Which<'a> {
    pub name: &'a str,
    /// How the names of all environments of this server begin.
    pub prefix: &'a str,
    pub run: &'a str,
    pub expires: Time,
}

impl Step {
    pub fn new<const N: usize>(argv: [&str; N]) -> Self {
        Self { argv: argv.map(str::to_owned).to_vec(), stdin: None }
    }

    pub fn reading(self, stdin: String) -> Self {
        Self { stdin: Some(stdin), ..self }
    }
}

/// The names in what a list printed that are this server's: of a line its first word, without what says of which kind it is.
pub fn names(printed: &str, prefix: &str) -> Vec<String> {
    let word = |line: &str| {
        let word = line.split_whitespace().next()?;
        Some(word.rsplit('/').next().unwrap_or(word).to_owned())
    };
    let is_ours = |name: &String| name.starts_with(prefix) && is_name(name);
    printed.lines().filter_map(word).filter(is_ours).collect()
}

/// A label of DNS (RFC 1123), which is what namespaces of Kubernetes are called, and no option of any program.
pub fn is_name(name: &str) -> bool {
    let inner = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_list_are_this_servers_alone() {
        let printed = "namespace/kiln-ab12-web-1\nkiln-ab12-web-2 (id: 4)\n\nkiln-other-3\n  kiln-ab12-$(x)\n";
        assert_eq!(names(printed, "kiln-ab12-"), ["kiln-ab12-web-1", "kiln-ab12-web-2"]);
    }
}
