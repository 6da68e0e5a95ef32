//! The command line: options, commands, help, and suggestions for misspelt words.
//!
//! Commands are a table: parsing, help and suggestions follow from it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use upslot::config::nearest;

/// Paths of the configuration if none is named, in this order.
const CONFIG_FILES: [&str; 2] = ["config.yml", "/etc/upslot/config.yml"];

/// The purpose of the program, in one line.
pub const ABOUT: &str =
    "upslot stores and serves files that are shared over XMPP (HTTP File Upload, XEP-0363).";

/// The signals that the service handles.
pub const SIGNALS: &str = "\
SIGTERM and SIGINT shut down gracefully, a second one at once; SIGHUP
reloads the configuration and the certificate and reopens the log file.
";

/// One option that is not a flag of a command.
#[derive(Debug)]
pub struct CommonOption {
    pub short: Option<char>,
    /// The long name, without its dashes.
    pub name: &'static str,
    /// Its value, as the help shows it; empty if there is none.
    pub value: &'static str,
    /// One line of the help.
    pub summary: &'static str,
}

/// All options that are not flags of a command.
pub const OPTIONS: [CommonOption; 7] = [
    CommonOption {
        short: Some('c'),
        name: "config",
        value: "FILE",
        summary: "configuration (default: config.yml here, then /etc/upslot/config.yml)",
    },
    CommonOption {
        short: Some('l'),
        name: "logfile",
        value: "FILE",
        summary: "log file (default: standard error)",
    },
    CommonOption {
        short: None,
        name: "check-config",
        value: "",
        summary: "read the configuration, report every error, exit",
    },
    CommonOption {
        short: None,
        name: "online",
        value: "",
        summary: "also check the object store with a test object, after --check-config",
    },
    CommonOption {
        short: None,
        name: "demo",
        value: "",
        summary: "run on loopback without XMPP, and print commands to try",
    },
    CommonOption {
        short: Some('V'),
        name: "version",
        value: "",
        summary: "print the version",
    },
    CommonOption {
        short: Some('h'),
        name: "help",
        value: "",
        summary: "print this help",
    },
];

const CHECK: &str = "--check-config";
const DEMO: &str = "--demo";
const ONLINE: &str = "--online";

/// One command, such as `explain`.
#[derive(Debug)]
pub struct Command {
    pub name: &'static str,
    /// Its arguments, as the help shows them.
    pub usage: &'static str,
    /// One line of the help.
    pub summary: &'static str,
    /// More lines for `help COMMAND`, each with its line end; may be empty.
    pub details: &'static str,
    /// Its flags, without their dashes. One that ends with `=` takes a value.
    pub flags: &'static [&'static str],
    pub run: fn(Arguments) -> Result<ExitCode, Failure>,
}

/// Why the program fails.
#[derive(Debug)]
pub enum Failure {
    /// An error in the arguments, without its full stop.
    Arguments(String),
    /// Errors to report, one per line.
    Command(String),
    /// Errors of the service for the log, one per line.
    Service(String),
}

/// Options and further words.
#[derive(Debug, Default)]
pub struct Arguments {
    config: Option<PathBuf>,
    pub logfile: Option<PathBuf>,
    /// Whether [`Call::Check`] includes the object store.
    pub online: bool,
    /// The words after the command.
    pub words: Vec<String>,
    /// The flags that are set, with their values.
    flags: Vec<(&'static str, OsString)>,
}

impl Arguments {
    /// The configuration that is named, or the first default path that exists.
    pub fn config(&self) -> PathBuf {
        match &self.config {
            Some(path) => path.clone(),
            None => first_existing(&CONFIG_FILES.map(Path::new)),
        }
    }

    /// Whether the command's flag of this name is set.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|(set, _)| *set == flag)
    }

    /// The value of the command's flag of this name, which ends with `=`.
    pub fn value(&self, flag: &str) -> Option<&OsString> {
        let mut set = self.flags.iter().filter(|(set, _)| *set == flag);
        set.next_back().map(|(_, value)| value)
    }
}

/// The first path that exists or cannot be checked; else the first path.
fn first_existing(paths: &[&Path]) -> PathBuf {
    let exists = |path: &&&Path| path.try_exists().unwrap_or(true);
    let path = paths.iter().find(exists).or(paths.first());
    path.map_or_else(PathBuf::new, |path| (*path).to_owned())
}

/// The meaning of the arguments.
#[derive(Debug)]
pub enum Call {
    /// The service itself.
    Run(Arguments),
    Check(Arguments),
    Demo,
    Version,
    /// The general help, or that of one command.
    Help(Option<&'static Command>),
    Command(&'static Command, Arguments),
}

/// Reads the arguments. Fails with a sentence without its full stop.
pub fn parse(arguments: Vec<OsString>, commands: &'static [Command]) -> Result<Call, String> {
    use lexopt::prelude::{Long, Short, Value};
    let mut given = Arguments::default();
    let mut command: Option<&'static Command> = None;
    // Options that replace the service; at most one.
    let mut modes: Vec<&'static str> = Vec::new();
    let mut flags: Vec<(&'static str, OsString)> = Vec::new();
    let mut parser = lexopt::Parser::from_args(arguments);
    let text = |error: lexopt::Error| error.to_string();
    while let Some(argument) = parser.next().map_err(text)? {
        match argument {
            Short('c') | Long("config") => {
                given.config = Some(parser.value().map_err(text)?.into())
            }
            Short('l') | Long("logfile") => {
                given.logfile = Some(parser.value().map_err(text)?.into())
            }
            Long("check-config") => modes.push(CHECK),
            Long("online") => given.online = true,
            Long("demo") => modes.push(DEMO),
            Short('V') | Long("version") => return Ok(Call::Version),
            Short('h') | Long("help") => return Ok(Call::Help(command)),
            Long(option) => match flag(option, commands) {
                Some(flag) if flag.ends_with('=') => {
                    flags.push((flag, parser.value().map_err(text)?));
                }
                Some(flag) => flags.push((flag, OsString::new())),
                None => return Err(unknown("option", "--", option, commands)),
            },
            Short(option) => return Err(format!("unknown option -{option}")),
            Value(word) => {
                let word = word
                    .into_string()
                    .map_err(|word| format!("{word:?} is not UTF-8"))?;
                match command {
                    Some(_) => given.words.push(word),
                    None => match commands.iter().find(|known| known.name == word) {
                        Some(known) => command = Some(known),
                        None => return Err(unknown("command", "", &word, commands)),
                    },
                }
            }
        }
    }
    for (flag, value) in flags {
        match command.is_some_and(|command| command.flags.contains(&flag)) {
            true => given.flags.push((flag, value)),
            false => return Err(misplaced(flag, command, commands)),
        }
    }
    call(command, &modes, given)
}

/// The flag of any command that is spelt like this.
fn flag(option: &str, commands: &'static [Command]) -> Option<&'static str> {
    let mut flags = commands.iter().flat_map(|command| command.flags);
    flags.find(|flag| plain(flag) == option).copied()
}

/// The name of a flag without the mark of its value.
fn plain(flag: &'static str) -> &'static str {
    flag.trim_end_matches('=')
}

/// What the options ask for together.
fn call(
    command: Option<&'static Command>,
    modes: &[&'static str],
    given: Arguments,
) -> Result<Call, String> {
    if let [mode, other, ..] = *modes {
        return Err(match mode == other {
            true => format!("{mode} is given twice"),
            false => format!("{mode} and {other} cannot be combined"),
        });
    }
    if given.online && modes.first() != Some(&CHECK) {
        return Err(format!("{ONLINE} needs {CHECK}"));
    }
    match (command, modes.first()) {
        (Some(command), None) => Ok(Call::Command(command, given)),
        (Some(command), Some(mode)) => {
            Err(format!("{mode} and {} cannot be combined", command.name))
        }
        (None, None) => Ok(Call::Run(given)),
        (None, Some(&CHECK)) => Ok(Call::Check(given)),
        (None, Some(_)) => Ok(Call::Demo),
    }
}

/// The error about an unknown command, with a suggestion.
pub fn unknown_command(name: &str, commands: &[Command]) -> String {
    unknown("command", "", name, commands)
}

/// The error about an unknown command or option, with a suggestion.
fn unknown(what: &str, dashes: &str, name: &str, commands: &[Command]) -> String {
    let unknown = format!("unknown {what} {dashes}{}", name.escape_debug());
    let names: Vec<&'static str> = commands.iter().map(|command| command.name).collect();
    let flags = commands.iter().flat_map(|command| command.flags);
    let flags = flags.map(|flag| plain(flag));
    let options = OPTIONS.iter().map(|option| option.name);
    let options: Vec<&'static str> = options.chain(flags).collect();
    let whole = |names: &[&'static str]| names.iter().find(|known| **known == name).copied();
    let begins = |names: &[&'static str]| {
        let mut found = names.iter().filter(|known| known.starts_with(name));
        let first = found.next().copied().filter(|_| name.len() > 1);
        first.filter(|_| found.next().is_none())
    };
    let near = |names: &[&'static str]| {
        whole(names)
            .or_else(|| begins(names))
            .or_else(|| nearest::nearest(name, names.iter().copied()))
    };
    let command = match what {
        "command" => near(&names),
        _ => whole(&names),
    };
    if let Some(command) = command {
        return format!("{unknown} (did you mean {command}?)");
    }
    if let Some(option) = near(&options) {
        return format!("{unknown} (did you mean --{option}?)");
    }
    let file = Path::new(name);
    let config = file.extension().is_some_and(|e| e == "yml" || e == "yaml") || file.is_file();
    if what == "command" && config {
        let file = name.escape_debug();
        return format!("{unknown} (to name a configuration, use -c {file})");
    }
    let names = names.join(", ");
    format!("{unknown}; the commands are {names}")
}

/// The error about a flag of another command.
fn misplaced(flag: &'static str, command: Option<&Command>, commands: &[Command]) -> String {
    let takers: Vec<&str> = commands
        .iter()
        .filter(|known| known.flags.contains(&flag))
        .map(|known| known.name)
        .collect();
    let takers = takers.join(" and ");
    let flag = plain(flag);
    match command {
        Some(command) => format!("--{flag} is an option of {takers}, not of {}", command.name),
        None => format!("--{flag} is an option of {takers}"),
    }
}

/// The general help.
pub fn help(commands: &[Command]) -> String {
    let line = |command: &Command| {
        let call = call_of(command);
        format!("  {call:<29} {}\n", command.summary)
    };
    let commands: String = commands.iter().map(line).collect();
    let options: String = OPTIONS.iter().map(option_line).collect();
    format!(
        "\
{ABOUT}

Usage: upslot [-c FILE] [-l FILE]
       upslot [-c FILE] COMMAND ...

Commands:
{commands}
Options:
{options}
Signals: {SIGNALS}"
    )
}

fn option_line(option: &CommonOption) -> String {
    let short = match option.short {
        Some(short) => format!("-{short},"),
        None => String::new(),
    };
    let long = format!("--{} {}", option.name, option.value);
    format!("  {short:<3} {long:<16} {}\n", option.summary)
}

/// The help of one command.
pub fn help_of(command: &Command) -> String {
    let Command {
        summary, details, ..
    } = command;
    let call = call_of(command);
    let gap = if details.is_empty() { "" } else { "\n" };
    format!("Usage: upslot [-c FILE] {call}\n\n{summary}\n{gap}{details}")
}

/// A command with its arguments.
pub fn call_of(command: &Command) -> String {
    format!("{} {}", command.name, command.usage)
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: Arguments) -> Result<ExitCode, Failure> {
        Ok(ExitCode::SUCCESS)
    }

    static COMMANDS: [Command; 2] = [
        Command {
            name: "explain",
            usage: "JID",
            summary: "why",
            details: "",
            flags: &[],
            run: nothing,
        },
        Command {
            name: "remove",
            usage: "JID",
            summary: "delete",
            details: "At once.\n",
            flags: &["dry-run", "limit="],
            run: nothing,
        },
    ];

    /// The call in short form, or the error.
    fn read(line: &str) -> Result<String, String> {
        let words = line.split_whitespace().map(OsString::from).collect();
        parse(words, &COMMANDS).map(|call| match call {
            Call::Run(given) => format!("run {:?} {:?}", given.config, given.logfile),
            Call::Check(given) => format!("check {:?}", given.config),
            Call::Demo => "demo".into(),
            Call::Version => "version".into(),
            Call::Help(command) => format!("help {:?}", command.map(|c| c.name)),
            Call::Command(command, given) => {
                let dry = given.has("dry-run");
                let limit = given
                    .value("limit=")
                    .map_or(String::new(), |v| format!(" {v:?}"));
                format!("{} {:?} {dry}{limit}", command.name, given.words)
            }
        })
    }

    #[track_caller]
    fn good(line: &str, call: &str) {
        assert_eq!(read(line).as_deref(), Ok(call), "{line}");
    }

    #[track_caller]
    fn bad(line: &str, why: &str) {
        let error = read(line).expect_err(line);
        assert!(error.contains(why), "{line}: {error}");
    }

    #[test]
    fn options_may_be_anywhere() {
        good("", "run None None");
        good("-c a -l b", "run Some(\"a\") Some(\"b\")");
        good("--config=a --check-config", "check Some(\"a\")");
        good("--demo", "demo");
        good("-V --nonsense", "version");
        good("-c a remove x --dry-run", "remove [\"x\"] true");
        good("--dry-run remove x y", "remove [\"x\", \"y\"] true");
        good("remove x --limit 1 --limit=2", "remove [\"x\"] false \"2\"");
        good("explain --help", "help Some(\"explain\")");
        good("--help", "help None");
    }

    #[test]
    fn suggestions_are_made() {
        bad(
            "explian x",
            "unknown command explian (did you mean explain?)",
        );
        bad("rem x", "did you mean remove?");
        bad(
            "--explain x",
            "unknown option --explain (did you mean explain?)",
        );
        bad(
            "--chek-config",
            "unknown option --chek-config (did you mean --check-config?)",
        );
        bad("--check_config", "did you mean --check-config?");
        bad("--conf x", "did you mean --config?");
        bad("demo", "unknown command demo (did you mean --demo?)");
        bad("check-config", "did you mean --check-config?");
        bad("remove x --dryrun", "did you mean --dry-run?");
        bad("site.yml", "use -c site.yml");
        bad(
            "nonsense",
            "unknown command nonsense; the commands are explain, remove",
        );
        bad("-x", "unknown option -x");
        bad("a\u{1b}[m", "\\u{1b}");
    }

    #[test]
    fn contradictory_arguments_are_errors() {
        bad("-c", "missing argument");
        bad("remove x --limit", "missing argument");
        bad(
            "explain x --limit 1",
            "--limit is an option of remove, not of explain",
        );
        bad("remove x --limi 1", "did you mean --limit?");
        bad("--check-config --demo", "cannot be combined");
        bad("--demo --demo", "twice");
        bad("--demo explain x", "--demo and explain cannot be combined");
        bad(
            "explain x --dry-run",
            "--dry-run is an option of remove, not of explain",
        );
        bad("--dry-run", "--dry-run is an option of remove");
    }

    #[test]
    fn help_has_every_command() {
        let text = help(&COMMANDS);
        assert!(
            text.contains("  explain JID                   why\n"),
            "{text}"
        );
        assert_eq!(
            help_of(&COMMANDS[1]),
            "Usage: upslot [-c FILE] remove JID\n\ndelete\n\nAt once.\n"
        );
        for option in OPTIONS {
            assert!(text.contains(&format!("--{}", option.name)), "{option:?}");
        }
    }

    #[test]
    fn the_working_directory_comes_first() {
        let dir = std::env::temp_dir().join(format!("upslot-arguments-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (here, fallback) = (dir.join("here"), dir.join("fallback"));
        let both = [here.as_path(), fallback.as_path()];
        assert_eq!(first_existing(&both), here);
        std::fs::write(&fallback, "").unwrap();
        assert_eq!(first_existing(&both), fallback);
        std::fs::write(&here, "").unwrap();
        assert_eq!(first_existing(&both), here);
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(CONFIG_FILES, ["config.yml", "/etc/upslot/config.yml"]);
    }
}
