//! What the user gets to see: one line per number as soon as it is known, a table at the end, JSON in a file.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::common::outcome::Outcome;
use crate::measure::Figures;

#[derive(Debug)]
pub struct Report {
    facts: Vec<(String, String)>,
    rows: Vec<(&'static str, Figures)>,
}

impl Report {
    pub fn new() -> Report {
        Report {
            facts: Vec::new(),
            rows: Vec::new(),
        }
    }

    pub fn fact(&mut self, name: &str, value: &str) -> Outcome<()> {
        self.facts.push((name.to_owned(), value.to_owned()));
        print(&format!("{name:<10}{value}\n"))
    }

    pub fn case(&mut self, name: &'static str, figures: Figures) -> Outcome<()> {
        for (name, value, unit) in numbers(name, &figures) {
            print(&format!("{name:<46}{:>14} {unit}\n", shown(value)))?;
        }
        self.rows.push((name, figures));
        Ok(())
    }

    pub fn table(&self) -> Outcome<()> {
        if self.rows.is_empty() {
            return print("No operation of that name.\n");
        }
        let mut text = format!(
            "\n{:<18}{:>12}{:>12}{:>12}{:>14}{:>12}\n",
            "operation", "ns", "least", "largest", "allocations", "bytes"
        );
        for (name, figures) in &self.rows {
            text.push_str(&format!(
                "{name:<18}{:>12}{:>12}{:>12}{:>14}{:>12}\n",
                shown(figures.time),
                shown(figures.least),
                shown(figures.largest),
                shown(figures.allocations),
                shown(figures.bytes),
            ));
        }
        text.push_str("All per operation, slot or KiB. ns is the median of the samples.\n");
        print(&text)
    }

    pub fn save(&self, file: &Path) -> Outcome<()> {
        let facts: Vec<String> = self
            .facts
            .iter()
            .map(|(name, value)| format!("    {name:?}: {value:?}"))
            .collect();
        let numbers: Vec<String> = self
            .rows
            .iter()
            .flat_map(|(name, figures)| numbers(name, figures))
            .map(|(name, value, unit)| {
                format!("    {{\"name\": {name:?}, \"value\": {value}, \"unit\": {unit:?}}}")
            })
            .collect();
        let text = format!(
            "{{\n  \"machine\": {{\n{}\n  }},\n  \"numbers\": [\n{}\n  ]\n}}\n",
            facts.join(",\n"),
            numbers.join(",\n")
        );
        fs::write(file, text).map_err(|e| format!("{}: {e}", file.display()))
    }
}

fn numbers(name: &str, figures: &Figures) -> [(String, f64, &'static str); 5] {
    [
        (format!("{name}.time"), figures.time, "ns"),
        (format!("{name}.time-least"), figures.least, "ns"),
        (format!("{name}.time-largest"), figures.largest, "ns"),
        (format!("{name}.allocations"), figures.allocations, ""),
        (format!("{name}.memory"), figures.bytes, "bytes"),
    ]
}

/// Three significant digits or all of the whole number.
fn shown(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

pub fn print(text: &str) -> Outcome<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| format!("standard output: {e}"))
}
