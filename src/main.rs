//! The program: arguments, logging, exit code. Everything else is in the library.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

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

/// An error in the configuration or at the start, or a refusal.
const FAULT: u8 = 1;

/// Arguments that make no sense.
const USAGE: u8 = 2;

/// Every command. One more is one more entry.
static COMMANDS: [Command; 5] = [
    Command {
        name: "explain",
        usage: "JID [SIZE] [TYPE]",
        summary: "what a slot request would be answered, and why",
        details: "\
Says which whitelist entry and which rule decide on a slot request of JID (for SIZE
bytes of the MIME type TYPE), shows every limit with its present use, and why the slot
would be refused; the exit code is then 1. SIZE takes units, as in 10 MiB.
",
        flags: &[],
        run: explain_slot,
    },
    Command {
        name: "list",
        usage: "JID | --all",
        summary: "what is stored of an owner, or of all",
        details: "\
Prints one line for each file of JID, the oldest first: time, size, purpose, end, link.
With --all it prints one line for each owner, the largest first: size, files, owner
folder. list and remove take the name of an owner folder, too, in the place of a JID.
",
        flags: &["all"],
        run: list_files,
    },
    Command {
        name: "remove",
        usage: "JID | URL [--dry-run]",
        summary: "delete all files of an owner, or one file",
        details: "\
Deletes all files of JID, or the file of a link (a GET or PUT URL), durably, so that no
upload link brings them back, and a running upslot knows at once. Upload slots that JID
was given before are void. --dry-run only says what would be deleted. The exit code is 1
if not all of it was, and 0 where there was nothing.
",
        flags: &["dry-run"],
        run: remove_files,
    },
    Command {
        name: "health",
        usage: "",
        summary: "whether the upslot that runs with this configuration works",
        details: "\
Asks for /health of the local API if there is one, else for the public page /, and prints
one line; the exit code is 0 or 1. For containers without a shell, and for monitoring.
",
        flags: &[],
        run: ask_health,
    },
    Command {
        name: "help",
        usage: "[COMMAND]",
        summary: "this, or what one command does",
        details: "",
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
        [name] => match COMMANDS.iter().find(|command| command.name == name) {
            Some(command) => arguments::help_of(command),
            None => return Err(arguments::unknown_command(name, &COMMANDS)),
        },
        _ => return Err("help takes the name of one command".into()),
    };
    print(&text);
    Ok(ExitCode::SUCCESS)
}

/// Reads the configuration for a command. What is wrong with it has been reported when this fails.
fn read_setup(given: &Arguments) -> Result<Setup, ExitCode> {
    setup::inspect(&given.config()).map_err(|failure| {
        for warning in failure.warnings {
            report(&format!("warning: {warning}"));
        }
        for error in failure.faults {
            report(&format!("error: {error}"));
        }
        ExitCode::from(FAULT)
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
                ExitCode::from(if explanation.granted { 0 } else { FAULT })
            }
            Err(error) => {
                report(&format!("error: {error}"));
                ExitCode::from(FAULT)
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

/// What came of a command that has written an answer.
fn ended(result: Result<(), String>, out: &mut impl Write) -> ExitCode {
    // A reader that left is no fault of ours.
    let _ = out.flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(errors) => {
            for error in errors.lines() {
                report(&format!("error: {error}"));
            }
            ExitCode::from(FAULT)
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
            ExitCode::from(FAULT)
        }
    })
}

/// Takes signals over: the first thing that the service does. Commands that only look something up keep the system's
/// actions.
fn take_over_signals() -> Result<Signals, ExitCode> {
    Signals::register().map_err(|error| {
        report(&format!("error: cannot take over signals: {error}."));
        ExitCode::from(FAULT)
    })
}

fn demonstrate() -> ExitCode {
    let signals = match take_over_signals() {
        Ok(signals) => signals,
        Err(code) => return code,
    };
    signals.defer();
    let begun = logger::start(log::LevelFilter::Info, None).and_then(|()| {
        Demo::new().map_err(|error| format!("cannot make a folder or find ports: {error}."))
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
            ExitCode::from(FAULT)
        }
    }
}

/// Says what is odd about a configuration.
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
    let signals = match take_over_signals() {
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
        return ExitCode::from(FAULT);
    }
    let sockets = match sockets {
        Ok(sockets) => sockets,
        Err(error) => {
            drop(signals);
            log::error!("cannot start why={error:?}");
            return ExitCode::from(FAULT);
        }
    };
    let setup = match setup {
        Ok(setup) => setup,
        Err(failure) => {
            drop(signals);
            for warning in failure.warnings {
                log::warn!("config warning={warning:?}");
            }
            for fault in failure.faults {
                log::error!("cannot start why={fault:?}");
            }
            return ExitCode::from(FAULT);
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
            ExitCode::from(FAULT)
        }
    }
}

/// To standard output; a reader that left is no fault of ours.
fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// To standard error.
fn report(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}
