//! A reference implementation of upslot's parsers: short, slow, and written from the specifications alone. It may
//! reject valid input; input that both accept must have the same meaning.

use upslot::http::head::Framing;
use upslot::layout::StorePath;

/// A request head (RFC 9112 §2 to §6).
#[derive(Debug)]
pub struct Head {
    pub method: String,
    pub target: Vec<u8>,
    pub is_1_1: bool,
    pub fields: Vec<(String, Vec<u8>)>,
    pub framing: Framing,
    /// Bytes of the head, including the empty lines before it and the one that ends it.
    pub length: usize,
}

pub fn is_token(text: &[u8]) -> bool {
    let is_valid = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !text.is_empty() && text.iter().all(is_valid)
}

pub fn trim(text: &[u8]) -> &[u8] {
    let is_blank = |b: &u8| *b == b' ' || *b == b'\t';
    let start = text.iter().position(|b| !is_blank(b)).unwrap_or(text.len());
    let end = text
        .iter()
        .rposition(|b| !is_blank(b))
        .map_or(start, |at| at + 1);
    &text[start..end]
}

pub fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// The head at the start of a stream; `None` if there is no valid one.
pub fn head(stream: &[u8]) -> Option<Head> {
    let mut skipped = 0;
    while stream[skipped..].starts_with(b"\r\n") {
        skipped += 2;
    }
    let end = find(&stream[skipped..], b"\r\n\r\n")?;
    let mut lines = Vec::new();
    let mut rest = &stream[skipped..skipped + end + 2];
    while let Some(at) = find(rest, b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    let is_control = |b: &u8| (*b < 32 && *b != b'\t') || *b == 127;
    if lines.iter().any(|line| line.iter().any(is_control)) {
        return None;
    }
    let words: Vec<&[u8]> = lines[0].split(|b| *b == b' ').collect();
    let [method, target, version] = words[..] else {
        return None;
    };
    let is_1_1 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return None,
    };
    let mut fields = Vec::new();
    for line in &lines[1..] {
        let colon = line.iter().position(|b| *b == b':')?;
        let name = is_token(&line[..colon]).then(|| &line[..colon])?;
        fields.push((
            String::from_utf8_lossy(name).to_ascii_lowercase(),
            trim(&line[colon + 1..]).to_vec(),
        ));
    }
    let framing = framing(&fields, is_1_1)?;
    Some(Head {
        method: String::from_utf8(method.to_vec()).ok()?,
        target: target.to_vec(),
        is_1_1,
        framing,
        length: skipped + end + 4,
        fields,
    })
}

/// The framing that the fields announce; also checks that `Host` is there once.
fn framing(fields: &[(String, Vec<u8>)], is_1_1: bool) -> Option<Framing> {
    let values = |name: &str| -> Vec<&[u8]> {
        let same = fields.iter().filter(|(n, _)| n == name);
        same.map(|(_, value)| value.as_slice()).collect()
    };
    if values("host").len() > 1 || (is_1_1 && values("host").is_empty()) {
        return None;
    }
    match (
        &values("content-length")[..],
        &values("transfer-encoding")[..],
    ) {
        ([], []) => Some(Framing::None),
        ([length], []) if length.iter().all(u8::is_ascii_digit) => std::str::from_utf8(length)
            .ok()?
            .parse()
            .ok()
            .map(Framing::Length),
        ([], [coding]) if is_1_1 && coding.eq_ignore_ascii_case(b"chunked") => {
            Some(Framing::Chunked)
        }
        _ => None,
    }
}

/// The chunked body at the start of a stream: its data, and its length including the framing (RFC 9112 §7.1).
pub fn chunked(stream: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut data = Vec::new();
    let mut at = 0;
    loop {
        let line = &stream[at..at + find(&stream[at..], b"\r\n")?];
        at += line.len() + 2;
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let size = u64::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()?;
        let extension = trim(&line[digits..]);
        if !extension.is_empty() && extension[0] != b';' {
            return None;
        }
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).ok()?;
        data.extend_from_slice(stream.get(at..at.checked_add(size)?)?);
        at += size;
        at += stream[at..].starts_with(b"\r\n").then_some(2)?;
    }
    loop {
        let line = &stream[at..at + find(&stream[at..], b"\r\n")?];
        at += line.len() + 2;
        if line.is_empty() {
            return Some((data, at));
        }
        let colon = line.iter().position(|b| *b == b':')?;
        is_token(&line[..colon]).then_some(())?;
    }
}

/// The body that a head announces: its data, and its length including the framing.
pub fn body(framing: Framing, stream: &[u8]) -> Option<(Vec<u8>, usize)> {
    match framing {
        Framing::None => Some((Vec::new(), 0)),
        Framing::Length(length) => {
            let length = usize::try_from(length).ok()?;
            Some((stream.get(..length)?.to_vec(), length))
        }
        Framing::Chunked => chunked(stream),
    }
}

/// Decodes percent-encoding once; `None` if a `%` is not followed by two hex digits.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let mut rest = text;
    loop {
        rest = match rest {
            [] => return Some(decoded),
            [b'%', high, low, after @ ..] => {
                let digit = |b: &u8| (*b as char).to_digit(16);
                decoded.push((digit(high)? * 16 + digit(low)?) as u8);
                after
            }
            [b'%', ..] => return None,
            [byte, after @ ..] => {
                decoded.push(*byte);
                after
            }
        };
    }
}

/// Decodes percent-encoding once; a `%` that is not followed by two hex digits is kept.
pub fn decode_what_can_be(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let escape = rest
            .get(..3)
            .and_then(decode)
            .filter(|found| found.len() == 1);
        rest = if escape.is_some() { &rest[3..] } else { after };
        decoded.push(escape.map_or(*first, |found| found[0]));
    }
    decoded
}

/// The path is safe to open below the storage folder.
#[track_caller]
pub fn assert_inside(path: &StorePath) {
    let bytes = path.as_bytes();
    let segments: Vec<&[u8]> = bytes.split(|b| *b == b'/').collect();
    assert!((2..=8).contains(&segments.len()), "{path:?}");
    for segment in segments {
        assert!(!segment.is_empty() && segment.len() <= 255, "{path:?}");
        assert!(
            segment[0] != b'.',
            "a hidden file or a parent folder: {path:?}"
        );
        assert!(!segment.contains(&0), "{path:?}");
    }
}

/// A response as a client reads it.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut same = self.fields.iter().filter(|(n, _)| n == name);
        let value = same.next().map(|(_, value)| value.as_str());
        assert!(same.next().is_none(), "{name} twice: {:?}", self.fields);
        value
    }
}

/// Parses one response strictly: `None` if it is incomplete; a malformed one fails the test.
pub fn answer(output: &[u8], to_head: bool) -> Option<(Answer, usize)> {
    let end = find(output, b"\r\n\r\n")?;
    let text = std::str::from_utf8(&output[..end]).expect("an ASCII head");
    let mut lines = text.split("\r\n");
    let status = lines.next().unwrap();
    let number: u16 = status
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .unwrap_or_else(|| panic!("no status line: {status:?}"));
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?}"));
        assert!(is_token(name.as_bytes()), "{line:?}");
        assert!(value.bytes().all(|b| matches!(b, b' '..=b'~')), "{line:?}");
        fields.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let mut answer = Answer {
        status: number,
        fields,
        body: Vec::new(),
    };
    let at = end + 4;
    let bodiless = to_head || number < 200 || number == 204 || number == 304;
    let length = match answer.field("content-length") {
        Some(length) if !bodiless => length.parse().unwrap(),
        None if !bodiless => panic!("a response without a length: {text:?}"),
        _ => 0,
    };
    answer.body = output.get(at..at + length)?.to_vec();
    Some((answer, at + length))
}
