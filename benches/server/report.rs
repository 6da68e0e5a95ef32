//! What the user gets to see: one line per number as soon as it is known, a table at the end, JSON in a file.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::common::outcome::Outcome;

#[derive(Debug)]
pub struct Report {
    facts: Vec<(String, String)>,
    numbers: Vec<Number>,
    rows: Vec<Row>,
    /// Places among the numbers.
    headlines: Vec<usize>,
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
        format!("{name:<50}{:>14} {unit}\n", shown(self.value))
    }
}

/// A line of the table, for one case and server.
#[derive(Debug)]
pub struct Row {
    pub case: &'static str,
    pub server: &'static str,
    /// Microseconds per request.
    pub cpu: f64,
    /// Milliseconds per GiB.
    pub cpu_per_gib: Option<f64>,
    /// Of its CPU time to nginx's; the median of the rounds.
    pub ratio: Option<f64>,
    pub per_second: f64,
    /// Microseconds.
    pub p50: f64,
    pub p99: f64,
    /// Bytes.
    pub peak: u64,
}

impl Report {
    pub fn new() -> Report {
        Report {
            facts: Vec::new(),
            numbers: Vec::new(),
            rows: Vec::new(),
            headlines: Vec::new(),
        }
    }

    pub fn fact(&mut self, name: &str, value: &str) -> Outcome<()> {
        self.facts.push((name.to_owned(), value.to_owned()));
        print(&format!("{name:<10}{value}\n"))
    }

    pub fn number(&mut self, name: String, value: f64, unit: &'static str) -> Outcome<()> {
        let number = Number { name, value, unit };
        print(&number.line())?;
        self.numbers.push(number);
        Ok(())
    }

    /// A number that was reported before.
    pub fn value(&self, name: &str) -> Option<f64> {
        let number = self.numbers.iter().find(|number| number.name == name);
        number.map(|number| number.value)
    }

    /// A number that is worth being said again below the table.
    pub fn headline(&mut self, name: String, value: f64, unit: &'static str) -> Outcome<()> {
        self.headlines.push(self.numbers.len());
        self.number(name, value, unit)
    }

    /// Something that the user should know about what follows.
    pub fn remark(&self, text: &str) -> Outcome<()> {
        print(&format!("{text}\n"))
    }

    pub fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub fn table(&self) -> Outcome<()> {
        self.table_of_rows()?;
        if !self.headlines.is_empty() {
            print("\n")?;
        }
        for place in &self.headlines {
            print(&self.numbers[*place].line())?;
        }
        Ok(())
    }

    fn table_of_rows(&self) -> Outcome<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut text = format!(
            "\n{:<18}{:<14}{:>12}{:>12}{:>8}{:>12}{:>12}{:>12}{:>10}\n",
            "case",
            "server",
            "CPU us/req",
            "CPU ms/GiB",
            "ratio",
            "req/s",
            "p50 us",
            "p99 us",
            "peak MiB"
        );
        for row in &self.rows {
            text.push_str(&format!(
                "{:<18}{:<14}{:>12}{:>12}{:>8}{:>12}{:>12}{:>12}{:>10}\n",
                row.case,
                row.server,
                shown(row.cpu),
                row.cpu_per_gib.map_or(String::new(), shown),
                row.ratio
                    .map_or(String::new(), |ratio| format!("{ratio:.3}")),
                shown(row.per_second),
                shown(row.p50),
                shown(row.p99),
                shown(row.peak as f64 / f64::from(1 << 20)),
            ));
        }
        text.push_str(
            "CPU is the server's, user and system. ratio is its CPU by nginx's in the same round, the median of the \
             rounds: below 1 it needs less.\n",
        );
        print(&text)
    }

    pub fn save(&self, file: &Path) -> Outcome<()> {
        let facts = self
            .facts
            .iter()
            .map(|(name, value)| format!("    {}: {}", json(name), json(value)))
            .collect::<Vec<_>>();
        let numbers = self
            .numbers
            .iter()
            .map(|number| {
                // JSON has no word for what is not a number.
                let value = if number.value.is_finite() {
                    number.value.to_string()
                } else {
                    "null".to_owned()
                };
                let (name, unit) = (json(&number.name), json(number.unit));
                format!("    {{\"name\": {name}, \"value\": {value}, \"unit\": {unit}}}")
            })
            .collect::<Vec<_>>();
        let text = format!(
            "{{\n  \"machine\": {{\n{}\n  }},\n  \"numbers\": [\n{}\n  ]\n}}\n",
            facts.join(",\n"),
            numbers.join(",\n")
        );
        fs::write(file, text).map_err(|e| format!("{}: {e}", file.display()))
    }
}

/// Three significant digits or all of the whole number.
fn shown(value: f64) -> String {
    match value.abs() {
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

fn print(text: &str) -> Outcome<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| format!("standard output: {e}"))
}
