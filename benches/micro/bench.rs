//! What operations are measured with.

use crate::common::outcome::Outcome;
use crate::measure::{self, Effort};
use crate::report::Report;

/// Runs or lists operations, each as it comes.
#[derive(Debug)]
pub struct Bench {
    pub filter: Vec<String>,
    pub effort: Effort,
    /// Only the names are wanted.
    pub lists: bool,
    pub report: Report,
    pub names: Vec<(&'static str, &'static str)>,
}

impl Bench {
    /// Measures an operation that is true when it came to what it must. It does `parts` times what the figures are
    /// for: the slots of a batch, the KiB of a body.
    pub fn case(
        &mut self,
        name: &'static str,
        about: &'static str,
        parts: usize,
        mut operation: impl FnMut() -> bool,
    ) -> Outcome<()> {
        self.names.push((name, about));
        let wanted = self.filter.is_empty() || self.filter.iter().any(|word| name.contains(word));
        if self.lists || !wanted {
            return Ok(());
        }
        let figures = measure::measure(&self.effort, parts, &mut operation)
            .map_err(|why| format!("{name}: {why}"))?;
        self.report.case(name, figures)
    }
}
