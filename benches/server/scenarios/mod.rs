//! What does not go in rounds of equal requests, each in a file of its own:
//!
//! - [`idle`] what a connection costs that does nothing.

mod idle;

use crate::Outcome;
use crate::measure::Bench;
use crate::report::Report;

#[derive(Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    /// Runs it; its name is what its figures begin with.
    pub run: fn(&Bench<'_>, &'static str, &mut Report) -> Outcome<()>,
}

pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "idle",
    about: "memory per idle connection, of 1000, each after one GET of 10 KiB",
    run: idle::run,
}];
