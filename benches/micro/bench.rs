//! Measures and reports the operations that are selected.

use crate::common::catalogue::{self, Entry};
use crate::common::options::Filter;
use crate::common::outcome::Outcome;
use crate::common::report::{Column, Report, rounded};
use crate::measure::{self, Sampling};

pub const COLUMNS: &[Column] = &[
    Column::text("operation", 18),
    Column::number("ns", 12),
    Column::number("least", 12),
    Column::number("largest", 12),
    Column::number("allocations", 14),
    Column::number("bytes", 12),
];
/// Explains the table.
pub const NOTE: &str =
    "All numbers are per operation, slot or KiB. ns is the median of the samples.";

#[derive(Debug)]
pub struct Bench<'a> {
    filter: &'a Filter,
    sampling: Sampling,
    report: Report,
    /// All operations so far, selected or not.
    names: Vec<&'static str>,
}

impl Bench<'_> {
    pub fn new(filter: &Filter, sampling: Sampling, report: Report) -> Bench<'_> {
        Bench {
            filter,
            sampling,
            report,
            names: Vec::new(),
        }
    }

    /// Measures an operation if it is selected. The operation returns whether its result is right. The numbers are per
    /// part: an operation with `parts` slots or KiB is measured per slot or KiB.
    pub fn case(
        &mut self,
        name: &'static str,
        parts: usize,
        mut operation: impl FnMut() -> bool,
    ) -> Outcome<()> {
        self.names.push(name);
        if !self.filter.selects(name) {
            return Ok(());
        }
        let figures = measure::measure(&self.sampling, parts, &mut operation)
            .map_err(|why| format!("{name}: {why}"))?;
        let numbers = [
            ("time", figures.time, "ns"),
            ("time-least", figures.least, "ns"),
            ("time-largest", figures.largest, "ns"),
            ("allocations", figures.allocations, ""),
            ("memory", figures.bytes, "bytes"),
        ];
        for (figure, value, unit) in numbers {
            self.report
                .number(format!("{name}.{figure}"), value, unit)?;
        }
        let cells = numbers.iter().map(|(_, value, _)| rounded(*value));
        self.report
            .row([name.to_owned()].into_iter().chain(cells).collect());
        Ok(())
    }

    /// Returns the report; an error unless all operations of the catalogue were passed to [`Bench::case`].
    pub fn finish(self, listed: &[Entry]) -> Outcome<Report> {
        catalogue::check(listed, self.names)?;
        Ok(self.report)
    }
}
