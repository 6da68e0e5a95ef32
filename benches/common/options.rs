//! The command line. `cargo bench` passes the same arguments to both benches, so each bench accepts those of the other.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;

use crate::common::catalogue::Entry;
use crate::common::outcome::Outcome;
use crate::common::server_kind::ServerKind;

#[derive(Debug)]
pub struct Options {
    /// A smoke run: few rounds, few requests, small large files.
    pub quick: bool,
    /// Includes the scenarios that take minutes.
    pub full: bool,
    /// Which cases to run.
    pub filter: Filter,
    /// Where to write the numbers as JSON.
    pub json: Option<PathBuf>,
    /// Rounds per case.
    pub rounds: u32,
    /// The upslot program to measure.
    pub program: PathBuf,
    /// Keeps the client from sleeping while it waits, if it has a core of its own.
    pub spin: bool,
    /// The servers to measure, if installed.
    pub only: Vec<ServerKind>,
    /// Where the files that GETs request are kept from run to run.
    pub files: Option<PathBuf>,
    /// Counts the work of single requests instead.
    pub guard: Option<Guard>,
}

/// What to do with the counts of single requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Fail if they are larger than the numbers in the repository.
    Check,
    /// Replace these numbers.
    Update,
}

/// A value for normal runs, and one for quick runs.
#[derive(Clone, Copy, Debug)]
pub struct ByMode<T> {
    pub normal: T,
    pub quick: T,
}

impl<T: Copy> ByMode<T> {
    pub fn get(self, options: &Options) -> T {
        if options.quick {
            self.quick
        } else {
            self.normal
        }
    }
}

#[derive(Debug)]
pub struct Filter {
    words: Vec<String>,
    /// All cases of this bench.
    cases: &'static [Entry],
}

impl Filter {
    /// Whether there are no words, in which case every case is selected.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    pub fn selects(&self, case: &str) -> bool {
        self.is_empty()
            || self
                .words
                .iter()
                .any(|word| selects(self.cases, word, case))
    }

    pub fn selects_any(&self) -> bool {
        self.cases.iter().any(|case| self.selects(case.name))
    }
}

/// A word that is the full name of a case selects only this case; any other word selects the cases whose names contain
/// it.
fn selects(cases: &[Entry], word: &str, case: &str) -> bool {
    if cases.iter().any(|entry| entry.name == word) {
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

/// The median of five rounds ignores two bad ones.
const ROUNDS: ByMode<u32> = ByMode {
    normal: 5,
    quick: 2,
};

/// Reads the arguments of a bench. `other_cases` are the cases of the other bench.
pub fn parse(
    arguments: impl Iterator<Item = OsString>,
    cases: &'static [Entry],
    other_cases: &'static [Entry],
) -> Outcome<Parsed> {
    let mut rounds = None;
    let mut options = Options {
        quick: false,
        full: false,
        filter: Filter {
            words: Vec::new(),
            cases,
        },
        json: None,
        rounds: 0,
        program: PathBuf::from(env!("CARGO_BIN_EXE_upslot")),
        spin: false,
        only: ServerKind::ALL.to_vec(),
        files: None,
        guard: None,
    };
    let words = &mut options.filter.words;
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(|e| e.to_string())? {
        match argument {
            // Cargo adds it.
            Long("bench") => {}
            Long("quick") => options.quick = true,
            Long("spin") => options.spin = true,
            Long("guard") => options.guard = Some(Guard::Check),
            Long("guard-update") => options.guard = Some(Guard::Update),
            Long("full") => options.full = true,
            Long("filter") => words.extend(split(&text(parser.value())?)),
            Long("json") => options.json = Some(value(parser.value())?.into()),
            Long("files") => options.files = Some(value(parser.value())?.into()),
            Long("program") => options.program = value(parser.value())?.into(),
            Long("rounds") => match text(parser.value())?.parse() {
                Ok(n) if n > 0 => rounds = Some(n),
                _ => return Err("--rounds takes a positive number; see --help".to_owned()),
            },
            Long("only") => options.only = kinds(&text(parser.value())?)?,
            Short('h') | Long("help") => return Ok(Parsed::Help),
            Value(word) => words.extend(split(&text(Ok(word))?)),
            other => {
                return Err(format!("{}; see --help", other.unexpected()));
            }
        }
    }
    for word in &*words {
        let known = |cases: &[Entry]| cases.iter().any(|case| selects(cases, word, case.name));
        if !known(cases) && !known(other_cases) {
            return Err(format!(
                "no case of either bench has {word:?} in its name; see --help"
            ));
        }
    }
    options.rounds = rounds.unwrap_or(ROUNDS.get(&options));
    Ok(Parsed::Run(options))
}

fn kinds(list: &str) -> Outcome<Vec<ServerKind>> {
    let kind = |word: String| {
        let mut kinds = ServerKind::ALL.iter().copied();
        kinds
            .find(|kind| kind.name() == word)
            .ok_or_else(|| format!("--only: unknown server {word:?}; see --help"))
    };
    split(list).map(kind).collect()
}

fn split(list: &str) -> impl Iterator<Item = String> + '_ {
    list.split(',')
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
}

fn value(value: Result<OsString, lexopt::Error>) -> Outcome<OsString> {
    value.map_err(|e| e.to_string())
}

fn text(text: Result<OsString, lexopt::Error>) -> Outcome<String> {
    value(text)?.string().map_err(|e| e.to_string())
}
