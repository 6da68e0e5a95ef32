//! The whole-server bench: `cargo bench`, or `cargo bench -- --quick`.
//!
//! It starts the real `upslot` with a temporary store and a scripted XMPP server, drives it over loopback from this
//! process, and prints one line per number. Where nginx and lighttpd are installed, the same files are fetched from
//! and stored on them by the same client code, in the same rounds: the ratio to nginx is the figure that says
//! something on a machine that nobody else has. It knows nothing of upslot's insides: only the program, its configuration,
//! XEP-0114, XEP-0363 and HTTP.
//!
//! In reading order:
//!
//! - [`options`] what the user asked for;
//! - [`machine`] what it ran on;
//! - [`scratch`] the temporary folder, and the stop signals;
//! - [`placement`] which cores it ran on;
//! - [`process`] a server process: its CPU time, its memory, its end;
//! - [`link`] the XMPP server's side of the component's link (XEP-0114), and slots (XEP-0363);
//! - [`certificate`] the one that every server shows;
//! - [`stream`] the client's end of a connection, plain or TLS;
//! - [`answer`] one HTTP answer, judged as it comes in;
//! - [`load`] the client: a closed loop over a few connections;
//! - [`server`] upslot and its peers, each started with a configuration of its own;
//! - [`limit`] what this program is when it stands in for a server that does nothing but move bytes;
//! - [`cases`] what is measured in rounds: a table;
//! - [`measure`] how;
//! - [`scenarios`] what does not go in such rounds, each in a file of its own;
//! - [`figures`] from samples to figures;
//! - [`report`] lines, table and JSON.
//!
//! A wrong answer, whether a status, a length or a byte, ends the bench with exit code 1; wrong usage with 2.

mod answer;
mod cases;
mod certificate;
mod figures;
mod limit;
mod link;
mod load;
mod machine;
mod measure;
mod options;
mod placement;
mod process;
mod report;
mod scenarios;
mod scratch;
mod server;
mod stream;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::answer::Pattern;
use crate::certificate::Certificate;
use crate::machine::Machine;
use crate::measure::Bench;
use crate::options::{Options, Parsed};
use crate::placement::Placement;
use crate::report::Report;
use crate::scratch::{Scratch, Stop};
use crate::server::Installed;

/// What goes wrong here ends the bench: a sentence for the user is all that is needed.
pub type Outcome<T> = Result<T, String>;

fn main() -> ExitCode {
    if env::args_os()
        .nth(1)
        .is_some_and(|first| first == limit::ARGUMENT)
    {
        return match limit::run(env::args_os().skip(2)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => complain(&why, 1),
        };
    }
    let options = match options::parse(env::args_os().skip(1)) {
        Ok(Parsed::Run(options)) => options,
        Ok(Parsed::Help) => {
            return match io::stdout().write_all(options::help().as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            };
        }
        Err(why) => return complain(&why, 2),
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => complain(&why, 1),
    }
}

fn run(options: &Options) -> Outcome<()> {
    let stop = Stop::new()?;
    let scratch = Scratch::new(&env::temp_dir())?;
    let placement = Placement::new();
    let open_files = machine::raise_open_files();
    let installed = Installed::look(&options.program);
    let mut report = Report::new();
    Machine::look(options, &installed, scratch.path(), &placement).print(&mut report)?;
    let bench = Bench {
        options,
        stop: &stop,
        scratch: &scratch,
        installed: &installed,
        certificate: Certificate::new(scratch.path())?,
        placement: &placement,
        pattern: Pattern::new(),
        open_files,
    };
    bench.run(&mut report)?;
    report.table()?;
    match &options.json {
        Some(file) => report.save(file),
        None => Ok(()),
    }
}

fn complain(why: &str, code: u8) -> ExitCode {
    // Nothing is left to do where even standard error is gone.
    let _ = writeln!(io::stderr(), "bench: {why}");
    ExitCode::from(code)
}
