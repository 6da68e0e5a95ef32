//! The known word that a misspelt one most resembles.

/// Longest unknown word that is compared, in bytes.
const MAX_COMPARED: usize = 40;

/// The word of `known` that `text` most resembles; `None` if the nearest takes more than three edits, or more than one
/// for every three characters.
pub fn nearest(text: &str, known: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    if text.len() > MAX_COMPARED {
        return None;
    }
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', ' ', '.'], "_");
    let text = plain(text);
    let most = (text.chars().count() / 3).min(3);
    let best = known
        .into_iter()
        .map(|word| (distance(&text, &plain(word)), word))
        .min_by_key(|(edits, _)| *edits);
    best.filter(|(edits, _)| *edits <= most)
        .map(|(_, word)| word)
}

/// How many characters must be inserted, removed or replaced, or neighbours swapped, to make `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut edits = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                edits = edits.min(before[j - 2] + 1);
            }
            row.push(edits);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::KEYS;

    #[track_caller]
    fn check(text: &str, key: Option<&str>) {
        let known = KEYS.iter().map(|key| key.name);
        assert_eq!(nearest(text, known), key, "{text:?}");
    }

    #[test]
    fn counts_edits() {
        for (a, b, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("abc", "acb", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
            assert_eq!(distance(b, a), edits, "{b} {a}");
        }
    }

    #[test]
    fn finds_what_was_meant() {
        check("max_filesize", Some("max_file_size"));
        check("maxfilesize", Some("max_file_size"));
        check("storage-path", Some("storage_path"));
        check("Storage_Path", Some("storage_path"));
        check("whitelsit", Some("whitelist"));
        check("acess", Some("access"));
        check("component_sercet", Some("component_secret"));
        check("put_ulr", Some("put_url"));
    }

    #[test]
    fn stays_silent_when_nothing_is_near() {
        for text in [
            "",
            "x",
            "port",
            "database",
            "größe",
            "jid",
            &"max_file_size".repeat(4),
        ] {
            check(text, None);
        }
    }
}
