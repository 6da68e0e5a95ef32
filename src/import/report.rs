//! The outcome of an import: sums, and for each reason for which files are not imported, a few examples.

use std::collections::BTreeMap;
use std::io::Write;

use crate::import::record::Reason;
use crate::list::say;
use crate::units;

/// Maximum number of examples of a reason.
const MAX_EXAMPLES: usize = 3;

/// Longest example, in characters.
const MAX_EXAMPLE: usize = 100;

/// A number of files and their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    files: u64,
    bytes: u64,
}

impl Sum {
    pub fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// The outcome so far.
#[derive(Debug, Default)]
pub struct Report {
    pub linked: Sum,
    pub copied: Sum,
    /// Imported before.
    pub present: Sum,
    left_out: BTreeMap<Reason, (u64, Vec<String>)>,
}

impl Report {
    /// A file is not imported, or not as it was.
    pub fn leave_out(&mut self, reason: Reason, example: &[u8]) {
        let (files, examples) = self.left_out.entry(reason).or_default();
        *files += 1;
        if examples.len() < MAX_EXAMPLES {
            let text = String::from_utf8_lossy(example);
            let short: String = text.chars().take(MAX_EXAMPLE).collect();
            examples.push(format!("{short:?}"));
        }
    }

    /// Prints everything.
    pub fn print(&self, dry_run: bool, out: &mut dyn Write) -> Result<(), String> {
        let Report {
            linked,
            copied,
            present,
            left_out,
        } = self;
        let verb = match (dry_run, linked.files + copied.files) {
            (true, _) => "would be imported",
            (false, 1) => "was imported",
            (false, _) => "were imported",
        };
        let text = format!(
            "{} {verb}, {}: {} by hard links, {} copied.",
            units::files(linked.files + copied.files),
            units::size(linked.bytes.saturating_add(copied.bytes)),
            linked.files,
            copied.files,
        );
        say(out, &text)?;
        if present.files > 0 {
            let (files, size) = (units::files(present.files), units::size(present.bytes));
            say(out, &format!("{files} imported before, {size}."))?;
        }
        for (reason, (files, examples)) in left_out {
            let examples = examples.join(", ");
            let files = units::files(*files);
            say(
                out,
                &format!("{files} left out: {reason}. Such as {examples}."),
            )?;
        }
        Ok(())
    }
}
