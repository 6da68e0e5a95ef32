//! The results of `upslot doctor`: one finding per check, as a line of text or as an object in JSON.
//!
//! The names of checks and problems and the names of the JSON fields are stable: programs depend on them.

use std::fmt::Write;

/// The longest text from outside that a finding repeats, in characters.
const MAX_QUOTED: usize = 120;

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    /// It works, but could be better.
    Notice,
    Fail,
    /// It was not checked; the finding says why.
    Skipped,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Notice => "notice",
            Status::Fail => "fail",
            Status::Skipped => "skipped",
        }
    }

    /// The escape sequence of its colour (ECMA-48): green, yellow, red, grey.
    fn colour(self) -> &'static str {
        match self {
            Status::Ok => "\x1b[32m",
            Status::Notice => "\x1b[33m",
            Status::Fail => "\x1b[31m",
            Status::Skipped => "\x1b[90m",
        }
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The name of the check, such as `upload-size`.
    pub check: &'static str,
    pub status: Status,
    /// The name of the problem, such as `body-limit`; only with [`Status::Notice`] and [`Status::Fail`].
    pub problem: Option<&'static str>,
    /// What was found: one line without a full stop.
    pub found: String,
    /// What to change: one line without a full stop.
    pub remedy: Option<String>,
}

impl Finding {
    fn new(check: &'static str, status: Status, found: impl Into<String>) -> Finding {
        Finding {
            check,
            status,
            problem: None,
            found: found.into(),
            remedy: None,
        }
    }

    pub fn ok(check: &'static str, found: impl Into<String>) -> Finding {
        Finding::new(check, Status::Ok, found)
    }

    pub fn skipped(check: &'static str, why: impl Into<String>) -> Finding {
        Finding::new(check, Status::Skipped, why)
    }

    pub fn fail(
        check: &'static str,
        problem: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding {
            problem: Some(problem),
            remedy: Some(remedy.into()),
            ..Finding::new(check, Status::Fail, found)
        }
    }

    pub fn notice(
        check: &'static str,
        problem: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding {
            status: Status::Notice,
            ..Finding::fail(check, problem, found, remedy)
        }
    }

    /// The finding as a line of text without its end.
    pub fn line(&self, coloured: bool) -> String {
        let label = format!("{:<7}", self.status.name());
        let label = match coloured {
            true => format!("{}{label}\x1b[0m", self.status.colour()),
            false => label,
        };
        let mut line = format!("{label} {:<18} {}.", self.check, self.found);
        if let Some(problem) = self.problem {
            let _ = write!(line, " [{problem}]");
        }
        if let Some(remedy) = &self.remedy {
            let _ = write!(line, " Remedy: {remedy}.");
        }
        line
    }
}

/// All findings, in the order of the checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether no check failed.
    pub fn is_good(&self) -> bool {
        self.count(Status::Fail) == 0
    }

    fn count(&self, status: Status) -> usize {
        let with_status = |finding: &&Finding| finding.status == status;
        self.findings.iter().filter(with_status).count()
    }

    /// The last line of the text.
    pub fn summary(&self) -> String {
        let [ok, notice, fail, skipped] =
            [Status::Ok, Status::Notice, Status::Fail, Status::Skipped]
                .map(|status| self.count(status));
        let verdict = match fail {
            0 => "No check failed",
            1 => "1 check failed",
            _ => {
                return format!(
                    "{fail} checks failed: {ok} ok, {notice} notice, {skipped} skipped."
                );
            }
        };
        format!("{verdict}: {ok} ok, {notice} notice, {skipped} skipped.")
    }

    /// The report as a JSON object (RFC 8259) on one line.
    pub fn json(&self) -> String {
        let mut json = format!(
            "{{\"version\":{},\"ok\":{},\"checks\":[",
            json_string(env!("CARGO_PKG_VERSION")),
            self.is_good()
        );
        for (at, finding) in self.findings.iter().enumerate() {
            let optional = |text: Option<&str>| text.map_or("null".to_owned(), json_string);
            let comma = if at > 0 { "," } else { "" };
            // Writing to a string cannot fail.
            let _ = write!(
                json,
                "{comma}{{\"check\":{},\"status\":{},\"problem\":{},\"found\":{},\"remedy\":{}}}",
                json_string(finding.check),
                json_string(finding.status.name()),
                optional(finding.problem),
                json_string(&finding.found),
                optional(finding.remedy.as_deref())
            );
        }
        json.push_str("]}\n");
        json
    }
}

fn json_string(text: &str) -> String {
    let mut json = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            c => json.push(c),
        }
    }
    json.push('"');
    json
}

/// A text from outside as it may be shown on a terminal: one line of bounded length without control characters.
pub fn quoted(text: impl AsRef<[u8]>) -> String {
    let text = String::from_utf8_lossy(text.as_ref());
    let mut words = String::new();
    for word in text.split_whitespace() {
        if !words.is_empty() {
            words.push(' ');
        }
        words.extend(word.chars().filter(|c| !c.is_control()));
    }
    match words.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Finding {
        Finding::fail("upload-size", "body-limit", "413 from \"nginx\"", "set\tit")
    }

    #[test]
    fn a_finding_is_one_line() {
        let line = failed().line(false);
        assert_eq!(
            line,
            "fail    upload-size        413 from \"nginx\". [body-limit] Remedy: set\tit."
        );
        let line = Finding::ok("dns", "fine").line(true);
        assert_eq!(line, "\x1b[32mok     \x1b[0m dns                fine.");
    }

    #[test]
    fn the_report_is_json() {
        let mut report = Report::default();
        assert_eq!(
            report.json(),
            "{\"version\":\"0.1.0\",\"ok\":true,\"checks\":[]}\n"
                .replace("0.1.0", env!("CARGO_PKG_VERSION"))
        );
        report.findings = vec![Finding::skipped("dns", "an \u{1b} address"), failed()];
        let json = report.json();
        assert!(json.ends_with(
            "\"ok\":false,\"checks\":[{\"check\":\"dns\",\"status\":\"skipped\",\"problem\":null,\
             \"found\":\"an \\u001b address\",\"remedy\":null},{\"check\":\"upload-size\",\"status\":\"fail\",\
             \"problem\":\"body-limit\",\"found\":\"413 from \\\"nginx\\\"\",\"remedy\":\"set\\u0009it\"}]}\n"
        ), "{json}");
    }

    #[test]
    fn only_failures_spoil_a_report() {
        let mut report = Report::default();
        report.findings.push(Finding::ok("a", ""));
        report.findings.push(Finding::notice("b", "p", "", ""));
        report.findings.push(Finding::skipped("c", ""));
        assert!(report.is_good());
        assert_eq!(
            report.summary(),
            "No check failed: 1 ok, 1 notice, 1 skipped."
        );
        report.findings.push(failed());
        assert!(!report.is_good());
        assert!(report.summary().starts_with("1 check failed: "));
        report.findings.push(failed());
        assert!(report.summary().starts_with("2 checks failed: "));
    }

    #[test]
    fn texts_from_outside_are_harmless() {
        assert_eq!(quoted("a\x1b[31m\r\nb\u{85}  c"), "a[31m b c");
        assert_eq!(quoted(b"\xff"), "\u{fffd}");
        let long = quoted("é".repeat(500));
        assert_eq!(long.chars().count(), MAX_QUOTED + 1);
    }
}
