//! Flags that set a key of the configuration. What such a flag takes, says and is by default follows from
//! its key: a command only names the two.

use std::marker::PhantomData;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueHint};

use crate::config::FlagValue;
use crate::config::keys::{self, Key, Kind};

/// A flag, with its dashes, the key that it sets, and what its value is called.
#[derive(Debug, Clone, Copy)]
pub struct Flag(pub &'static str, pub &'static str, pub &'static str);

/// A set of flags, each of which sets a key of the configuration.
pub trait FlagTable {
    const FLAGS: &'static [Flag];
}

/// The flags of `T` that were given, to be flattened into a command's arguments.
#[derive(Debug)]
pub struct Flags<T> {
    pub values: Vec<FlagValue>,
    of: PhantomData<T>,
}

impl Flag {
    fn id(&self) -> &'static str {
        self.0.trim_start_matches('-')
    }

    fn argument(&self, key: &Key) -> Arg {
        let argument = Arg::new(self.id())
            .long(self.id())
            .action(action(key.kind))
            .help(format!("{}{}", first_sentence(key.help), default(key)))
            .long_help(format!(
                "{}\n\nSays the same as {} in the configuration file and {} in the environment.",
                key.help,
                key.name,
                keys::variable(key.name),
            ));
        match key.kind {
            Kind::Bool => argument,
            kind => argument.value_name(self.2).value_hint(value_hint(kind)),
        }
    }

    /// The value as it would stand in the configuration; `None`: the flag was not given.
    fn value(&self, key: &Key, matches: &ArgMatches) -> Option<String> {
        match action(key.kind) {
            ArgAction::SetTrue => matches.get_flag(self.id()).then(|| "true".to_owned()),
            ArgAction::Append => {
                let values: Vec<_> = matches.get_many::<String>(self.id())?.cloned().collect();
                Some(values.join(","))
            }
            _ => matches.get_one::<String>(self.id()).cloned(),
        }
    }
}

/// Flags of lists may be given several times.
fn action(kind: Kind) -> ArgAction {
    match kind {
        Kind::Bool => ArgAction::SetTrue,
        Kind::List | Kind::Paths | Kind::Properties => ArgAction::Append,
        _ => ArgAction::Set,
    }
}

fn value_hint(kind: Kind) -> ValueHint {
    match kind {
        Kind::Path | Kind::Paths => ValueHint::AnyPath,
        _ => ValueHint::Other,
    }
}

fn first_sentence(help: &str) -> &str {
    help.split_once(". ").map_or(help, |(first, _)| first).trim_end_matches('.')
}

/// The part of a flag's help that gives its default, empty where there is none. For `auto` it is
/// the key's own explanation of that.
fn default(key: &Key) -> String {
    let auto = key.help.split_once("auto: ").map(|(_, meaning)| first_sentence(meaning));
    match (key.kind, key.default, auto) {
        (Kind::Bool, ..) | (_, "", _) => String::new(),
        (_, "auto", Some(meaning)) => format!(" [auto: {meaning}]"),
        (_, default, _) => format!(" [default: {default}]"),
    }
}

impl<T: FlagTable> Flags<T> {
    /// Each flag with its key. A test sees that there are no others.
    fn known() -> impl Iterator<Item = (&'static Flag, &'static Key)> {
        T::FLAGS.iter().filter_map(|flag| Some((flag, keys::find(flag.1)?)))
    }
}

impl<T: FlagTable> Args for Flags<T> {
    fn augment_args(command: Command) -> Command {
        command.args(Self::known().map(|(flag, key)| flag.argument(key)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<T: FlagTable> FromArgMatches for Flags<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |(flag, key): (&Flag, &'static Key)| {
            Some((flag.0, key.name, flag.value(key, matches)?))
        };
        Ok(Self { values: Self::known().filter_map(given).collect(), of: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Some4;
    impl FlagTable for Some4 {
        const FLAGS: &'static [Flag] = &[
            Flag("--listen", "server.listen", "ADDR"),
            Flag("--property", "workers.properties", "NAME=VALUE"),
            Flag("--insecure", "server.insecure", ""),
            Flag("--workers", "workers.count", "N"),
        ];
    }

    fn parse(arguments: &[&str]) -> Vec<FlagValue> {
        let command = Flags::<Some4>::augment_args(Command::new("kiln"));
        let matches = command.get_matches_from([&["kiln"], arguments].concat());
        Flags::<Some4>::from_arg_matches(&matches).unwrap().values
    }

    #[test]
    fn what_is_given_is_what_is_set() {
        assert_eq!(parse(&[]), []);
        let given = parse(&["--property", "a=1", "--insecure", "--property", "b=2"]);
        let expected = [
            ("--property", "workers.properties", "a=1,b=2".to_owned()),
            ("--insecure", "server.insecure", "true".to_owned()),
        ];
        assert_eq!(given, expected);
        assert_eq!(parse(&["--workers", "2"]), [("--workers", "workers.count", "2".to_owned())]);
    }

    #[test]
    fn every_flag_sets_a_key_that_there_is() {
        let tables = [
            crate::cli::serve::OfServe::FLAGS,
            crate::cli::workers::OfWorker::FLAGS,
            crate::cli::index::OfIndex::FLAGS,
        ];
        for Flag(name, key, _) in tables.concat() {
            assert!(keys::find(key).is_some(), "{name} sets {key}");
            assert!(name.starts_with("--"), "{name}");
        }
    }

    #[test]
    fn help_is_that_of_the_key() {
        let mut command = Flags::<Some4>::augment_args(Command::new("kiln"));
        let short = command.render_help().to_string();
        assert!(short.contains("Address for gRPC and HTTP [default: 127.0.0.1:8980]"), "{short}");
        assert!(short.contains("run at a time here [auto: one a core]"), "{short}");
        assert!(!short.contains("KILN_SERVER_LISTEN"), "{short}");
        let long = command.render_long_help().to_string();
        assert!(long.contains("KILN_SERVER_LISTEN"), "{long}");
    }
}
