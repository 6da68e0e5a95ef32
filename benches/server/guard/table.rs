//! The numbers, as a file that can be read and compared by people, too.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::outcome::Outcome;

/// How much the number of instructions may grow, in percent. Chance (hash tables, times as text) accounts for less than
/// one.
const INSTRUCTION_MARGIN: u64 = 5;
/// Smaller numbers of system calls are always the same. Larger ones are those of TLS handshakes, whose input may arrive
/// in more pieces.
const STEADY: u64 = 25;
/// How much the others may grow, in percent: one handshake had 33 to 38 of them.
const CALL_MARGIN: u64 = 20;
const SETTING: &str = "measured with: ";

/// What single requests need.
#[derive(Debug)]
pub struct Table {
    /// The compiler of the program and the CPU: another compiler produces other instructions, and libraries choose
    /// theirs by the CPU.
    pub setting: String,
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub name: String,
    /// None if they depend on the CPU, as those of encryption do.
    pub instructions: Option<u64>,
    pub system_calls: u64,
    /// Their names, each with its number.
    pub calls: String,
}

/// The result of comparing two tables.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Where more is needed.
    pub violations: Vec<String>,
    /// Where less is needed, or where nothing was compared.
    pub remarks: Vec<String>,
}

impl Table {
    pub fn new() -> Table {
        let output = Command::new("rustc").arg("-V").output();
        let version = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let version = version.unwrap_or_default();
        Table {
            setting: format!("{}; {}", version.trim(), cpu()),
            rows: Vec::new(),
        }
    }

    pub fn load(file: &Path) -> Outcome<Table> {
        let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        Table::parse(&text).ok_or_else(|| format!("{} cannot be parsed", file.display()))
    }

    fn parse(text: &str) -> Option<Table> {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let setting = lines.next()?.strip_prefix(SETTING)?.to_owned();
        let rows = lines.filter(|line| !line.is_empty()).map(|line| {
            let (name, rest) = line.split_once(' ')?;
            let (instructions, rest) = rest.trim_start().split_once(' ')?;
            let (system_calls, calls) = rest.trim_start().split_once(' ')?;
            Some(Row {
                name: name.to_owned(),
                instructions: match instructions {
                    "-" => None,
                    number => Some(number.parse().ok()?),
                },
                system_calls: system_calls.parse().ok()?,
                calls: calls.trim_start().to_owned(),
            })
        });
        let rows = rows.collect::<Option<Vec<Row>>>()?;
        Some(Table { setting, rows })
    }

    pub fn save(&self, file: &Path, update: &str) -> Outcome<()> {
        let mut text = format!(
            "# What upslot needs for one request: case, user-space instructions (- if they depend on the CPU),\n\
             # system calls without close, their names. CI fails if they grow: instructions by more than\n\
             # {INSTRUCTION_MARGIN} %, system calls at all, but for those of TLS handshakes, which vary.\n\
             # To change the numbers on purpose: {update}\n\
             {SETTING}{}\n\n",
            self.setting
        );
        for row in &self.rows {
            text.push_str(&row.line());
            text.push('\n');
        }
        fs::write(file, text).map_err(|e| format!("{}: {e}", file.display()))
    }

    /// Compares measured numbers with earlier ones.
    pub fn compare(&self, earlier: &Table) -> Comparison {
        let mut comparison = Comparison::default();
        let same_setting = self.setting == earlier.setting;
        if !same_setting {
            comparison.remarks.push(format!(
                "guard: instructions are not compared: measured with {}, before with {}",
                self.setting, earlier.setting
            ));
        }
        for row in &self.rows {
            match earlier.rows.iter().find(|earlier| earlier.name == row.name) {
                Some(earlier) => row.compare(earlier, same_setting, &mut comparison),
                None => comparison
                    .violations
                    .push(format!("{}: guard.txt does not have it", row.name)),
            }
        }
        for row in &earlier.rows {
            if !self.rows.iter().any(|now| now.name == row.name) {
                let name = &row.name;
                let violation = format!("{name}: guard.txt has it, but it is not measured");
                comparison.violations.push(violation);
            }
        }
        comparison
    }
}

impl Row {
    pub fn line(&self) -> String {
        let instructions = self.instructions.map_or("-".to_owned(), |n| n.to_string());
        let mut line = format!("{:<24}", self.name);
        let _ = write!(
            line,
            "{instructions:>10}{:>5}  {}",
            self.system_calls, self.calls
        );
        line
    }

    fn compare(&self, earlier: &Row, instructions: bool, comparison: &mut Comparison) {
        let name = &self.name;
        if grown(self.system_calls, earlier.system_calls) {
            comparison.violations.push(format!(
                "{name}: {} system calls instead of {}: {}; before: {}",
                self.system_calls, earlier.system_calls, self.calls, earlier.calls
            ));
        } else if grown(earlier.system_calls, self.system_calls) {
            comparison.remarks.push(format!(
                "guard: {name} needs only {} system calls instead of {}; please update guard.txt",
                self.system_calls, earlier.system_calls
            ));
        }
        let (Some(now), Some(before), true) =
            (self.instructions, earlier.instructions, instructions)
        else {
            return;
        };
        let change = 100.0 * (now as f64 / before as f64 - 1.0);
        if now * 100 > before * (100 + INSTRUCTION_MARGIN) {
            comparison.violations.push(format!(
                "{name}: {now} instructions instead of {before} ({change:+.1} %; {INSTRUCTION_MARGIN} % are allowed)"
            ));
        } else if now * 100 < before * (100 - INSTRUCTION_MARGIN) {
            comparison.remarks.push(format!(
                "guard: {name} needs only {now} instructions instead of {before} ({change:+.1} %); please update guard.txt"
            ));
        }
    }
}

/// The CPU, as far as libraries choose instructions by it.
fn cpu() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim())
    };
    let [model, family, number] =
        ["model name", "cpu family", "model\t"].map(|name| value(name).unwrap_or("unknown"));
    format!("{model}, family {family}, model {number}")
}

/// Whether a number of system calls is larger than an earlier one, beyond chance.
fn grown(now: u64, earlier: u64) -> bool {
    let steady = earlier < STEADY;
    now > earlier
        + if steady {
            0
        } else {
            earlier * CALL_MARGIN / 100
        }
}
