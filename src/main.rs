//! The program: arguments, logging, exit code. Everything else is in the library.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use upslot::config::keys;
use upslot::demo::Demo;
use upslot::explain::{self, Explanation};
use upslot::import::Import;
use upslot::layout::Owner;
use upslot::list;
#[cfg(feature = "s3")]
use upslot::objects::client::BucketClient;
#[cfg(feature = "s3")]
use upslot::objects::commands;
use upslot::reactor::Reactor;
#[cfg(feature = "s3")]
use upslot::remove::Wanted;
use upslot::remove::{self, Target};
use upslot::setup::{self, Setup};
use upslot::signals::Signals;
use upslot::slot::SlotRequest;
use upslot::{activation, doctor, health, sys};

mod arguments;
mod logger;

use arguments::{Arguments, Call, Command, Failure};

/// Exit code after an error or a refusal.
const FAILURE: u8 = 1;

/// Exit code after invalid arguments.
const USAGE: u8 = 2;

/// The topic of `help` that is not a command.
const CONFIG_TOPIC: &str = "config";

/// Every command.
static COMMANDS: [Command; 7] = [
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
        name: "import",
        usage: "FROM PATH [--dry-run]",
        summary: "take over the files of another program",
        details: "\
Takes over the files below PATH that another program has stored, with their owners,
types and times as far as it knows them, and keeps their links working. FROM is one of
prosody-file-share, prosody-http-upload, metronome, ejabberd, hmac-file-server,
prosody-filer, share.php, django. It can be interrupted and repeated, also while upslot
is running, and removes nothing below PATH.
--owner JID takes files whose owner is not known as those of JID; --owner @DOMAIN
completes local parts. --index FILE names the list of uploads. --dry-run only shows what
would be imported. The exit code is 1 if the import could not be completed.
",
        flags: &["dry-run", "owner=", "index="],
        run: import_files,
    },
    Command {
        name: "doctor",
        usage: "[--full] [--json] [--ca-file FILE]",
        summary: "check the whole way from a client to the store",
        details: "\
Checks DNS, ports, certificates, the reverse proxy, uploads and downloads as a client
does, the XMPP server, and the storage folder, and prints one line for each check with
what to change. Test files are removed again. Run it beside a running upslot, as the
superuser or as upslot's user. The exit code is 1 if a check failed.
--full also sends a file of max_file_size. --json prints the result as one JSON object.
--ca-file names root certificates to trust instead of those of the system, as the
environment variable SSL_CERT_FILE does.
",
        flags: &["full", "json", "ca-file="],
        run: examine,
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
    let ended = call
        .map_err(Failure::Arguments)
        .and_then(|call| match call {
            Call::Run(given) => run(given),
            Call::Check(given) => check(&given),
            Call::Demo => demonstrate(),
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
    ended.unwrap_or_else(|failure| match failure {
        Failure::Arguments(error) => {
            report(&format!("error: {error}; see upslot help."));
            ExitCode::from(USAGE)
        }
        Failure::Command(errors) => {
            for error in errors.lines() {
                report(&format!("error: {error}"));
            }
            ExitCode::from(FAILURE)
        }
        Failure::Service(errors) => {
            for error in errors.lines() {
                log::error!("cannot start why={error:?}");
            }
            ExitCode::from(FAILURE)
        }
    })
}

fn show_help(given: Arguments) -> Result<ExitCode, Failure> {
    let text = match &given.words[..] {
        [] => arguments::help(&COMMANDS),
        [name] if name == CONFIG_TOPIC => keys::listing(),
        [name] => match COMMANDS.iter().find(|command| command.name == name) {
            Some(command) => arguments::help_of(command),
            None => {
                let error = arguments::unknown_command(name, &COMMANDS);
                return Err(Failure::Arguments(error));
            }
        },
        _ => return arguments_error("help takes the name of one command, or config"),
    };
    print(&text);
    Ok(ExitCode::SUCCESS)
}

fn arguments_error<T>(error: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Arguments(error.into()))
}

/// Reads the configuration for a command.
fn read_setup(given: &Arguments) -> Result<Setup, Failure> {
    setup::inspect(&given.config()).map_err(|failure| {
        warn(&failure.warnings);
        Failure::Command(failure.errors.join("\n"))
    })
}

/// The client of the object store, if files are kept in one.
#[cfg(feature = "s3")]
fn object_store(setup: &Setup) -> Result<Option<BucketClient>, Failure> {
    BucketClient::of(setup).map_err(Failure::Command)
}

fn explain_slot(given: Arguments) -> Result<ExitCode, Failure> {
    let request = explain::parse(&given.words).map_err(Failure::Arguments)?;
    let setup = read_setup(&given)?;
    warn(&setup.warnings);
    let explanation = explanation(&setup, &request).map_err(Failure::Command)?;
    print(&explanation.text);
    Ok(ExitCode::from(if explanation.granted {
        0
    } else {
        FAILURE
    }))
}

fn explanation(setup: &Setup, request: &SlotRequest) -> Result<Explanation, String> {
    let now = sys::now();
    #[cfg(feature = "s3")]
    if let Some(mut client) = BucketClient::of(setup)? {
        return commands::explain(&mut client, &setup.config, request, now);
    }
    explain::explain(&setup.config, request, now)
}

fn list_files(given: Arguments) -> Result<ExitCode, Failure> {
    let owner = match (&given.words[..], given.has("all")) {
        ([], true) => None,
        ([word], false) => match Owner::parse(word) {
            None => return arguments_error(format!("{word:?} is not an address")),
            owner => owner,
        },
        _ => return arguments_error("list takes a JID, or --all"),
    };
    let setup = read_setup(&given)?;
    let mut out = BufWriter::new(std::io::stdout());
    #[cfg(feature = "s3")]
    if let Some(mut client) = object_store(&setup)? {
        let listed = match &owner {
            Some(owner) => commands::list_one(&mut client, &setup.config, owner, &mut out),
            None => commands::list_all(&mut client, &mut out),
        };
        return end_output(listed, &mut out);
    }
    let listed = match &owner {
        Some(owner) => list::one(&setup.config, owner, &mut out),
        None => list::all(&setup.config, &mut out),
    };
    end_output(listed, &mut out)
}

fn remove_files(given: Arguments) -> Result<ExitCode, Failure> {
    let [word] = &given.words[..] else {
        return arguments_error("remove takes a JID or a URL");
    };
    let Some(target) = Target::parse(word) else {
        return arguments_error(format!("{word:?} is not an address"));
    };
    let setup = read_setup(&given)?;
    let mut out = BufWriter::new(std::io::stdout());
    let removed = logger::start(setup.config.log_level, given.logfile.clone())
        .and_then(|()| remove_target(&setup, &target, given.has("dry-run"), &mut out));
    end_output(removed, &mut out)
}

fn remove_target(
    setup: &Setup,
    target: &Target,
    dry_run: bool,
    out: &mut dyn Write,
) -> Result<(), String> {
    #[cfg(feature = "s3")]
    if setup.config.s3.is_some() {
        // A foreign URL is an error whether the store can be reached or not.
        let wanted = Wanted::new(&setup.config, target)?;
        if let Some(mut client) = BucketClient::of(setup)? {
            return commands::remove(&mut client, &setup.config, (target, &wanted), dry_run, out);
        }
    }
    remove::remove(&setup.config, target, dry_run, out)
}

fn import_files(given: Arguments) -> Result<ExitCode, Failure> {
    let owner = match given.value("owner=") {
        Some(owner) => match owner.to_str() {
            None => return arguments_error(format!("{owner:?} is not an address")),
            owner => owner,
        },
        None => None,
    };
    let index = given.value("index=").map(PathBuf::from);
    let import = Import::parse(&given.words, owner, index, given.has("dry-run"));
    let import = import.map_err(Failure::Arguments)?;
    let setup = read_setup(&given)?;
    if setup.config.s3.is_some() {
        let why = "import: files are taken over into a folder only. Copy the objects of another program within the store, \
                   or keep them where they are; see contrib/docs/object-store.md.";
        return Err(Failure::Command(why.to_owned()));
    }
    let mut out = BufWriter::new(std::io::stdout());
    let imported = logger::start(setup.config.log_level, given.logfile.clone())
        .and_then(|()| import.run(&setup.config, &mut out));
    end_output(imported, &mut out)
}

/// Ends the output of a command, before its errors are reported.
fn end_output(result: Result<(), String>, out: &mut impl Write) -> Result<ExitCode, Failure> {
    // A closed standard output is not an error.
    let _ = out.flush();
    result.map_err(Failure::Command)?;
    Ok(ExitCode::SUCCESS)
}

fn ask_health(given: Arguments) -> Result<ExitCode, Failure> {
    if !given.words.is_empty() {
        return arguments_error("health takes no arguments");
    }
    match health::ask(&given.config()) {
        Ok(line) => {
            print(&format!("{line}\n"));
            Ok(ExitCode::SUCCESS)
        }
        Err(line) => {
            report(&line);
            Ok(ExitCode::from(FAILURE))
        }
    }
}

fn examine(given: Arguments) -> Result<ExitCode, Failure> {
    if !given.words.is_empty() {
        return arguments_error("doctor takes no arguments besides its options");
    }
    let setup = read_setup(&given)?;
    warn(&setup.warnings);
    let options = doctor::Options {
        full: given.has("full"),
        ca_file: given.value("ca-file=").map(PathBuf::from),
    };
    let mut out = std::io::stdout();
    let coloured = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let report = match given.has("json") {
        true => doctor::run(&setup, &options, None),
        false => doctor::run(&setup, &options, Some((&mut out, coloured))),
    };
    let report = report.map_err(Failure::Command)?;
    if given.has("json") {
        print(&report.json());
    }
    Ok(ExitCode::from(if report.is_good() { 0 } else { FAILURE }))
}

/// Installs the signal handlers, as the first action of the service. Commands keep the default actions.
fn register_signals() -> Result<Signals, Failure> {
    Signals::register()
        .map_err(|error| Failure::Command(format!("cannot install signal handlers: {error}.")))
}

fn demonstrate() -> Result<ExitCode, Failure> {
    let signals = register_signals()?;
    signals.defer();
    logger::start(log::LevelFilter::Info, None).map_err(Failure::Command)?;
    let demo = Demo::new().map_err(|error| {
        Failure::Command(format!("cannot create a folder or find ports: {error}."))
    })?;
    let setup = demo.setup().map_err(Failure::Command)?;
    let config = PathBuf::from("config.yml");
    let mut reactor =
        Reactor::start(setup, config, None, signals, Vec::new()).map_err(Failure::Command)?;
    print(&demo.commands());
    run_loop(&mut reactor).map_err(Failure::Command)
}

fn run_loop(reactor: &mut Reactor) -> Result<ExitCode, String> {
    let ended = reactor.run();
    ended.map_err(|error| format!("the loop failed: {error}."))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the warnings of a configuration.
fn warn(warnings: &[String]) {
    for warning in warnings {
        report(&format!("warning: {warning}"));
    }
}

fn check(given: &Arguments) -> Result<ExitCode, Failure> {
    let setup = read_setup(given)?;
    warn(&setup.warnings);
    print(&format!("{}: no errors.\n", given.config().display()));
    if given.online {
        return check_online(&setup);
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks the object store.
fn check_online(setup: &Setup) -> Result<ExitCode, Failure> {
    #[cfg(feature = "s3")]
    if setup.config.s3.is_some() {
        let report = doctor::object_store::report(setup).map_err(Failure::Command)?;
        for finding in &report.findings {
            print(&format!("{}\n", finding.line(false)));
        }
        print(&format!("{}\n", report.summary()));
        return Ok(ExitCode::from(if report.is_good() { 0 } else { FAILURE }));
    }
    let _ = setup;
    print("s3 is not set: there is nothing to check online.\n");
    Ok(ExitCode::SUCCESS)
}

/// Runs the service. An error ends the handling of signals before it is reported.
fn run(given: Arguments) -> Result<ExitCode, Failure> {
    let signals = register_signals()?;
    let sockets = activation::sockets();
    let (config, logfile) = (given.config(), given.logfile);
    let setup = setup::read(&config);
    let level = setup
        .as_ref()
        .map_or(log::LevelFilter::Info, |setup| setup.config.log_level);
    let logging = logger::start(level, logfile.clone());
    signals.defer();
    logging.map_err(Failure::Command)?;
    let sockets = sockets.map_err(Failure::Service)?;
    let setup = match setup {
        Ok(setup) => setup,
        Err(failure) => {
            drop(signals);
            log_warnings(&failure.warnings);
            return Err(Failure::Service(failure.errors.join("\n")));
        }
    };
    log::info!(
        "starting version={} config={}",
        env!("CARGO_PKG_VERSION"),
        config.display()
    );
    log_warnings(&setup.warnings);
    let mut reactor = Reactor::start(setup, config, logfile.as_deref(), signals, sockets)
        .map_err(Failure::Service)?;
    reactor.on_reload(|level| {
        logger::set_level(level);
        logger::reopen();
    });
    let code = run_loop(&mut reactor).map_err(Failure::Service)?;
    drop(reactor);
    log::info!("stopped");
    Ok(code)
}

fn log_warnings(warnings: &[String]) {
    for warning in warnings {
        log::warn!("config warning={warning:?}");
    }
}

/// Writes to standard output; a closed one is not an error.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Writes a line to standard error.
fn report(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests;
