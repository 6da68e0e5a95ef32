//! MIME types: guessed from file names, compared, and matched against lists of safe types.
//!
//! Types are compared by their essence, in lower case and without parameters. Content is never sniffed. The table of
//! extensions is upslot's own because the crates with one have ten times as many types as needed here, and lack some that
//! are used in chats.
//!
//! Sources: RFC 9110 §8.3, RFC 6838 §4.2; IANA's registry for the names.

use std::fmt;

use crate::http::syntax::{is_control, is_token, is_token_byte, trim};

/// The default type.
pub const UNKNOWN: &str = "application/octet-stream";
/// Longest accepted type in bytes.
pub const MAX_TYPE: usize = 255;

/// Types that are displayed inline by default. PDF is not among them, because browsers run its scripts (in a sandbox)
/// regardless of the content security policy.
pub const DEFAULT_SAFE: [&str; 4] = ["image/*", "video/*", "audio/*", "text/plain"];

/// The type for the extension of a file name, case-insensitive; [`UNKNOWN`] if there is none.
pub fn by_extension(name: impl AsRef<[u8]>) -> &'static str {
    let name = name.as_ref();
    let Some(dot) = name.iter().rposition(|&byte| byte == b'.') else {
        return UNKNOWN;
    };
    let lower = || name[dot + 1..].iter().map(u8::to_ascii_lowercase);
    let found = BY_EXTENSION.binary_search_by(|(known, _)| known.bytes().cmp(lower()));
    found.map_or(UNKNOWN, |at| BY_EXTENSION[at].1)
}

/// An extension that implies this type, the subtype itself if possible.
pub fn extension(content_type: &str) -> Option<&'static str> {
    let essence = essence(content_type);
    let same = || BY_EXTENSION.iter().filter(|(_, known)| **known == *essence);
    let by_name = |(extension, _): &&(&str, &str)| essence.ends_with(&format!("/{extension}"));
    let found = same().find(by_name).or_else(|| same().next_back());
    found.map(|(extension, _)| *extension)
}

/// A type without its parameters, trimmed, in lower case. The result for a malformed type equals no valid type; for an
/// empty type it is empty.
pub fn essence(value: impl AsRef<[u8]>) -> String {
    let value = value.as_ref();
    let end = value.iter().position(|&byte| byte == b';');
    let essence = trim(&value[..end.unwrap_or(value.len())]);
    String::from_utf8_lossy(essence).to_ascii_lowercase()
}

/// Whether a PUT of type `put` matches a slot of type `slot`. A slot without a type matches any PUT; a PUT without a type,
/// with an empty one or with [`UNKNOWN`] matches any slot.
pub fn same_type(slot: Option<&str>, put: Option<&[u8]>) -> bool {
    let slot = essence(slot.unwrap_or_default());
    let put = essence(put.unwrap_or_default());
    slot.is_empty() || put.is_empty() || put == UNKNOWN || slot == put
}

/// Whether a type can be used as a field value: valid according to RFC 9110 §8.3.1, ASCII, at most [`MAX_TYPE`] bytes, and
/// without wildcards.
pub fn is_valid(value: impl AsRef<[u8]>) -> bool {
    let value = value.as_ref();
    if value.len() > MAX_TYPE || !value.is_ascii() {
        return false;
    }
    let end = value
        .iter()
        .position(|&byte| byte == b';')
        .unwrap_or(value.len());
    let mut parts = trim(&value[..end]).splitn(2, |&byte| byte == b'/');
    let valid = |part: Option<&[u8]>| part.is_some_and(|part| is_token(part) && part != b"*");
    let unpadded =
        !matches!(value.first(), Some(b' ' | b'\t')) && !matches!(value.last(), Some(b' ' | b'\t'));
    unpadded && valid(parts.next()) && valid(parts.next()) && are_parameters(&value[end..], |_| {})
}

/// Whether a type has a parameter of this name (case-insensitive). Of a malformed type, only the part before the error
/// counts.
pub fn has_parameter(value: &str, name: &str) -> bool {
    let mut found = false;
    let parameters = value.find(';').map_or("", |at| &value[at..]);
    are_parameters(parameters.as_bytes(), |other| {
        found |= other.eq_ignore_ascii_case(name.as_bytes());
    });
    found
}

/// Whether the text is `*( OWS ";" OWS [ token "=" ( token / quoted-string ) ] )` (RFC 9110 §5.6.6). Calls `visit` with
/// each name.
fn are_parameters(mut text: &[u8], mut visit: impl FnMut(&[u8])) -> bool {
    loop {
        text = trim(text);
        text = match text {
            [] => return true,
            [b';', rest @ ..] => trim(rest),
            _ => return false,
        };
        let name = text.iter().take_while(|&&byte| is_token_byte(byte)).count();
        if name == 0 {
            continue;
        }
        visit(&text[..name]);
        text = match &text[name..] {
            [b'=', b'"', rest @ ..] => match end_of_quoted(rest) {
                Some(end) => &rest[end..],
                None => return false,
            },
            [b'=', rest @ ..] => match rest.iter().take_while(|&&byte| is_token_byte(byte)).count()
            {
                0 => return false,
                end => &rest[end..],
            },
            _ => return false,
        };
    }
}

/// The offset after the closing quote of a quoted string (RFC 9110 §5.6.4).
fn end_of_quoted(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            _ if is_control(byte) => return None,
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// A configured list of types and wildcards, in lower case and without parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patterns(Vec<String>);

/// A word that is neither a type nor a wildcard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPattern(pub String);

impl fmt::Display for BadPattern {
    #[rustfmt::skip]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is neither a type such as image/png nor a wildcard such as image/*.",
            self.0
        )
    }
}

impl std::error::Error for BadPattern {}

impl Patterns {
    /// Parses types and wildcards, case-insensitive, ignoring parameters.
    pub fn parse<S: AsRef<str>>(
        words: impl IntoIterator<Item = S>,
    ) -> Result<Patterns, BadPattern> {
        let pattern = |word: S| {
            let essence = essence(word.as_ref());
            match essence.split_once('/') {
                None if essence == "*" => Ok("*/*".to_owned()),
                Some((main, "*")) if is_token(main.as_bytes()) => Ok(essence),
                _ if is_valid(&essence) => Ok(essence),
                _ => Err(BadPattern(word.as_ref().to_owned())),
            }
        };
        words
            .into_iter()
            .map(pattern)
            .collect::<Result<_, _>>()
            .map(Patterns)
    }

    /// [`DEFAULT_SAFE`].
    pub fn default_safe() -> Patterns {
        Patterns(DEFAULT_SAFE.map(str::to_owned).to_vec())
    }

    /// Whether a type is in the list.
    pub fn allow(&self, value: impl AsRef<[u8]>) -> bool {
        let essence = essence(value);
        self.0
            .iter()
            .any(|pattern| match pattern.strip_suffix("/*") {
                Some("*") => true,
                Some(main) => essence
                    .strip_prefix(main)
                    .and_then(|rest| rest.strip_prefix('/'))
                    .is_some_and(|subtype| is_token(subtype.as_bytes())),
                None => essence == *pattern,
            })
    }

    /// The type with which a file is served, if this is the list of safe types. Pages and service workers can load scripts
    /// regardless of `Content-Disposition`, but not under another type with `nosniff`. Therefore scripts are served as
    /// [`UNKNOWN`] unless the list names their type.
    pub fn served<'a>(&self, value: &'a str) -> &'a str {
        let essence = essence(value);
        if is_script(&essence) && !self.0.contains(&essence) {
            return UNKNOWN;
        }
        value
    }

    /// Whether a file of this type may be displayed inline, if this is the list of safe types. A type that can contain
    /// scripts must be listed itself; wildcards do not cover it. A malformed type is never displayed inline.
    pub fn show_inline(&self, value: impl AsRef<[u8]>) -> bool {
        let value = value.as_ref();
        let essence = essence(value);
        if !is_valid(value) {
            return false;
        }
        if carries_script(&essence) {
            return self.0.contains(&essence);
        }
        self.allow(essence)
    }
}

/// Whether pages can load a file of this type as a script (WHATWG MIME Sniffing §4.6, "JavaScript MIME type").
fn is_script(essence: &str) -> bool {
    ["javascript", "ecmascript", "jscript", "livescript"]
        .iter()
        .any(|language| essence.contains(language))
}

/// Whether documents of this type can contain scripts that browsers run.
fn carries_script(essence: &str) -> bool {
    const ACTIVE: [&str; 6] = [
        "application/xml",
        "message/rfc822",
        "multipart/related",
        "multipart/x-mixed-replace",
        "text/html",
        "text/xml",
    ];
    essence.ends_with("+xml") || essence.contains("xsl") || ACTIVE.contains(&essence)
}

/// Extensions and their types, sorted by extension.
#[rustfmt::skip]
const BY_EXTENSION: &[(&str, &str)] = &[
    ("3g2", "video/3gpp2"), ("3ga", "audio/3gpp"), ("3gp", "video/3gpp"),
    ("7z", "application/x-7z-compressed"), ("aac", "audio/aac"), ("ac3", "audio/ac3"),
    ("aif", "audio/aiff"), ("aiff", "audio/aiff"), ("amr", "audio/amr"),
    ("apk", "application/vnd.android.package-archive"), ("apng", "image/apng"),
    ("asc", "application/pgp-keys"), ("avi", "video/x-msvideo"), ("avif", "image/avif"),
    ("azw3", "application/vnd.amazon.ebook"), ("bmp", "image/bmp"), ("br", "application/x-brotli"),
    ("bz2", "application/x-bzip2"), ("caf", "audio/x-caf"),
    ("cbr", "application/vnd.comicbook-rar"), ("cbz", "application/vnd.comicbook+zip"),
    ("conf", "text/plain"), ("css", "text/css"), ("csv", "text/csv"),
    ("cur", "image/vnd.microsoft.icon"), ("deb", "application/vnd.debian.binary-package"),
    ("diff", "text/x-diff"), ("djvu", "image/vnd.djvu"), ("dmg", "application/x-apple-diskimage"),
    ("dng", "image/x-adobe-dng"), ("doc", "application/msword"),
    ("docm", "application/vnd.ms-word.document.macroenabled.12"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("dot", "application/msword"), ("eml", "message/rfc822"), ("epub", "application/epub+zip"),
    ("exe", "application/vnd.microsoft.portable-executable"), ("flac", "audio/flac"),
    ("flv", "video/x-flv"), ("geojson", "application/geo+json"), ("gif", "image/gif"),
    ("glb", "model/gltf-binary"), ("gltf", "model/gltf+json"),
    ("gpg", "application/pgp-encrypted"), ("gpx", "application/gpx+xml"),
    ("gz", "application/gzip"), ("heic", "image/heic"), ("heics", "image/heic-sequence"),
    ("heif", "image/heif"), ("heifs", "image/heif-sequence"), ("htm", "text/html"),
    ("html", "text/html"), ("ico", "image/vnd.microsoft.icon"), ("ics", "text/calendar"),
    ("ini", "text/plain"), ("ipa", "application/x-itunes-ipa"),
    ("iso", "application/x-iso9660-image"), ("jar", "application/java-archive"),
    ("jfif", "image/jpeg"), ("jp2", "image/jp2"), ("jpe", "image/jpeg"), ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"), ("js", "text/javascript"), ("json", "application/json"),
    ("jxl", "image/jxl"), ("kml", "application/vnd.google-earth.kml+xml"),
    ("kmz", "application/vnd.google-earth.kmz"), ("log", "text/plain"), ("m2ts", "video/mp2t"),
    ("m3u8", "application/vnd.apple.mpegurl"), ("m4a", "audio/mp4"), ("m4b", "audio/mp4"),
    ("m4v", "video/mp4"), ("markdown", "text/markdown"), ("md", "text/markdown"),
    ("mid", "audio/midi"), ("midi", "audio/midi"), ("mjs", "text/javascript"),
    ("mka", "audio/x-matroska"), ("mkv", "video/x-matroska"),
    ("mobi", "application/x-mobipocket-ebook"), ("mov", "video/quicktime"), ("mp2", "audio/mpeg"),
    ("mp3", "audio/mpeg"), ("mp4", "video/mp4"), ("mpeg", "video/mpeg"), ("mpg", "video/mpeg"),
    ("msi", "application/x-msi"), ("mts", "video/mp2t"), ("obj", "model/obj"),
    ("odg", "application/vnd.oasis.opendocument.graphics"),
    ("odp", "application/vnd.oasis.opendocument.presentation"),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet"),
    ("odt", "application/vnd.oasis.opendocument.text"), ("oga", "audio/ogg"), ("ogg", "audio/ogg"),
    ("ogv", "video/ogg"), ("opus", "audio/ogg"), ("otf", "font/otf"),
    ("p7s", "application/pkcs7-signature"), ("patch", "text/x-diff"), ("pdf", "application/pdf"),
    ("pem", "application/x-pem-file"), ("pgp", "application/pgp-encrypted"),
    ("pkpass", "application/vnd.apple.pkpass"), ("png", "image/png"),
    ("ppt", "application/vnd.ms-powerpoint"),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("ps", "application/postscript"), ("psd", "image/vnd.adobe.photoshop"), ("qoi", "image/qoi"),
    ("qt", "video/quicktime"), ("rar", "application/vnd.rar"), ("rpm", "application/x-rpm"),
    ("rtf", "application/rtf"), ("sig", "application/pgp-signature"), ("spx", "audio/ogg"),
    ("sqlite", "application/vnd.sqlite3"), ("srt", "application/x-subrip"), ("stl", "model/stl"),
    ("svg", "image/svg+xml"), ("svgz", "image/svg+xml"), ("tar", "application/x-tar"),
    ("text", "text/plain"), ("tga", "image/x-tga"), ("tgz", "application/gzip"),
    ("tif", "image/tiff"), ("tiff", "image/tiff"), ("toml", "application/toml"),
    ("torrent", "application/x-bittorrent"), ("tsv", "text/tab-separated-values"),
    ("ttc", "font/collection"), ("ttf", "font/ttf"), ("txt", "text/plain"),
    ("txz", "application/x-xz"), ("vcard", "text/vcard"), ("vcf", "text/vcard"),
    ("vtt", "text/vtt"), ("wasm", "application/wasm"), ("wav", "audio/wav"),
    ("weba", "audio/webm"), ("webm", "video/webm"), ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"), ("wma", "audio/x-ms-wma"), ("wmv", "video/x-ms-wmv"),
    ("woff", "font/woff"), ("woff2", "font/woff2"), ("xhtml", "application/xhtml+xml"),
    ("xls", "application/vnd.ms-excel"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("xml", "application/xml"), ("xpi", "application/x-xpinstall"), ("xz", "application/x-xz"),
    ("yaml", "application/yaml"), ("yml", "application/yaml"), ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_valid() {
        assert!(BY_EXTENSION.is_sorted_by(|a, b| a.0 < b.0));
        for (extension, value) in BY_EXTENSION {
            assert!(is_valid(value), "{value}");
            assert_eq!(essence(value), *value);
            assert_eq!(extension.to_ascii_lowercase(), *extension);
            assert_eq!(by_extension(format!("a.{extension}")), *value);
        }
    }

    #[test]
    fn scripts_are_served_as_such_only_if_listed() {
        for value in [
            "text/javascript",
            "Application/JavaScript; charset=utf-8",
            "application/x-javascript",
            "text/ecmascript",
            "text/javascript1.5",
            "text/jscript",
            "text/x-livescript",
        ] {
            for words in [&["image/*", "text/*"][..], &["*/*"], &["text/plain"]] {
                let safe = Patterns::parse(words).unwrap();
                assert_eq!(safe.served(value), UNKNOWN, "{value} of {words:?}");
            }
            let named = Patterns::parse([value]).unwrap();
            assert_eq!(named.served(value), value);
        }
        let safe = Patterns::default_safe();
        for value in [
            "text/plain",
            "text/html",
            "image/png",
            "application/json",
            UNKNOWN,
        ] {
            assert_eq!(safe.served(value), value);
        }
    }

    #[test]
    fn extensions() {
        for (name, expected) in [
            ("photo.jpg", "image/jpeg"),
            ("PHOTO.JPEG", "image/jpeg"),
            ("a.b.Avif", "image/avif"),
            ("x.heic", "image/heic"),
            ("x.jxl", "image/jxl"),
            ("voice.opus", "audio/ogg"),
            ("voice.m4a", "audio/mp4"),
            ("clip.webm", "video/webm"),
            ("notes.txt", "text/plain"),
            ("README.md", "text/markdown"),
            ("drawing.svg", "image/svg+xml"),
            ("app.apk", "application/vnd.android.package-archive"),
            ("archive.tar.zst", "application/zstd"),
            ("tr\u{e8}s cool.jpg", "image/jpeg"),
            (".png", "image/png"),
            ("jpg", UNKNOWN),
            ("a.", UNKNOWN),
            ("", UNKNOWN),
            (".", UNKNOWN),
            ("a.jpg ", UNKNOWN),
            ("a.nothing", UNKNOWN),
            ("a.j\u{fc}g", UNKNOWN),
        ] {
            assert_eq!(by_extension(name), expected, "{name:?}");
        }
        assert_eq!(by_extension(b"\xff\xfe.png"), "image/png");
        assert_eq!(by_extension(b"a.\xff"), UNKNOWN);
        assert_eq!(by_extension(format!("a.{}", "x".repeat(100_000))), UNKNOWN);
    }

    #[test]
    fn essences() {
        for (value, expected) in [
            ("image/png", "image/png"),
            (" Text/Plain ; charset=utf-8", "text/plain"),
            ("text/plain;charset=utf-8", "text/plain"),
            ("", ""),
            ("  ", ""),
            ("; charset=utf-8", ""),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(essence(value), expected, "{value:?}");
        }
        assert_eq!(essence(b"image/\xff"), "image/\u{fffd}");
    }

    #[track_caller]
    fn check_same(slot: Option<&str>, put: Option<&str>, expected: bool) {
        assert_eq!(
            same_type(slot, put.map(str::as_bytes)),
            expected,
            "{slot:?} {put:?}"
        );
    }

    #[test]
    fn types_of_slot_and_put() {
        for slot in [
            None,
            Some(""),
            Some("image/png"),
            Some("text/plain; charset=utf-8"),
        ] {
            check_same(slot, None, true);
            check_same(slot, Some(""), true);
            check_same(slot, Some(" "), true);
            check_same(slot, Some("application/octet-stream"), true);
            check_same(slot, Some("Application/Octet-Stream; x=y"), true);
        }
        check_same(None, Some("text/html"), true);
        check_same(Some("image/png"), Some("IMAGE/PNG"), true);
        check_same(Some("text/plain; charset=utf-8"), Some("text/plain"), true);
        check_same(Some("text/plain"), Some("text/plain;charset=latin1"), true);
        check_same(Some("image/png"), Some("image/jpeg"), false);
        check_same(Some("image/png"), Some("text/html"), false);
        check_same(Some("image/png"), Some("image/*"), false);
        check_same(Some("image/png"), Some("image/png, text/html"), false);
        check_same(Some("application/octet-stream"), Some("image/png"), false);
    }

    #[test]
    #[rustfmt::skip]
    fn valid_types() {
        for value in [
            "image/png", "text/plain; charset=utf-8", "text/plain;charset=\"utf-8\"", "a/b",
            "a/b;", "a/b ; c=d", "a/b;c=\"d\\\"e;f\"", "a/b;;c=d",
            "application/vnd.x+xml;a=b;c=\"d e\"", "audio/ogg; codecs=opus",
            "video/mp4; codecs=\"avc1.42E01E, mp4a.40.2\"",
        ] {
            assert!(is_valid(value), "{value:?}");
            for junk in ["\r\nX: y", "\0", "\u{e9}", "\u{7f}", "\"", "\n", " "] {
                assert!(
                    !is_valid(format!("{value}{junk}")),
                    "{value:?} and {junk:?}"
                );
            }
        }
        for value in [
            "", "/", "a", "a/", "/b", "a/b/c", "a b/c", "a/b c", "a/b;c", "a/b;c=", "a/b;=d",
            "a/b;c=d e", "a/b;c =d", "a/b;c= d", "a/b;c=\"d", "a/b;c=\"d\\\"", "a/b, c/d", "*/*",
            "image/*", " a/b", "a/b\t", "a/b;c=\"\n\"", "t\u{e9}xt/plain", "text/plain;c=\u{e9}",
            "text/html<script>/x",
        ] {
            assert!(!is_valid(value), "{value:?}");
        }
        assert!(is_valid(format!("a/{}", "b".repeat(253))));
        assert!(!is_valid(format!("a/{}", "b".repeat(254))));
    }

    #[test]
    #[rustfmt::skip]
    fn lists_of_types() {
        let list =
            Patterns::parse(["Image/*", "text/plain; charset=utf-8", " audio/OGG "]).unwrap();
        for (value, expected) in [
            ("image/png", true),
            ("IMAGE/PNG; x=y", true),
            ("image/svg+xml", true),
            ("text/plain", true),
            ("text/html", false),
            ("audio/ogg;codecs=opus", true),
            ("audio/mpeg", false),
            ("imagex/png", false),
            ("image/", false),
            ("image/png, text/html", false),
            ("", false),
        ] {
            assert_eq!(list.allow(value), expected, "{value:?}");
        }
        for any in ["*/*", "*"] {
            assert!(Patterns::parse([any]).unwrap().allow("x/y"));
        }
        assert!(!Patterns::parse([] as [&str; 0]).unwrap().allow("x/y"));
        for bad in [
            "", "image", "image/", "/png", "*/png", "image/p*g/", "image/png,text/plain",
            "im age/*", "**",
        ] {
            assert_eq!(
                Patterns::parse(["a/b", bad]),
                Err(BadPattern(bad.to_owned()))
            );
        }
    }

    #[test]
    fn types_displayed_inline() {
        let safe = Patterns::default_safe();
        assert_eq!(Patterns::parse(DEFAULT_SAFE), Ok(safe.clone()));
        for (value, expected) in [
            ("image/png", true),
            ("image/svg+xml", false),
            ("Image/SVG+XML; charset=utf-8", false),
            ("video/mp4", true),
            ("audio/ogg; codecs=opus", true),
            ("text/plain; charset=utf-8", true),
            ("application/pdf", false),
            ("text/html", false),
            ("text/markdown", false),
            (UNKNOWN, false),
            ("", false),
            ("image/", false),
            ("image/png, text/html", false),
            ("image/png; x", false),
        ] {
            assert_eq!(safe.show_inline(value), expected, "{value:?}");
        }
        let wide = Patterns::parse(["*/*", "image/svg+xml"]).unwrap();
        assert!(wide.show_inline("image/svg+xml"));
        assert!(wide.show_inline("text/markdown"));
        assert!(!wide.show_inline("text/html"));
        assert!(!wide.show_inline("application/xhtml+xml"));
        assert!(!wide.show_inline("text/xml"));
        assert!(
            Patterns::parse(["text/html"])
                .unwrap()
                .show_inline("text/html; charset=utf-8")
        );
    }
}
