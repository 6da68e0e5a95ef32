//! Files in `contrib` that are made from the sources: manual pages and shell completions from the commands, the options
//! and the registry of keys; the unit of the Debian package from the general unit. A test fails while one of them
//! differs. To write them again:
//!
//!     UPSLOT_WRITE=1 cargo test --bin upslot generated
//!
//! The program itself contains none of this, and packages need no generator.

use std::path::Path;

mod completions;
mod man;
mod unit;

/// The top folder of the source.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every generated file, by its path.
fn generated() -> Vec<(&'static str, String)> {
    vec![
        ("contrib/man/upslot.1", man::program()),
        ("contrib/man/upslot.yml.5", man::config()),
        ("contrib/completions/upslot.bash", completions::bash()),
        ("contrib/completions/_upslot", completions::zsh()),
        ("contrib/completions/upslot.fish", completions::fish()),
        ("contrib/debian/upslot.service", unit::debian()),
    ]
}

#[test]
fn generated_files_are_current() {
    let write = std::env::var_os("UPSLOT_WRITE").is_some();
    for (path, text) in generated() {
        if write {
            std::fs::write(top().join(path), &text).unwrap();
        }
        let found = std::fs::read_to_string(top().join(path)).unwrap_or_default();
        let difference = text
            .lines()
            .zip(found.lines().chain(std::iter::repeat("")))
            .find(|(expected, found)| expected != found);
        assert!(
            text == found,
            "{path} is not current, {difference:?}; run: UPSLOT_WRITE=1 cargo test --bin upslot generated"
        );
    }
}

/// What the help says is in each generated file; the help, not the tables that it is made from.
#[test]
fn every_command_and_option_of_the_help_is_in_the_pages_and_completions() {
    let help = crate::arguments::help(&crate::COMMANDS);
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let (commands, options) = commands.split_once("\nOptions:\n").unwrap();
    let (options, _) = options.split_once("\n\n").unwrap();
    let mut words: Vec<&str> = commands
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(words.len() >= 5, "{words:?}");
    let is_option = |word: &&str| word.starts_with('-');
    words.extend(options.split_whitespace().filter(is_option));
    words.extend(commands.split(['[', ']', ' ', '\n']).filter(is_option));
    for (path, text) in generated() {
        if !path.contains("completions") && path != "contrib/man/upslot.1" {
            continue;
        }
        let text = text.replace("\\-", "-").replace("\\f", " \\f");
        let text = text.replace("\\fB", "").replace("\\fR", "");
        for word in &words {
            let word = word.trim_end_matches(',').trim_start_matches('-');
            let found = text
                .split(|c: char| !c.is_alphanumeric() && c != '-')
                .any(|found| found.trim_start_matches('-') == word);
            assert!(found, "{path} lacks {word}");
        }
    }
}
