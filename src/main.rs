//! The program: arguments, logging, exit code. Everything else is in the library.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use upslot::config::keys;
use upslot::demo::Demo;
use upslot::explain::{self, Question};
use upslot::list::{self, Owner};
use upslot::reactor::Reactor;
use upslot::remove::{self, Target};
use upslot::setup::{self, Setup};
use upslot::signals::Signals;
use upslot::{activation, health, sys};

mod arguments;
mod logger;

use arguments::{Arguments, Call, Command};

/// Exit code after an error or a refusal.
const FAILURE: u8 = 1;

/// Exit code after invalid arguments.
const USAGE: u8 = 2;

/// The topic of `help` that is not a command.
const CONFIG_TOPIC: &str = "config";

/// Every command.
static COMMANDS: [Command; 5] = [
    Command {
        name: "explain",
        usage: "JID [SIZE] [TYPE]",
        summary: "show whether a slot would be granted, and why",
        details: "\
Shows which whitelist entry and which access rule apply to a slot request of JID (for
SIZE bytes of the MIME type TYPE), every limit with its current use, and the decision.
The exit code is 1 if the slot would be refused. SIZE takes units, as in 10 MiB.
",
        flags: &[],
        run: explain_slot,
    },
    Command {
        name: "list",
        usage: "JID | --all",
        summary: "list the files of an owner, or all owners",
        details: "\
Prints one line for each file of JID, the oldest first: time, size, purpose, expiry,
link. With --all it prints one line for each owner, the largest first: size, files,
owner folder. list and remove also accept the name of an owner folder as JID.
",
        flags: &["all"],
        run: list_files,
    },
    Command {
        name: "remove",
        usage: "JID | URL [--dry-run]",
        summary: "delete all files of an owner, or one file",
        details: "\
Deletes all files of JID, or the file of a GET or PUT URL. The deletion is durable, a
running upslot applies it at once, and upload slots issued before become invalid.
--dry-run only shows what would be deleted. The exit code is 1 if something could not
be deleted, and 0 if there was nothing to delete.
",
        flags: &["dry-run"],
        run: remove_files,
    },
    Command {
        name: "health",
        usage: "",
        summary: "check the running upslot",
        details: "\
Requests /health from the local API if there is one, else the public page /, and prints
one line; the exit code is 0 or 1. For containers without a shell, and for monitoring.
",
        flags: &[],
        run: ask_health,
    },
    Command {
        name: "help",
        usage: "[COMMAND | config]",
        summary: "show this help, that of a command, or all configuration keys",
        details: "help config lists every key with its type, default and meaning.\n",
        flags: &[],
        run: show_help,
    },
];

fn main() -> ExitCode {
    sys::guard_memory();
    let call = arguments::parse(std::env::args_os().skip(1).collect(), &COMMANDS);
    let ended = call.and_then(|call| match call {
        Call::Run(given) => Ok(run(given)),
        Call::Check(given) => Ok(check(&given)),
        Call::Demo => Ok(demonstrate()),
        Call::Version => {
            print(concat!("upslot ", env!("CARGO_PKG_VERSION"), "\n"));
            Ok(ExitCode::SUCCESS)
        }
        Call::Help(command) => {
            print(&command.map_or_else(|| arguments::help(&COMMANDS), arguments::help_of));
            Ok(ExitCode::SUCCESS)
        }
        Call::Command(command, given) => (command.run)(given),
    });
    ended.unwrap_or_else(|error| {
        report(&format!("error: {error}; see upslot help."));
        ExitCode::from(USAGE)
    })
}

fn show_help(given: Arguments) -> Result<ExitCode, String> {
    let text = match &given.words[..] {
        [] => arguments::help(&COMMANDS),
        [name] if name == CONFIG_TOPIC => keys::listing(),
        [name] => match COMMANDS.iter().find(|command| command.name == name) {
            Some(command) => arguments::help_of(command),
            None => return Err(arguments::unknown_command(name, &COMMANDS)),
        },
        _ => return Err("help takes the name of one command, or config".into()),
    };
    print(&text);
    Ok(ExitCode::SUCCESS)
}

/// Reads the configuration for a command. Errors have been reported when this fails.
fn read_setup(given: &Arguments) -> Result<Setup, ExitCode> {
    setup::inspect(&given.config()).map_err(|failure| {
        for warning in failure.warnings {
            report(&format!("warning: {warning}"));
        }
        for error in failure.errors {
            report(&format!("error: {error}"));
        }
        ExitCode::from(FAILURE)
    })
}

fn explain_slot(given: Arguments) -> Result<ExitCode, String> {
    let question = Question::parse(&given.words)?;
    let setup = match read_setup(&given) {
        Ok(setup) => setup,
        Err(code) => return Ok(code),
    };
    warn(&setup);
    Ok(
        match explain::explain(&setup.config, &question, sys::now()) {
            Ok(explanation) => {
                print(&explanation.text);
                ExitCode::from(if explanation.granted { 0 } else { FAILURE })
            }
            Err(error) => {
                report(&format!("error: {error}"));
                ExitCode::from(FAILURE)
            }
        },
    )
}

fn list_files(given: Arguments) -> Result<ExitCode, String> {
    let owner = match (&given.words[..], given.has("all")) {
        ([], true) => None,
        ([word], false) => {
            Some(Owner::parse(word).ok_or_else(|| format!("{word:?} is not an address"))?)
        }
        _ => return Err("list takes a JID, or --all".into()),
    };
    let setup = match read_setup(&given) {
        Ok(setup) => setup,
        Err(code) => return Ok(code),
    };
    let mut out = BufWriter::new(std::io::stdout());
    let listed = match &owner {
        Some(owner) => list::one(&setup.config, owner, &mut out),
        None => list::all(&setup.config, &mut out),
    };
    Ok(ended(listed, &mut out))
}

fn remove_files(given: Arguments) -> Result<ExitCode, String> {
    let [word] = &given.words[..] else {
        return Err("remove takes a JID or a URL".into());
    };
    let target = Target::parse(word).ok_or_else(|| format!("{word:?} is not an address"))?;
    let setup = match read_setup(&given) {
        Ok(setup) => setup,
        Err(code) => return Ok(code),
    };
    let mut out = BufWriter::new(std::io::stdout());
    let removed = logger::start(setup.config.log_level, given.logfile.clone())
        .and_then(|()| remove::remove(&setup.config, &target, given.has("dry-run"), &mut out));
    Ok(ended(removed, &mut out))
}

/// The exit code of a command that has written its output.
fn ended(result: Result<(), String>, out: &mut impl Write) -> ExitCode {
    // A closed standard output is not an error.
    let _ = out.flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(errors) => {
            for error in errors.lines() {
                report(&format!("error: {error}"));
            }
            ExitCode::from(FAILURE)
        }
    }
}

fn ask_health(given: Arguments) -> Result<ExitCode, String> {
    if !given.words.is_empty() {
        return Err("health takes no arguments".into());
    }
    Ok(match health::ask(&given.config()) {
        Ok(line) => {
            print(&format!("{line}\n"));
            ExitCode::SUCCESS
        }
        Err(line) => {
            report(&line);
            ExitCode::from(FAILURE)
        }
    })
}

/// Installs the signal handlers, as the first action of the service. Commands keep the default actions.
fn register_signals() -> Result<Signals, ExitCode> {
    Signals::register().map_err(|error| {
        report(&format!("error: cannot install signal handlers: {error}."));
        ExitCode::from(FAILURE)
    })
}

fn demonstrate() -> ExitCode {
    let signals = match register_signals() {
        Ok(signals) => signals,
        Err(code) => return code,
    };
    signals.defer();
    let begun = logger::start(log::LevelFilter::Info, None).and_then(|()| {
        Demo::new().map_err(|error| format!("cannot create a folder or find ports: {error}."))
    });
    let ended = begun.and_then(|demo| {
        let mut reactor = Reactor::start(
            demo.setup()?,
            PathBuf::from("config.yml"),
            None,
            signals,
            Vec::new(),
        )?;
        print(&demo.commands());
        reactor
            .run()
            .map_err(|error| format!("the loop failed: {error}."))
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for error in error.lines() {
                report(&format!("error: {error}"));
            }
            ExitCode::from(FAILURE)
        }
    }
}

/// Prints the warnings of a configuration.
fn warn(setup: &Setup) {
    for warning in &setup.warnings {
        report(&format!("warning: {warning}"));
    }
}

fn check(given: &Arguments) -> ExitCode {
    let setup = match read_setup(given) {
        Ok(setup) => setup,
        Err(code) => return code,
    };
    warn(&setup);
    print(&format!("{}: no errors.\n", given.config().display()));
    ExitCode::SUCCESS
}

fn run(given: Arguments) -> ExitCode {
    let signals = match register_signals() {
        Ok(signals) => signals,
        Err(code) => return code,
    };
    let sockets = activation::sockets();
    let (config, logfile) = (given.config(), given.logfile);
    let setup = setup::read(&config);
    let level = setup
        .as_ref()
        .map_or(log::LevelFilter::Info, |setup| setup.config.log_level);
    let logging = logger::start(level, logfile.clone());
    signals.defer();
    if let Err(error) = logging {
        drop(signals);
        report(&format!("error: {error}"));
        return ExitCode::from(FAILURE);
    }
    let sockets = match sockets {
        Ok(sockets) => sockets,
        Err(error) => {
            drop(signals);
            log::error!("cannot start why={error:?}");
            return ExitCode::from(FAILURE);
        }
    };
    let setup = match setup {
        Ok(setup) => setup,
        Err(failure) => {
            drop(signals);
            for warning in failure.warnings {
                log::warn!("config warning={warning:?}");
            }
            for error in failure.errors {
                log::error!("cannot start why={error:?}");
            }
            return ExitCode::from(FAILURE);
        }
    };
    log::info!(
        "starting version={} config={}",
        env!("CARGO_PKG_VERSION"),
        config.display()
    );
    for warning in &setup.warnings {
        log::warn!("config warning={warning:?}");
    }
    let started = Reactor::start(setup, config, logfile.as_deref(), signals, sockets);
    let ended = started.and_then(|mut reactor| {
        reactor.on_reload(|level| {
            logger::set_level(level);
            logger::reopen();
        });
        reactor
            .run()
            .map_err(|error| format!("the loop failed: {error}."))
    });
    match ended {
        Ok(()) => {
            log::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            for error in error.lines() {
                log::error!("cannot start why={error:?}");
            }
            ExitCode::from(FAILURE)
        }
    }
}

/// Writes to standard output; a closed one is not an error.
fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Writes a line to standard error.
fn report(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}
