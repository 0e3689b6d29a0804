//! The commands that people know by other names from other tools.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What people type, and what to run here instead.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("add", "`flotilla new` adds a customer"),
    ("apply", "`flotilla deploy` applies a plan"),
    ("create", "`flotilla new` adds a customer, `flotilla init` creates a project"),
    (
        "delete",
        "`flotilla destroy CUSTOMER` deletes a customer with its workers, `flotilla prune` workers without a spec",
    ),
    ("down", "`flotilla destroy CUSTOMER` deletes a customer's workers, `flotilla preview down` removes a preview"),
    ("emulator", "`flotilla dev` develops on it, `flotilla local` only runs the local Cloudflare emulator"),
    ("lint", "`flotilla check` reports every error in every file"),
    ("ls", "`flotilla list` lists customers, `flotilla status` what is deployed"),
    ("publish", "`flotilla deploy` uploads what changed"),
    ("refresh", "`flotilla plan --refresh` compares with what Cloudflare runs"),
    (
        "remove",
        "`flotilla destroy CUSTOMER` deletes a customer with its workers, `flotilla prune` workers without a spec",
    ),
    ("rm", "`flotilla destroy CUSTOMER` deletes a customer with its workers"),
    ("serve", "`flotilla dev` runs the fleet on this machine and deploys on each save"),
    ("start", "`flotilla dev` runs the fleet on this machine and deploys on each save"),
    ("tail", "`flotilla logs CUSTOMER` follows the logs of a customer's workers"),
    ("undo", "`flotilla rollback CUSTOMER` returns to what ran before"),
    ("up", "`flotilla deploy` uploads what changed, `flotilla preview up` deploys a preview"),
    (
        "update",
        "`flotilla edit` changes a customer, `flotilla deploy` uploads what changed; install a newer flotilla the way you installed this one",
    ),
    (
        "upgrade",
        "install a newer flotilla the way you installed this one, such as `npm install --save-dev flotilla@latest`",
    ),
    ("validate", "`flotilla check` reports every error in every file"),
    ("watch", "`flotilla dev` deploys locally on each change, `flotilla build --watch` only rebuilds"),
];

/// Adds to an unknown command's error which command does that here.
pub(super) fn with_hint(mut error: clap::Error) -> clap::Error {
    let name = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(name)) if error.kind() == ErrorKind::InvalidSubcommand => name.clone(),
        _ => return error,
    };
    if let Some((_, instead)) = OTHER_NAMES.iter().find(|(other, _)| *other == name) {
        error.remove(ContextKind::SuggestedSubcommand);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![(*instead).to_owned().into()]));
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_line;

    #[test]
    fn other_names_are_answered_and_are_no_commands() {
        for (name, instead) in OTHER_NAMES {
            let error = command_line().try_get_matches_from(["flotilla", name]).expect_err("it is a command");
            assert!(with_hint(error).to_string().contains(&format!("tip: {instead}")), "{name}");
        }
        // Each names commands that exist.
        let commands: Vec<String> =
            command_line().get_subcommands().map(|command| command.get_name().to_owned()).collect();
        for (name, instead) in OTHER_NAMES {
            for named in instead.split("`flotilla ").skip(1).filter_map(|rest| rest.split([' ', '`']).next()) {
                assert!(commands.iter().any(|command| command == named), "{name}: flotilla {named}");
            }
        }
        let error = command_line().try_get_matches_from(["flotilla", "plann"]).expect_err("it is a command");
        assert!(with_hint(error).to_string().contains("'plan'"));
    }
}
