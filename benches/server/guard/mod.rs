//! The guard against slower code: how many system calls and user-space instructions upslot needs for single requests,
//! compared with the numbers in `guard.txt`. Unlike times, they are the same on a busy machine, so CI can compare them.
//!
//! - [`system_calls`] the names of system calls;
//! - [`stepper`] runs a process instruction by instruction;
//! - [`table`] the file of numbers;
//! - [`measure`] the requests.

mod system_calls;

mod stepper;

mod table;

mod measure;

use std::path::Path;

use crate::bench::Bench;
use crate::common::options::Guard;
use crate::common::outcome::Outcome;
use crate::common::report::print;
use crate::guard::table::Table;

/// The numbers to compare with.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/server/guard.txt");
const UPDATE: &str = "cargo bench --bench server -- --guard-update";

/// Measures all requests, and compares the numbers with those in the file or replaces them.
pub fn run(bench: &Bench<'_>, guard: Guard) -> Outcome<()> {
    let file = Path::new(FILE);
    let measured = measure::measure(bench)?;
    if guard == Guard::Update {
        print(&format!("updating {}\n", file.display()))?;
        return measured.save(file, UPDATE);
    }
    let comparison = measured.compare(&Table::load(file)?);
    for remark in &comparison.remarks {
        print(&format!("{remark}\n"))?;
    }
    if comparison.violations.is_empty() {
        return print("guard: no request needs more than before\n");
    }
    Err(format!(
        "requests need more than before:\n  {}\nIf that is intended, run `{UPDATE}` and commit guard.txt with the reason.",
        comparison.violations.join("\n  ")
    ))
}
