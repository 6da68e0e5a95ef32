//! The output: a line per number as soon as it is known, a table at the end, and JSON in a file.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::common::outcome::Outcome;

#[derive(Debug)]
pub struct Report {
    /// About the machine and the run.
    facts: Vec<(String, String)>,
    numbers: Vec<Number>,
    /// Indices of the numbers that are repeated below the table.
    headlines: Vec<usize>,
    columns: &'static [Column],
    rows: Vec<Vec<String>>,
    /// Explains the table.
    note: &'static str,
}

#[derive(Debug)]
struct Number {
    name: String,
    value: f64,
    unit: &'static str,
}

impl Number {
    fn line(&self) -> String {
        let (name, unit) = (&self.name, self.unit);
        format!("{name:<60}{:>14} {unit}\n", rounded(self.value))
    }
}

/// A column of the table.
#[derive(Debug)]
pub struct Column {
    title: &'static str,
    width: usize,
    left: bool,
}

impl Column {
    /// A column of text, aligned to the left.
    pub const fn text(title: &'static str, width: usize) -> Column {
        Column {
            title,
            width,
            left: true,
        }
    }

    /// A column of numbers, aligned to the right.
    pub const fn number(title: &'static str, width: usize) -> Column {
        Column {
            title,
            width,
            left: false,
        }
    }

    fn cell(&self, text: &str) -> String {
        let width = self.width;
        if self.left {
            format!("{text:<width$}")
        } else {
            format!("{text:>width$}")
        }
    }
}

impl Report {
    pub fn new(columns: &'static [Column], note: &'static str) -> Report {
        Report {
            facts: Vec::new(),
            numbers: Vec::new(),
            headlines: Vec::new(),
            columns,
            rows: Vec::new(),
            note,
        }
    }

    pub fn fact(&mut self, name: &str, value: &str) -> Outcome<()> {
        self.facts.push((name.to_owned(), value.to_owned()));
        print(&format!("{name:<14}{value}\n"))
    }

    pub fn number(&mut self, name: String, value: f64, unit: &'static str) -> Outcome<()> {
        let number = Number { name, value, unit };
        print(&number.line())?;
        self.numbers.push(number);
        Ok(())
    }

    /// Reports a number that is printed again below the table.
    pub fn headline(&mut self, name: String, value: f64, unit: &'static str) -> Outcome<()> {
        self.headlines.push(self.numbers.len());
        self.number(name, value, unit)
    }

    /// A number that was reported before.
    pub fn value(&self, name: &str) -> Option<f64> {
        let number = self.numbers.iter().find(|number| number.name == name);
        number.map(|number| number.value)
    }

    /// Prints a remark on the numbers that follow.
    pub fn remark(&self, text: &str) -> Outcome<()> {
        print(&format!("{text}\n"))
    }

    /// Adds a row to the table, with a cell for each column.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Prints the table and the headlines.
    pub fn summary(&self) -> Outcome<()> {
        let mut text = String::new();
        if !self.rows.is_empty() {
            let titles = self.columns.iter().map(|column| column.cell(column.title));
            text.push_str(&format!("\n{}\n", titles.collect::<String>()));
            for row in &self.rows {
                let cells = self.columns.iter().zip(row);
                let cells = cells.map(|(column, cell)| column.cell(cell));
                text.push_str(&format!("{}\n", cells.collect::<String>()));
            }
            text.push_str(&format!("{}\n", self.note));
        }
        if !self.headlines.is_empty() {
            text.push('\n');
        }
        for index in &self.headlines {
            text.push_str(&self.numbers[*index].line());
        }
        print(&text)
    }

    /// Writes facts and numbers to a file, as JSON.
    pub fn save(&self, file: &Path) -> Outcome<()> {
        let facts: Vec<String> = self
            .facts
            .iter()
            .map(|(name, value)| format!("    {}: {}", json(name), json(value)))
            .collect();
        let numbers: Vec<String> = self
            .numbers
            .iter()
            .map(|number| {
                // JSON has neither infinity nor NaN.
                let value = if number.value.is_finite() {
                    number.value.to_string()
                } else {
                    "null".to_owned()
                };
                let (name, unit) = (json(&number.name), json(number.unit));
                format!("    {{\"name\": {name}, \"value\": {value}, \"unit\": {unit}}}")
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

/// At least three significant digits, or three decimals.
pub fn rounded(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

fn json(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

pub fn print(text: &str) -> Outcome<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| format!("standard output: {e}"))
}
