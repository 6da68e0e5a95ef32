//! File names: kept unchanged, except for characters that a file system cannot store.

use crate::layout::MAX_NAME;

/// Longest extension, in bytes including the dot, that is preserved when a name is shortened.
const MAX_EXTENSION: usize = 32;

/// Makes a name safe to store: `/`, NUL, control characters and a leading dot become `_`; a name longer than 255 bytes
/// is cut before its extension, at a character boundary. An empty name stays empty.
pub fn clean(name: &str) -> String {
    let mut cleaned = name.replace(|c: char| c == '/' || c.is_control(), "_");
    if cleaned.starts_with('.') {
        cleaned.replace_range(..1, "_");
    }
    if cleaned.len() > MAX_NAME {
        let extension = match cleaned.rfind('.') {
            Some(at) if cleaned.len() - at <= MAX_EXTENSION => cleaned.split_off(at),
            _ => String::new(),
        };
        let mut end = MAX_NAME - extension.len();
        while !cleaned.is_char_boundary(end) {
            end -= 1;
        }
        cleaned.truncate(end);
        cleaned.push_str(&extension);
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, cleaned: &str) {
        assert_eq!(clean(name), cleaned, "{name:?}");
        assert_eq!(clean(cleaned), cleaned, "clean is idempotent");
    }

    #[test]
    fn only_characters_that_cannot_be_stored_are_replaced() {
        check("très cool.jpg", "très cool.jpg");
        check("a #?%&+\\:.jpg", "a #?%&+\\:.jpg");
        check("😀.png", "😀.png");
        check("a/b.jpg", "a_b.jpg");
        check("../../etc/passwd", "_._.._etc_passwd");
        check(".htaccess", "_htaccess");
        check("..", "_.");
        check("a\0b\r\n\u{7f}\u{85}c", "a_b____c");
        check("", "");
        check(" ", " ");
    }

    #[test]
    fn long_names_are_cut_before_the_extension() {
        check(&"x".repeat(255), &"x".repeat(255));
        check(&"x".repeat(300), &"x".repeat(255));
        check(
            &format!("{}.jpg", "x".repeat(300)),
            &format!("{}.jpg", "x".repeat(251)),
        );
        check(
            &format!("{}.jpg", "è".repeat(200)),
            &format!("{}.jpg", "è".repeat(125)),
        );
        check(
            &format!("a.{}", "x".repeat(300)),
            &format!("a.{}", "x".repeat(253)),
        );
    }
}
