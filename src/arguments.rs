//! The command line: what it asks for, and what was probably meant where it makes no sense.
//!
//! Commands come in as a table, so that a new one is one more entry: parsing, help and suggestions follow from it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use upslot::config::nearest;

/// Where the configuration is looked for when none is named, in this order.
const CONFIG_FILES: [&str; 2] = ["config.yml", "/etc/upslot/config.yml"];

/// The options that ask for something else than the service, and those that say how it runs; without their dashes.
const OPTIONS: [&str; 6] = [
    "config",
    "logfile",
    "check-config",
    "demo",
    "version",
    "help",
];

const CHECK: &str = "--check-config";
const DEMO: &str = "--demo";

/// One command, such as `explain`.
#[derive(Debug)]
pub struct Command {
    pub name: &'static str,
    /// Its arguments, as the help shows them.
    pub usage: &'static str,
    /// What it does; one line of the help.
    pub summary: &'static str,
    /// More about it, for `help COMMAND`; lines that end in a line end, or nothing.
    pub details: &'static str,
    /// The long options without a value that it takes, without their dashes.
    pub flags: &'static [&'static str],
    /// Does it. An error is about the arguments.
    pub run: fn(Arguments) -> Result<ExitCode, String>,
}

/// What stands beside the command.
#[derive(Debug, Default)]
pub struct Arguments {
    config: Option<PathBuf>,
    pub logfile: Option<PathBuf>,
    /// The words after the command.
    pub words: Vec<String>,
    /// Flags of the command that are set.
    flags: Vec<&'static str>,
}

impl Arguments {
    /// The configuration that is named, or the first of the usual ones that is there.
    pub fn config(&self) -> PathBuf {
        match &self.config {
            Some(path) => path.clone(),
            None => first_there(&CONFIG_FILES.map(Path::new)),
        }
    }

    /// Whether the command's flag of this name is set.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.contains(&flag)
    }
}

/// The first path that is there, or that cannot be looked at; the first one if none is.
fn first_there(paths: &[&Path]) -> PathBuf {
    let there = |path: &&&Path| path.try_exists().unwrap_or(true);
    let path = paths.iter().find(there).or(paths.first());
    path.map_or_else(PathBuf::new, |path| (*path).to_owned())
}

/// What the arguments ask for.
#[derive(Debug)]
pub enum Call {
    /// The service itself.
    Run(Arguments),
    Check(Arguments),
    Demo,
    Version,
    /// The help, of everything or of one command.
    Help(Option<&'static Command>),
    Command(&'static Command, Arguments),
}

/// Reads the arguments. Fails with a sentence without its full stop.
pub fn parse(arguments: Vec<OsString>, commands: &'static [Command]) -> Result<Call, String> {
    use lexopt::prelude::{Long, Short, Value};
    let mut given = Arguments::default();
    let mut command: Option<&'static Command> = None;
    // What each option asks for that asks for something else than the service.
    let mut modes: Vec<&'static str> = Vec::new();
    let mut flags: Vec<String> = Vec::new();
    let mut parser = lexopt::Parser::from_args(arguments);
    let said = |error: lexopt::Error| error.to_string();
    while let Some(argument) = parser.next().map_err(said)? {
        match argument {
            Short('c') | Long("config") => {
                given.config = Some(parser.value().map_err(said)?.into())
            }
            Short('l') | Long("logfile") => {
                given.logfile = Some(parser.value().map_err(said)?.into())
            }
            Long("check-config") => modes.push(CHECK),
            Long("demo") => modes.push(DEMO),
            Short('V') | Long("version") => return Ok(Call::Version),
            Short('h') | Long("help") => return Ok(Call::Help(command)),
            Long(flag) if commands.iter().any(|known| known.flags.contains(&flag)) => {
                flags.push(flag.to_owned());
            }
            Long(option) => return Err(unknown("option", "--", option, commands)),
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
    for flag in flags {
        match command.and_then(|command| command.flags.iter().find(|known| **known == flag)) {
            Some(known) => given.flags.push(known),
            None => return Err(misplaced(&flag, command, commands)),
        }
    }
    if let [mode, other, ..] = modes[..] {
        return Err(match mode == other {
            true => format!("{mode} stands there twice"),
            false => format!("{mode} and {other} exclude each other"),
        });
    }
    match (command, modes.first()) {
        (Some(command), None) => Ok(Call::Command(command, given)),
        (Some(command), Some(mode)) => {
            Err(format!("{mode} and {} exclude each other", command.name))
        }
        (None, None) => Ok(Call::Run(given)),
        (None, Some(&CHECK)) => Ok(Call::Check(given)),
        (None, Some(_)) => Ok(Call::Demo),
    }
}

/// Says that no command has this name, and which may be meant.
pub fn unknown_command(name: &str, commands: &[Command]) -> String {
    unknown("command", "", name, commands)
}

/// Says that nothing has this name, and what may be meant.
fn unknown(what: &str, dashes: &str, name: &str, commands: &[Command]) -> String {
    let unknown = format!("unknown {what} {dashes}{}", name.escape_debug());
    let names: Vec<&'static str> = commands.iter().map(|command| command.name).collect();
    let flags: Vec<&'static str> = commands.iter().flat_map(|c| c.flags).copied().collect();
    let options: Vec<&'static str> = OPTIONS.iter().copied().chain(flags).collect();
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
    let (command, option) = match what {
        "command" => (near(&names), whole(&options).or_else(|| near(&options))),
        _ => (whole(&names), near(&options)),
    };
    if let Some(command) = command {
        return format!("{unknown}; {command} may be meant");
    }
    if let Some(option) = option {
        return format!("{unknown}; --{option} may be meant");
    }
    let file = Path::new(name);
    let config = file.extension().is_some_and(|e| e == "yml" || e == "yaml") || file.is_file();
    if what == "command" && config {
        let file = name.escape_debug();
        return format!("{unknown}; a configuration is named with -c {file}");
    }
    let names = names.join(", ");
    format!("{unknown}; the commands are {names}")
}

/// Says that a flag is for another command.
fn misplaced(flag: &str, command: Option<&Command>, commands: &[Command]) -> String {
    let takers: Vec<&str> = commands
        .iter()
        .filter(|known| known.flags.contains(&flag))
        .map(|known| known.name)
        .collect();
    let takers = takers.join(" and ");
    match command {
        Some(command) => format!("--{flag} is for {takers}, not for {}", command.name),
        None => format!("--{flag} is for {takers}"),
    }
}

/// The help.
pub fn help(commands: &[Command]) -> String {
    let line = |command: &Command| {
        let call = call_of(command);
        format!("  {call:<27} {}\n", command.summary)
    };
    let lines: String = commands.iter().map(line).collect();
    format!(
        "\
upslot stores and serves files that are shared over XMPP (HTTP File Upload, XEP-0363).

Usage: upslot [-c FILE] [-l FILE]
       upslot [-c FILE] COMMAND ...

Commands:
{lines}
Options:
  -c, --config FILE    configuration (default: config.yml here, then /etc/upslot/config.yml)
  -l, --logfile FILE   where to log (default: standard error)
      --check-config   read the configuration, report every error, exit
      --demo           run on loopback without XMPP, and print commands to try
  -V, --version        print the version
  -h, --help           print this

Signals: SIGTERM and SIGINT shut down in order, a second one at once; SIGHUP reads
the configuration and the certificate again and reopens the log file.
"
    )
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

fn call_of(command: &Command) -> String {
    format!("{} {}", command.name, command.usage)
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: Arguments) -> Result<ExitCode, String> {
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
            flags: &["dry-run"],
            run: nothing,
        },
    ];

    /// The call, shortly; or what is wrong.
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
                format!("{} {:?} {dry}", command.name, given.words)
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
    fn options_stand_anywhere() {
        good("", "run None None");
        good("-c a -l b", "run Some(\"a\") Some(\"b\")");
        good("--config=a --check-config", "check Some(\"a\")");
        good("--demo", "demo");
        good("-V --nonsense", "version");
        good("-c a remove x --dry-run", "remove [\"x\"] true");
        good("--dry-run remove x y", "remove [\"x\", \"y\"] true");
        good("explain --help", "help Some(\"explain\")");
        good("--help", "help None");
    }

    #[test]
    fn what_was_meant_is_said() {
        bad("explian x", "unknown command explian; explain may be meant");
        bad("rem x", "remove may be meant");
        bad(
            "--explain x",
            "unknown option --explain; explain may be meant",
        );
        bad(
            "--chek-config",
            "unknown option --chek-config; --check-config may be meant",
        );
        bad("--check_config", "--check-config may be meant");
        bad("--conf x", "--config may be meant");
        bad("demo", "unknown command demo; --demo may be meant");
        bad("check-config", "--check-config may be meant");
        bad("remove x --dryrun", "--dry-run may be meant");
        bad("site.yml", "a configuration is named with -c site.yml");
        bad(
            "nonsense",
            "unknown command nonsense; the commands are explain, remove",
        );
        bad("-x", "unknown option -x");
        bad("a\u{1b}[m", "\\u{1b}");
    }

    #[test]
    fn what_does_not_go_together_is_an_error() {
        bad("-c", "missing argument");
        bad("--check-config --demo", "exclude each other");
        bad("--demo --demo", "twice");
        bad("--demo explain x", "--demo and explain exclude each other");
        bad(
            "explain x --dry-run",
            "--dry-run is for remove, not for explain",
        );
        bad("--dry-run", "--dry-run is for remove");
    }

    #[test]
    fn help_has_every_command() {
        let text = help(&COMMANDS);
        assert!(
            text.contains("  explain JID                 why\n"),
            "{text}"
        );
        assert_eq!(
            help_of(&COMMANDS[1]),
            "Usage: upslot [-c FILE] remove JID\n\ndelete\n\nAt once.\n"
        );
        for option in OPTIONS {
            assert!(text.contains(&format!("--{option}")), "{option}");
        }
    }

    #[test]
    fn the_configuration_here_goes_first() {
        let dir = std::env::temp_dir().join(format!("upslot-arguments-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (here, fallback) = (dir.join("here"), dir.join("fallback"));
        let both = [here.as_path(), fallback.as_path()];
        assert_eq!(first_there(&both), here);
        std::fs::write(&fallback, "").unwrap();
        assert_eq!(first_there(&both), fallback);
        std::fs::write(&here, "").unwrap();
        assert_eq!(first_there(&both), here);
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(CONFIG_FILES, ["config.yml", "/etc/upslot/config.yml"]);
    }
}
