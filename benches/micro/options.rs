//! What the user asked for on the command line. `cargo bench` gives the same arguments to every bench, so those of the
//! whole-server bench are passed by here, and the numbers go to a file of this bench's own.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;

use crate::common::outcome::Outcome;

#[derive(Debug)]
pub struct Options {
    /// A smoke run: few and short samples.
    pub quick: bool,
    /// Only operations whose name contains one of these words; none: all.
    pub filter: Vec<String>,
    /// Where the numbers are also written as JSON.
    pub json: Option<PathBuf>,
}

#[derive(Debug)]
pub enum Parsed {
    Run(Options),
    Help,
}

pub const HELP: &str = "\
Times what upslot does for one request without a socket, and counts its allocations.

cargo bench --bench micro [-- OPTIONS] [WORDS]

  --quick         a smoke run of a second
  --filter WORDS  only operations whose name contains one of WORDS (a,b)
  --json FILE     writes the numbers to FILE.micro, too

Operations:
";

impl Options {
    /// How this program, and so the library in it, was built.
    pub fn profile(&self) -> &'static str {
        if cfg!(debug_assertions) {
            "unoptimised: the times say nothing"
        } else {
            "optimised"
        }
    }
}

pub fn parse(arguments: impl Iterator<Item = OsString>) -> Outcome<Parsed> {
    let mut options = Options {
        quick: false,
        filter: Vec::new(),
        json: None,
    };
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(|e| e.to_string())? {
        match argument {
            Long("quick") => options.quick = true,
            Long("filter") => options.filter.extend(words(&word(&mut parser)?)),
            Long("json") => {
                let mut file = parser.value().map_err(|e| e.to_string())?;
                file.push(".micro");
                options.json = Some(file.into());
            }
            Short('h') | Long("help") => return Ok(Parsed::Help),
            // Cargo adds the first of its own accord; the others are the whole-server bench's.
            Long("bench" | "full" | "spin") => {}
            Long("rounds" | "only" | "program") => {
                word(&mut parser)?;
            }
            Value(value) => {
                let value = value.string().map_err(|e| e.to_string())?;
                options.filter.extend(words(&value));
            }
            other => {
                return Err(format!(
                    "{}; --help shows what there is.",
                    other.unexpected()
                ));
            }
        }
    }
    Ok(Parsed::Run(options))
}

fn words(list: &str) -> impl Iterator<Item = String> + '_ {
    list.split(',')
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
}

fn word(parser: &mut lexopt::Parser) -> Outcome<String> {
    let value = parser.value().map_err(|e| e.to_string())?;
    value.string().map_err(|e| e.to_string())
}
