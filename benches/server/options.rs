//! What the user asked for on the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;

use crate::cases::CASES;
use crate::common::kind::Kind;
use crate::common::outcome::Outcome;
use crate::scenarios::{SCENARIOS, Scenario};

#[derive(Debug)]
pub struct Options {
    /// A smoke run: few rounds, few requests, small large files.
    pub quick: bool,
    /// Long scenarios, too.
    pub full: bool,
    /// Only cases that one of these words selects; none: all.
    pub filter: Vec<String>,
    /// Where the numbers are also written as JSON.
    pub json: Option<PathBuf>,
    /// Rounds per case.
    pub rounds: u32,
    /// The program that is measured.
    pub program: PathBuf,
    /// Keeps the client from sleeping while it waits, where it has a core of its own.
    pub spins: bool,
    /// Which servers are driven, where they are installed.
    pub only: Vec<Kind>,
}

impl Options {
    pub fn wants(&self, case: &str) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|word| selects(word, case))
    }

    /// Long scenarios are run only when they are asked for.
    pub fn wants_scenario(&self, scenario: &Scenario) -> bool {
        let asked = self.full || !self.filter.is_empty();
        self.wants(scenario.name) && (asked || !scenario.long)
    }
}

/// A whole name selects its case alone, any other word those whose names contain it.
fn selects(word: &str, case: &str) -> bool {
    if names().any(|(name, _)| name == word) {
        case == word
    } else {
        case.contains(word)
    }
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
    let mut full = false;
    let mut filter = Vec::new();
    let mut json = None;
    let mut rounds = None;
    let mut program = PathBuf::from(env!("CARGO_BIN_EXE_upslot"));
    let mut spins = false;
    let mut only = Kind::ALL.to_vec();

    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(|e| e.to_string())? {
        match argument {
            // Cargo adds this one of its own accord.
            Long("bench") => {}
            Long("quick") => quick = true,
            Long("spin") => spins = true,
            Long("full") => full = true,
            Long("filter") => filter.extend(words(&word(&mut parser)?)),
            Long("json") => json = Some(parser.value().map_err(|e| e.to_string())?.into()),
            Long("program") => program = parser.value().map_err(|e| e.to_string())?.into(),
            Long("rounds") => match word(&mut parser)?.parse() {
                Ok(n) if n > 0 => rounds = Some(n),
                _ => return Err("--rounds wants a number from 1 on.".to_owned()),
            },
            Long("only") => only = kinds(&word(&mut parser)?)?,
            Short('h') | Long("help") => return Ok(Parsed::Help),
            Value(value) => filter.extend(words(&value.string().map_err(|e| e.to_string())?)),
            other => {
                return Err(format!(
                    "{}; --help shows what there is.",
                    other.unexpected()
                ));
            }
        }
    }
    for word in &filter {
        if !names().any(|(name, _)| selects(word, name)) {
            return Err(format!(
                "No case's name contains {word:?}; --help lists them."
            ));
        }
    }
    Ok(Parsed::Run(Options {
        quick,
        full,
        filter,
        json,
        rounds: rounds.unwrap_or(if quick { QUICK_ROUNDS } else { ROUNDS }),
        program,
        spins,
        only,
    }))
}

pub fn help() -> String {
    let mut text = String::from(
        "Measures upslot over loopback, beside nginx and lighttpd where they are installed.\n\
         \n\
         cargo bench [-- OPTIONS] [WORDS]\n\
         \n\
         \x20 --quick         a smoke run of less than a minute\n\
         \x20 --full          with the cases that take minutes, too\n\
         \x20 --filter WORDS  only these cases (a,b), or those whose names contain these\n\
         \x20 --rounds N      rounds per case (5; 2 with --quick)\n\
         \x20 --only SERVERS  only these (upslot,nginx,...)\n\
         \x20 --spin          the client never sleeps, so that no server pays for waking it\n\
         \x20 --program FILE  another upslot than the one just built\n\
         \x20 --json FILE     writes the numbers to FILE, too\n\
         \n\
         The store is made in TMPDIR (/tmp): /dev/shm there takes the disk out of the figures.\n\
         \n\
         Cases:\n",
    );
    for (name, about) in names() {
        text.push_str(&format!("  {name:<18}{about}\n"));
    }
    let servers: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    text.push_str(&format!("\nServers: {}.\n", servers.join(", ")));
    text
}

/// Of all cases and scenarios, with what they are about.
fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    let cases = CASES.iter().map(|case| (case.name, case.about));
    let scenarios = SCENARIOS
        .iter()
        .map(|scenario| (scenario.name, scenario.about));
    cases.chain(scenarios)
}

fn kinds(list: &str) -> Outcome<Vec<Kind>> {
    words(list)
        .map(|word| {
            Kind::ALL
                .iter()
                .copied()
                .find(|kind| kind.name() == word)
                .ok_or_else(|| format!("--only knows no {word:?}; --help lists the servers."))
        })
        .collect()
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
