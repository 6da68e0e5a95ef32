//! From the command line to the exit code: 0 when all that was selected was measured, 1 when something failed, 2 for
//! wrong usage.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::common::catalogue::Entry;
use crate::common::options::{self, Options, Parsed};
use crate::common::outcome::Outcome;
use crate::common::report::print;

/// One of the two benches.
#[derive(Debug)]
pub struct Program {
    /// At the start of error messages.
    pub name: &'static str,
    /// The help, up to the list of cases.
    pub help: &'static str,
    pub cases: &'static [Entry],
    /// The cases of the other bench.
    pub other_cases: &'static [Entry],
}

impl Program {
    /// Does what the arguments ask for. `run` measures the selected cases.
    pub fn start(&self, run: impl FnOnce(&Options) -> Outcome<()>) -> ExitCode {
        let arguments = env::args_os().skip(1);
        let options = match options::parse(arguments, self.cases, self.other_cases) {
            Ok(Parsed::Run(options)) => options,
            Ok(Parsed::Help) => return self.exit(self.print_help()),
            Err(why) => return self.fail(&why, 2),
        };
        if !options.filter.selects_any() {
            return self.exit(print(&format!("{}: no case selected\n", self.name)));
        }
        self.exit(run(&options))
    }

    pub fn exit(&self, outcome: Outcome<()>) -> ExitCode {
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => self.fail(&why, 1),
        }
    }

    fn fail(&self, why: &str, code: u8) -> ExitCode {
        // If standard error is closed, there is no place left to report to.
        let _ = writeln!(io::stderr(), "{}: {why}", self.name);
        ExitCode::from(code)
    }

    fn print_help(&self) -> Outcome<()> {
        let mut text = self.help.to_owned();
        for case in self.cases {
            text.push_str(&format!("  {:<27}{}\n", case.name, case.about));
        }
        print(&text)
    }
}
