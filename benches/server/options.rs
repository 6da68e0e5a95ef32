//! What the user asked for on the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;

use crate::Outcome;
use crate::cases::CASES;

#[derive(Debug)]
pub struct Options {
    /// A smoke run: few rounds, few requests, small large files.
    pub quick: bool,
    /// Only cases whose name contains this word.
    pub filter: Option<String>,
    /// Where the numbers are also written as JSON.
    pub json: Option<PathBuf>,
    /// Rounds per case.
    pub rounds: u32,
    /// The program that is measured.
    pub program: PathBuf,
    /// Which servers are driven.
    pub upslot: bool,
    pub nginx: bool,
}

#[derive(Debug)]
pub enum Parsed {
    Run(Options),
    Help,
}

/// Medians need five rounds to shrug off two bad ones.
const ROUNDS: u32 = 5;
const QUICK_ROUNDS: u32 = 2;

pub fn parse(arguments: impl Iterator<Item = OsString>) -> Outcome<Parsed> {
    let mut quick = false;
    let mut filter = None;
    let mut json = None;
    let mut rounds = None;
    let mut program = PathBuf::from(env!("CARGO_BIN_EXE_upslot"));
    let (mut upslot, mut nginx) = (true, true);

    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(|e| e.to_string())? {
        match argument {
            // Cargo adds this one of its own accord.
            Long("bench") => {}
            Long("quick") => quick = true,
            Long("filter") => filter = Some(word(&mut parser)?),
            Long("json") => json = Some(parser.value().map_err(|e| e.to_string())?.into()),
            Long("program") => program = parser.value().map_err(|e| e.to_string())?.into(),
            Long("rounds") => match word(&mut parser)?.parse() {
                Ok(n) if n > 0 => rounds = Some(n),
                _ => return Err("--rounds wants a number from 1 on.".to_owned()),
            },
            Long("only") => match word(&mut parser)?.as_str() {
                "upslot" => (upslot, nginx) = (true, false),
                "nginx" => (upslot, nginx) = (false, true),
                _ => return Err("--only wants upslot or nginx.".to_owned()),
            },
            Short('h') | Long("help") => return Ok(Parsed::Help),
            Value(value) if filter.is_none() => {
                filter = Some(value.string().map_err(|e| e.to_string())?)
            }
            other => {
                return Err(format!(
                    "{}; --help shows what there is.",
                    other.unexpected()
                ));
            }
        }
    }
    if let Some(word) = &filter {
        if !CASES.iter().any(|case| case.name.contains(word.as_str())) {
            return Err(format!(
                "No case's name contains {word:?}; --help lists them."
            ));
        }
    }
    Ok(Parsed::Run(Options {
        quick,
        filter,
        json,
        rounds: rounds.unwrap_or(if quick { QUICK_ROUNDS } else { ROUNDS }),
        program,
        upslot,
        nginx,
    }))
}

pub fn help() -> String {
    let mut text = String::from(
        "Measures upslot over loopback, beside nginx where that is installed.\n\
         \n\
         cargo bench [-- OPTIONS] [WORD]\n\
         \n\
         \x20 --quick         a smoke run of less than 40 seconds\n\
         \x20 --filter WORD   only cases whose name contains WORD\n\
         \x20 --rounds N      rounds per case (5; 2 with --quick)\n\
         \x20 --only SERVER   upslot or nginx alone\n\
         \x20 --program FILE  another upslot than the one just built\n\
         \x20 --json FILE     writes the numbers to FILE, too\n\
         \n\
         The store is made in TMPDIR (/tmp): /dev/shm there takes the disk out of the figures.\n\
         \n\
         Cases:\n",
    );
    for case in CASES {
        text.push_str(&format!("  {:<16}{}\n", case.name, case.about));
    }
    text
}

fn word(parser: &mut lexopt::Parser) -> Outcome<String> {
    let value = parser.value().map_err(|e| e.to_string())?;
    value.string().map_err(|e| e.to_string())
}
