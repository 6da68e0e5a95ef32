//! Characters that word processors and web pages put into copied values: typographic quotes, dashes, special spaces.

use crate::config::raw::ValueForm;

/// What such a value should contain instead.
pub const STRAIGHT: &str =
    "straight quotes (' or \") or none, and plain spaces; single quotes keep the value as it is";

/// Finds such characters in a value without quotes; `None` for a clean value.
pub fn stray(text: &str, form: ValueForm) -> Option<&'static str> {
    if form == ValueForm::Other {
        return None;
    }
    let typographic = |c: char| {
        matches!(
            c,
            '\u{2018}'..='\u{201f}' | '\u{ab}' | '\u{bb}' | '\u{2039}' | '\u{203a}'
        )
    };
    let invisible = |c: char| {
        matches!(
            c,
            '\u{a0}' | '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'
                ..='\u{202f}' | '\u{2060}' | '\u{3000}' | '\u{feff}'
        )
    };
    if text.starts_with(typographic) || text.ends_with(typographic) {
        return Some("typographic quotes, which become part of the value");
    }
    if text.starts_with(['\u{2013}', '\u{2014}', '\u{2022}']) {
        return Some("a dash or bullet that is not the \"-\" of a list");
    }
    text.contains(invisible)
        .then_some("an invisible character or a special space")
}
