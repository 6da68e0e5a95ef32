//! The program: arguments, logging, exit code. Everything else is in the library.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use upslot::config::scalar;
use upslot::demo::Demo;
use upslot::explain::{self, Question};
use upslot::jid::BareJid;
use upslot::reactor::Reactor;
use upslot::signals::Signals;
use upslot::{activation, health, setup, sys};

mod logger;

/// A configuration or start-up fault.
const FAULT: u8 = 1;

/// Arguments that make no sense.
const USAGE: u8 = 2;

const HELP: &str = "\
upslot stores and serves files that are shared over XMPP (HTTP File Upload, XEP-0363).

Usage: upslot [-c FILE] [-l FILE]
       upslot [-c FILE] explain JID [SIZE] [TYPE]
       upslot [-c FILE] health

  -c, --config FILE    configuration (default: config.yml)
  -l, --logfile FILE   where to log (default: standard error)
      --check-config   read the configuration, report every fault, exit
      --demo           run on loopback without XMPP, and print commands to try
  -V, --version        print the version
  -h, --help           print this

explain says what a slot request of JID (for SIZE bytes of the MIME type TYPE)
would meet: whitelist and rules, every limit with its present use, and why it
would be refused.

health asks the upslot that runs with this configuration whether it works, prints
one line, and exits with 0 or 1.

Signals: SIGTERM and SIGINT end in order, a second one at once; SIGHUP reads the
configuration and the certificate anew and reopens the log file.
";

/// What the arguments ask for.
enum Call {
    Run {
        config: PathBuf,
        logfile: Option<PathBuf>,
    },
    Check {
        config: PathBuf,
    },
    Explain {
        config: PathBuf,
        question: Question,
    },
    Health {
        config: PathBuf,
    },
    Demo,
    Print(String),
}

fn main() -> ExitCode {
    sys::guard_memory();
    match arguments(std::env::args_os().skip(1).collect()) {
        Ok(Call::Print(text)) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Ok(Call::Check { config }) => check(config),
        Ok(Call::Explain { config, question }) => explain_slot(config, &question),
        Ok(Call::Health { config }) => ask_health(&config),
        Ok(Call::Demo) => demonstrate(),
        Ok(Call::Run { config, logfile }) => run(config, logfile),
        Err(error) => {
            complain(&format!("upslot: {error}. See upslot --help."));
            ExitCode::from(USAGE)
        }
    }
}

fn arguments(arguments: Vec<OsString>) -> Result<Call, lexopt::Error> {
    use lexopt::prelude::{Long, Short, Value};
    let mut config = PathBuf::from("config.yml");
    let mut logfile = None;
    let mut check = false;
    let mut demo = false;
    let mut health = false;
    let mut words: Vec<String> = Vec::new();
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('c') | Long("config") => config = parser.value()?.into(),
            Short('l') | Long("logfile") => logfile = Some(parser.value()?.into()),
            Long("check-config") => check = true,
            Long("demo") => demo = true,
            Value(word) if words.is_empty() && !health && word == "health" => health = true,
            // explain, and up to three words for it.
            Value(word)
                if !health && words.len() < 4 && (!words.is_empty() || word == "explain") =>
            {
                words.push(word.into_string()?);
            }
            Short('V') | Long("version") => {
                return Ok(Call::Print(format!(
                    "upslot {}\n",
                    env!("CARGO_PKG_VERSION")
                )));
            }
            Short('h') | Long("help") => return Ok(Call::Print(HELP.to_owned())),
            other => return Err(other.unexpected()),
        }
    }
    if let Some((_, question)) = words.split_first() {
        let question = question_of(question)?;
        return Ok(Call::Explain { config, question });
    }
    if health {
        return Ok(Call::Health { config });
    }
    Ok(match (check, demo) {
        (true, _) => Call::Check { config },
        (false, true) => Call::Demo,
        (false, false) => Call::Run { config, logfile },
    })
}

/// JID, SIZE and TYPE. Without a size one byte is asked for.
fn question_of(words: &[String]) -> Result<Question, lexopt::Error> {
    let Some(jid) = words.first() else {
        return Err("explain needs a JID".into());
    };
    let jid = BareJid::parse(jid).ok_or_else(|| format!("{jid:?} is not an address"))?;
    let size = match words.get(1) {
        Some(size) => scalar::size(size, 1)
            .ok()
            .ok_or_else(|| format!("{size:?} is not a number of bytes"))?,
        None => 1,
    };
    Ok(Question {
        jid,
        size,
        content_type: words.get(2).cloned(),
    })
}

fn explain_slot(config: PathBuf, question: &Question) -> ExitCode {
    let read = setup::read(&config).map_err(|failure| failure.faults.join("\n"));
    match read.and_then(|setup| explain::explain(&setup.config, question, sys::now())) {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(fault) => {
            complain(&fault);
            ExitCode::from(FAULT)
        }
    }
}

fn ask_health(config: &Path) -> ExitCode {
    match health::ask(config) {
        Ok(line) => {
            print(&format!("{line}\n"));
            ExitCode::SUCCESS
        }
        Err(line) => {
            complain(&line);
            ExitCode::from(FAULT)
        }
    }
}

/// The signals, as the first thing that a process does which is to run. Commands that only look something up keep the
/// system's actions.
fn take_over_signals() -> Result<Signals, ExitCode> {
    Signals::register().map_err(|error| {
        complain(&format!("upslot: cannot take over signals: {error}."));
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
            complain(&format!("upslot: {error}"));
            ExitCode::from(FAULT)
        }
    }
}

fn check(config: PathBuf) -> ExitCode {
    match setup::read(&config) {
        Ok(setup) => {
            for warning in &setup.warnings {
                complain(&format!("warning: {warning}"));
            }
            print(&format!("{}: no faults.\n", config.display()));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            for warning in failure.warnings {
                complain(&format!("warning: {warning}"));
            }
            for fault in failure.faults {
                complain(&fault);
            }
            ExitCode::from(FAULT)
        }
    }
}

fn run(config: PathBuf, logfile: Option<PathBuf>) -> ExitCode {
    let signals = match take_over_signals() {
        Ok(signals) => signals,
        Err(code) => return code,
    };
    let sockets = activation::sockets();
    let setup = setup::read(&config);
    let level = setup
        .as_ref()
        .map_or(log::LevelFilter::Info, |setup| setup.config.log_level);
    let logging = logger::start(level, logfile.clone());
    signals.defer();
    if let Err(error) = logging {
        drop(signals);
        complain(&format!("upslot: {error}"));
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
            log::error!("cannot start why={error:?}");
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
fn complain(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}
