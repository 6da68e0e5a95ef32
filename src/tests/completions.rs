//! Completions for bash, zsh and fish, from the commands and options. The arguments of a command are completed from its
//! usage: lower-case words as they are, `COMMAND` by the commands, `FILE` and `PATH` by files; and from its details, if
//! they say "FROM is one of".

use std::process::{Command as Process, ExitCode};

use crate::COMMANDS;
use crate::arguments::{Command, CommonOption, OPTIONS};

const HEAD: &str = "# Generated from the sources of upslot.\n";

/// A flag of a command.
#[derive(Debug, PartialEq, Eq)]
struct Flag {
    /// With its dashes.
    name: String,
    /// Its value, as the help shows it.
    value: Option<&'static str>,
}

fn flags(command: &Command) -> Vec<Flag> {
    let flags = command
        .flags
        .iter()
        .map(|flag| match flag.strip_suffix('=') {
            None => Flag {
                name: format!("--{flag}"),
                value: None,
            },
            Some(name) => {
                let name = format!("--{name}");
                let value = value_of(command, &name).unwrap_or("VALUE");
                Flag {
                    name,
                    value: Some(value),
                }
            }
        });
    flags.collect()
}

/// The upper-case word after a flag in the usage or the details.
fn value_of(command: &Command, flag: &str) -> Option<&'static str> {
    let texts = [command.usage, command.details];
    let words = texts
        .iter()
        .flat_map(|text| text.split([' ', '\n', '[', ']']));
    let words: Vec<&'static str> = words.filter(|word| !word.is_empty()).collect();
    let is_value = |word: &str| word.chars().all(|c| c.is_ascii_uppercase());
    let mut pairs = words.windows(2);
    pairs.find_map(|pair| (pair[0] == flag && is_value(pair[1])).then_some(pair[1]))
}

/// The words of a usage, without brackets, bars, flags and their values.
fn placeholders(command: &Command) -> Vec<&'static str> {
    let with_value: Vec<Flag> = flags(command)
        .into_iter()
        .filter(|flag| flag.value.is_some())
        .collect();
    let words = command.usage.split(['[', ']', '|', ' ']);
    let words: Vec<&'static str> = words.filter(|word| !word.is_empty()).collect();
    let mut found = Vec::new();
    let mut before = "";
    for word in words {
        let is_value = with_value.iter().any(|flag| flag.name == before);
        if !word.starts_with('-') && !is_value {
            found.push(word);
        }
        before = word;
    }
    found
}

/// The words that a command accepts as arguments, other than flags.
fn words(command: &Command) -> Vec<&'static str> {
    let mut words = Vec::new();
    for word in placeholders(command) {
        if word == "COMMAND" {
            words.extend(COMMANDS.iter().map(|command| command.name));
        } else if word.starts_with(|c: char| c.is_ascii_lowercase()) {
            words.push(word);
        } else if let Some((_, list)) = command.details.split_once(&format!("{word} is one of")) {
            let end = list.find(". ").or(list.find(".\n")).unwrap_or(list.len());
            words.extend(list[..end].split(',').map(str::trim));
        }
    }
    words
}

fn takes_files(command: &Command) -> bool {
    placeholders(command).iter().any(|word| is_file(word))
}

fn is_file(placeholder: &str) -> bool {
    matches!(placeholder, "FILE" | "PATH" | "FOLDER")
}

fn names() -> Vec<&'static str> {
    COMMANDS.iter().map(|command| command.name).collect()
}

/// The spellings of an option.
fn spellings(option: &CommonOption) -> Vec<String> {
    let short = option.short.map(|short| format!("-{short}"));
    let long = Some(format!("--{}", option.name));
    short.into_iter().chain(long).collect()
}

/// The spellings of all options and flags that take a value: files, and others.
fn with_values() -> (Vec<String>, Vec<String>) {
    let options = OPTIONS.iter().filter(|option| !option.value.is_empty());
    let options = options.flat_map(|option| {
        let spellings = spellings(option).into_iter();
        spellings.map(|spelling| (spelling, option.value))
    });
    let flags = COMMANDS.iter().flat_map(flags);
    let flags = flags.filter_map(|flag| Some((flag.name, flag.value?)));
    let (files, others): (Vec<_>, Vec<_>) =
        options.chain(flags).partition(|(_, value)| is_file(value));
    let names = |pairs: Vec<(String, &str)>| pairs.into_iter().map(|(name, _)| name).collect();
    (names(files), names(others))
}

pub fn bash() -> String {
    let options: Vec<String> = OPTIONS.iter().flat_map(spellings).collect();
    let options = options.join(" ");
    let (files, others) = with_values();
    let values = [files.as_slice(), &others].concat().join(" | ");
    let files = files.join(" | ");
    let others = match others.is_empty() {
        true => String::new(),
        false => format!("        {}) return ;;\n", others.join(" | ")),
    };
    let commands = names().join(" ");
    let mut cases = String::new();
    for command in &COMMANDS {
        let flags = flags(command).into_iter();
        let mut candidates: Vec<String> = flags.map(|flag| flag.name).collect();
        candidates.extend(words(command).into_iter().map(str::to_owned));
        let (name, candidates) = (command.name, candidates.join(" "));
        let files = if takes_files(command) {
            " files=yes"
        } else {
            ""
        };
        cases.push_str(&format!(
            "        {name}) words=\"{candidates}\"{files} ;;\n"
        ));
    }
    format!(
        r#"{HEAD}# shellcheck shell=bash

_upslot() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
    local command='' words='' files='' i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
            {values}) ((++i)); [ "${{COMP_WORDS[i]}}" != = ] || ((++i)) ;;
            -*) ;;
            *) command=${{COMP_WORDS[i]}}; break ;;
        esac
    done
    case $previous in
        {files} | =) files=only ;;
{others}    esac
    case $command in
        '') words="{commands}" ;;
{cases}    esac
    if [ -n "$files" ]; then
        compopt -o filenames 2> /dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
    [ "$files" != only ] || return 0
    [[ $current != -* ]] || words+=" {options}"
    mapfile -t -O "${{#COMPREPLY[@]}}" COMPREPLY < <(compgen -W "$words" -- "$current")
}}

complete -F _upslot upslot
"#
    )
}

/// A text in single quotes for zsh, where colons and brackets have a meaning.
fn zsh_text(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '\'' => escaped.push_str("'\\''"),
            ':' | '[' | ']' | '\\' => escaped.extend(['\\', c]),
            c => escaped.push(c),
        }
    }
    escaped
}

pub fn zsh() -> String {
    let mut options = String::new();
    for option in &OPTIONS {
        let spellings = spellings(option);
        let summary = zsh_text(option.summary);
        let file = if option.value == "FILE" {
            ":file:_files"
        } else {
            ""
        };
        let line = match &spellings[..] {
            [short, long] => format!("'({short} {long})'{{{short},{long}}}'[{summary}]{file}'"),
            _ => format!("'{}[{summary}]{file}'", spellings[0]),
        };
        options.push_str(&format!("        {line} \\\n"));
    }
    let mut commands = String::new();
    let mut cases = String::new();
    for command in &COMMANDS {
        let (name, summary) = (command.name, zsh_text(command.summary));
        commands.push_str(&format!("        '{name}:{summary}'\n"));
        let mut arguments: Vec<String> = flags(command)
            .iter()
            .map(|flag| match flag.value {
                None => format!("'{}'", flag.name),
                Some(value) if is_file(value) => format!("'{}=:{value}:_files'", flag.name),
                Some(value) => format!("'{}=:{value}: '", flag.name),
            })
            .collect();
        let words = words(command).join(" ");
        if !words.is_empty() {
            arguments.push(format!("'1:argument:({words})'"));
        }
        if takes_files(command) {
            arguments.push("'*:file:_files'".to_owned());
        } else if words.is_empty() && !command.usage.is_empty() {
            arguments.push(format!("'*:{}: '", zsh_text(command.usage)));
        }
        if !arguments.is_empty() {
            let arguments = arguments.join(" ");
            cases.push_str(&format!(
                "                {name}) _arguments {arguments} ;;\n"
            ));
        }
    }
    format!(
        r#"#compdef upslot
{HEAD}
_upslot() {{
    local context state state_descr line
    typeset -A opt_args
    local -a commands
    commands=(
{commands}    )
    _arguments -C \
{options}        '1:command:->command' \
        '*::argument:->argument'
    case $state in
        command) _describe command commands ;;
        argument)
            case $line[1] in
{cases}            esac
            ;;
    esac
}}

_upslot "$@"
"#
    )
}

/// A text in single quotes for fish.
fn fish_text(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

pub fn fish() -> String {
    let mut text = format!("{HEAD}\ncomplete -c upslot -f\n");
    for option in &OPTIONS {
        let short = option.short.map(|short| format!(" -s {short}"));
        let file = if option.value == "FILE" { " -r -F" } else { "" };
        text.push_str(&format!(
            "complete -c upslot{} -l {}{file} -d '{}'\n",
            short.unwrap_or_default(),
            option.name,
            fish_text(option.summary)
        ));
    }
    for command in &COMMANDS {
        let (name, summary) = (command.name, fish_text(command.summary));
        text.push_str(&format!(
            "complete -c upslot -n __fish_use_subcommand -a {name} -d '{summary}'\n"
        ));
        let condition = format!("complete -c upslot -n '__fish_seen_subcommand_from {name}'");
        for flag in flags(command) {
            let name = flag.name.trim_start_matches('-');
            let value = match flag.value {
                None => "",
                Some(value) if is_file(value) => " -r -F",
                Some(_) => " -x",
            };
            text.push_str(&format!("{condition} -l {name}{value}\n"));
        }
        let words = words(command).join(" ");
        if !words.is_empty() {
            text.push_str(&format!("{condition} -a '{words}'\n"));
        }
        if takes_files(command) {
            text.push_str(&format!("{condition} -F\n"));
        }
    }
    text
}

/// The candidates of bash for the last of these words.
fn completed(words: &[&str]) -> Vec<String> {
    let script = super::top().join("contrib/completions/upslot.bash");
    let shell = Process::new("bash")
        .args([
            "-uc",
            "source \"$1\" || exit; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _upslot; \
             printf '%s\\n' \"${COMPREPLY[@]}\"",
            "-",
        ])
        .arg(script)
        .args(words)
        .current_dir(super::top())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&shell.stderr);
    assert!(shell.status.success(), "{words:?}: {error}");
    let found = String::from_utf8(shell.stdout).unwrap();
    let mut found: Vec<String> = found.split_whitespace().map(str::to_owned).collect();
    found.sort();
    found
}

#[test]
fn bash_completes() {
    let sorted = |mut names: Vec<&str>| {
        names.sort_unstable();
        names.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(completed(&["upslot", ""]), sorted(names()));
    assert_eq!(completed(&["upslot", "ex"]), ["explain"]);
    assert_eq!(completed(&["upslot", "--che"]), ["--check-config"]);
    let mut options: Vec<String> = OPTIONS.iter().flat_map(spellings).collect();
    options.sort_unstable();
    assert_eq!(completed(&["upslot", "-"]), options);
    assert_eq!(completed(&["upslot", "-c", "CHANGE"]), ["CHANGELOG.md"]);
    assert_eq!(
        completed(&["upslot", "--config", "=", "LICEN"]),
        ["LICENSE"]
    );
    assert_eq!(completed(&["upslot", "-c", "x.yml", "expl"]), ["explain"]);
    assert_eq!(
        completed(&["upslot", "--config", "=", "x.yml", "expl"]),
        ["explain"]
    );
    assert_eq!(
        completed(&["upslot", "--config", "explain", "lis"]),
        ["list"]
    );
    let mut topics = names();
    topics.push("config");
    assert_eq!(completed(&["upslot", "help", ""]), sorted(topics));
    for command in &COMMANDS {
        for flag in flags(command) {
            let name = flag.name;
            assert!(completed(&["upslot", command.name, &name]).contains(&name));
            if flag.value.is_some() {
                let words = ["upslot", &name, "x", command.name, "--"];
                assert!(completed(&words).contains(&name), "{words:?}");
            }
        }
    }
}

#[test]
fn arguments_follow_from_the_usage_and_the_details() {
    let command = Command {
        name: "copy",
        usage: "FROM PATH [--list FILE] [--all]",
        summary: "",
        details: "Copies. FROM is one of one, two.org,\nthree. --list FILE names a\nlist. --owner JID is new.\n",
        flags: &["all", "list=", "owner=", "other="],
        run: |_| Ok(ExitCode::SUCCESS),
    };
    assert_eq!(placeholders(&command), ["FROM", "PATH"]);
    assert_eq!(words(&command), ["one", "two.org", "three"]);
    assert!(takes_files(&command));
    let values: Vec<Option<&str>> = flags(&command).iter().map(|flag| flag.value).collect();
    assert_eq!(values, [None, Some("FILE"), Some("JID"), Some("VALUE")]);
    let without_files = Command {
        usage: "[--list FILE]",
        ..command
    };
    assert!(!takes_files(&without_files));
}
