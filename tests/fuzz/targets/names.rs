//! File names in slots, URLs and `Content-Disposition`, MIME types, and queries.

use upslot::http::query::Query;
use upslot::http::{disposition, mime};
use upslot::jid::BareJid;
use upslot::layout::{
    Expiry, StorePath, Tag, decode_segment, encode_query_value, encode_segment, owner_folder,
};
use upslot::purpose::Purpose;
use upslot::slot::name;

use super::{Choices, reference};

pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let (kind, number) = (choices.byte(), choices.number());
    let bytes = choices.rest();
    let text = String::from_utf8_lossy(bytes);

    let cleaned = name::clean(&text);
    assert_eq!(name::clean(&cleaned), cleaned, "clean is idempotent");
    assert_eq!(cleaned.is_empty(), text.is_empty());
    assert!(cleaned.len() <= 255 && !cleaned.starts_with('.'));
    assert!(!cleaned.contains(|c: char| c == '/' || c.is_control()));
    if let (Some(dot), true) = (text.rfind('.'), text.len() > 255) {
        // A short extension is preserved.
        let extension = &text[dot..];
        if extension.len() <= 16
            && dot > 0
            && !extension.contains(|c: char| c == '/' || c.is_control())
        {
            assert!(cleaned.ends_with(extension), "{cleaned:?}");
        }
    }

    owner(&text);
    slot_path(kind, number, &cleaned);
    encodings(bytes);
    content_disposition(bytes);
    mime_type(bytes);
    queries(bytes);
}

fn owner(text: &str) {
    let Some(jid) = BareJid::parse(text) else {
        return;
    };
    let bare = jid.as_str();
    assert_eq!(BareJid::parse(bare).as_ref(), Some(&jid), "{bare:?}");
    assert_eq!(BareJid::parse(&format!("{bare}/x@y/z")), Some(jid.clone()));
    assert!(!bare.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/'));
    assert!(bare.ends_with(jid.domain()) && !jid.domain().is_empty());
    let folder = owner_folder(&jid);
    assert!(folder.len() == 27 && folder.is_ascii());
}

/// Owner, tag and name round-trip through the path of a slot.
fn slot_path(kind: u8, number: u16, name: &str) {
    let seconds = u64::from(number) << (kind % 40);
    let purpose = match kind % 4 {
        0 => Purpose::Message,
        1 => Purpose::Profile,
        2 => Purpose::Permanent,
        _ => Purpose::Ephemeral {
            expire_before: seconds,
        },
    };
    let end = match (purpose, kind / 4 % 4) {
        (_, 0) => Expiry::Default,
        (_, 1) => Expiry::Age(seconds),
        (Purpose::Ephemeral { .. }, _) => Expiry::Default,
        (_, 2) => Expiry::Never,
        _ => Expiry::At(seconds),
    };
    let size = (kind & 64 != 0).then_some(seconds);
    let tag = Tag { purpose, end, size };
    let owner = BareJid::parse("romeo@montague.tld").unwrap();
    let path = StorePath::for_slot(&owner, tag, &[kind; 15], name);
    let Some(path) = path else {
        assert!(name.is_empty());
        return;
    };
    reference::assert_inside_storage(&path);
    assert_eq!(path.tag(), Some(tag));
    assert_eq!(path.name(), name.as_bytes());
    let encoded = path.encoded();
    assert!(
        encoded
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~%/".contains(&b))
    );
    let decoded: Vec<Vec<u8>> = encoded
        .split('/')
        .map(|part| reference::decode(part.as_bytes()).unwrap())
        .collect();
    let again = StorePath::from_segments(decoded.iter().map(Vec::as_slice));
    assert_eq!(again, Some(path));
}

fn encodings(bytes: &[u8]) {
    let encoded = encode_segment(bytes);
    assert!(!encoded.contains('/') && encoded.is_ascii());
    assert_eq!(decode_segment(encoded.as_bytes()).as_deref(), Some(bytes));
    let mut value = String::from("x=");
    encode_query_value(bytes, &mut value);
    assert!(!value[2..].contains(['&', '=', '#', '?', '+', ' ']));
    assert_eq!(
        decode_segment(&value.as_bytes()[2..]).as_deref(),
        Some(bytes)
    );
    // Input is decoded like by the reference implementation.
    let decoded = decode_segment(bytes).map(|decoded| decoded.into_owned());
    assert_eq!(decoded, reference::decode(bytes));
}

/// `Content-Disposition` is one line of ASCII from which a client decodes exactly this name.
fn content_disposition(name: &[u8]) {
    for inline in [true, false] {
        let value = disposition::value(inline, name);
        assert!(value.bytes().all(|b| matches!(b, b' '..=b'~')), "{value:?}");
        let rest = value
            .strip_prefix(if inline { "inline" } else { "attachment" })
            .unwrap();
        if name.is_empty() {
            assert!(rest.is_empty());
            continue;
        }
        if rest.is_empty() {
            // Only the end of a long name is kept, and the end of this one holds no complete character.
            assert!(name.len() > disposition::MAX_NAME);
            continue;
        }
        let rest = rest.strip_prefix("; filename=\"").unwrap();
        let (fallback, encoded) = rest.split_once("\"; filename*=UTF-8''").unwrap();
        assert!(!fallback.contains(['"', '\\', '%', '/']), "{fallback:?}");
        assert!(
            !encoded.contains(['"', '\'', ';', ' ', ',', '(', '*']),
            "{encoded:?}"
        );
        let decoded = String::from_utf8(reference::decode(encoded.as_bytes()).unwrap()).unwrap();
        let lossy = String::from_utf8_lossy(name);
        if name.len() <= disposition::MAX_NAME {
            assert_eq!(decoded, lossy);
        }
        assert!(decoded.len() <= 3 * disposition::MAX_NAME);
        assert_eq!(fallback.chars().count(), decoded.chars().count());
    }
}

fn mime_type(bytes: &[u8]) {
    if mime::is_valid(bytes) {
        let text = std::str::from_utf8(bytes).expect("ASCII");
        assert!(
            text.len() <= mime::MAX_TYPE && !text.contains(|c: char| c.is_control() && c != '\t')
        );
        assert!(mime::same_type(Some(text), Some(bytes)));
        let essence = mime::essence(text);
        assert!(mime::is_valid(&essence) && mime::essence(&essence) == essence);
        let scripts = [
            "text/html",
            "image/svg+xml",
            "application/xhtml+xml",
            "text/xml",
        ];
        if scripts.contains(&&*essence) {
            assert!(!mime::Patterns::default_safe().show_inline(text), "{text}");
        }
    }
    assert!(mime::is_valid(mime::by_extension(bytes)));
    let _ = mime::same_type(None, Some(bytes));
}

/// A query that is encoded and parsed again is unchanged.
fn queries(bytes: &[u8]) {
    if let Ok(query) = Query::parse(bytes) {
        let first = bytes.split(|b| *b == b'&').find(|part| !part.is_empty());
        if let Some(name) = first.and_then(|part| part.split(|b| *b == b'=').next()) {
            let name = String::from_utf8_lossy(name);
            if !name.contains(['%', '+']) {
                assert!(query.get(&name).is_some());
            }
        }
    }
    let text = String::from_utf8_lossy(bytes);
    let mut encoded = String::from("a=b&");
    let mut parts = text.splitn(2, '\n');
    let (key, value) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    encode_query_value(key.as_bytes(), &mut encoded);
    encoded.push('=');
    encode_query_value(value.as_bytes(), &mut encoded);
    let query = Query::parse(encoded.as_bytes()).expect("a well-formed query");
    assert_eq!(query.get(key), Some(value));
}
