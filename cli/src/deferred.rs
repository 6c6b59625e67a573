//! What only the verb that is asked for needs of the command line: building every verb's options
//! took more instructions than all else that a start does by itself.

use clap::builder::Resettable;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches, Subcommand};

/// A verb's arguments, which are not described before the verb is met.
#[derive(Debug)]
pub(crate) struct Deferred<T>(pub(crate) T);

impl<T: FromArgMatches> FromArgMatches for Deferred<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        T::from_arg_matches(matches).map(Self)
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, Error> {
        T::from_arg_matches_mut(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }

    fn update_from_arg_matches_mut(&mut self, matches: &mut ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches_mut(matches)
    }
}

/// Describes the arguments of a verb that is described itself: what it is about comes of its variant
/// and not of the type that holds its arguments.
fn below(verb: Command, arguments: fn(Command) -> Command) -> Command {
    let (about, long) = (verb.get_about().cloned(), verb.get_long_about().cloned());
    arguments(verb).about(Resettable::from(about)).long_about(Resettable::from(long))
}

impl<T: Args> Args for Deferred<T> {
    fn augment_args(command: Command) -> Command {
        command.defer(|verb| below(verb, T::augment_args))
    }

    fn augment_args_for_update(command: Command) -> Command {
        command.defer(|verb| below(verb, T::augment_args_for_update))
    }
}

impl<T: Subcommand> Subcommand for Deferred<T> {
    fn augment_subcommands(command: Command) -> Command {
        command.defer(|verb| below(verb, T::augment_subcommands))
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        command.defer(|verb| below(verb, T::augment_subcommands_for_update))
    }

    fn has_subcommand(name: &str) -> bool {
        T::has_subcommand(name)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use crate::args::Cli;

    #[test]
    fn a_verb_is_about_the_same_once_it_is_described() {
        let about = |command: &clap::Command| -> Vec<_> {
            command
                .get_subcommands()
                .map(|verb| verb.get_about().map(ToString::to_string))
                .collect()
        };
        let mut command = Cli::command();
        let before = about(&command);
        // Checks all of it, as far as clap can.
        command.build();
        assert_eq!(about(&command)[..before.len()], before);
        let run = command.find_subcommand("run").unwrap();
        assert!(run.get_arguments().any(|arg| arg.get_id() == "dry_run"));
        let kernel = command.find_subcommand("kernel").unwrap();
        assert!(kernel.find_subcommand("install").is_some());
    }
}
