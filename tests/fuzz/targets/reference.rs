//! A second reading of what upslot reads: short, slow, and written from the specifications without a look at the
//! first. It refuses more than it must; what both accept must mean the same.

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
    /// Bytes of the head, with its blank line and the empty lines before it.
    pub length: usize,
}

pub fn is_token(text: &[u8]) -> bool {
    let sound = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !text.is_empty() && text.iter().all(sound)
}

pub fn trim(text: &[u8]) -> &[u8] {
    let blank = |b: &u8| *b == b' ' || *b == b'\t';
    let start = text.iter().position(|b| !blank(b)).unwrap_or(text.len());
    let end = text
        .iter()
        .rposition(|b| !blank(b))
        .map_or(start, |at| at + 1);
    &text[start..end]
}

pub fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// The head at the beginning of a stream; `None` when there is no sound one.
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
    let control = |b: &u8| (*b < 32 && *b != b'\t') || *b == 127;
    if lines.iter().any(|line| line.iter().any(control)) {
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
    let values = |name: &str| -> Vec<&[u8]> {
        let same = fields.iter().filter(|(n, _)| n == name);
        same.map(|(_, value)| value.as_slice()).collect()
    };
    if values("host").len() > 1 || (is_1_1 && values("host").is_empty()) {
        return None;
    }
    let framing = match (
        &values("content-length")[..],
        &values("transfer-encoding")[..],
    ) {
        ([], []) => Framing::None,
        ([length], []) if length.iter().all(u8::is_ascii_digit) => {
            Framing::Length(std::str::from_utf8(length).ok()?.parse().ok()?)
        }
        ([], [coding]) if is_1_1 && coding.eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
        _ => return None,
    };
    Some(Head {
        method: String::from_utf8(method.to_vec()).ok()?,
        target: target.to_vec(),
        is_1_1,
        framing,
        length: skipped + end + 4,
        fields,
    })
}

/// A chunked body at the beginning of a stream: its data, and how long it is with its framing (RFC 9112 §7.1).
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

/// The body that a head announces, and how long it is with its framing.
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

/// Percent-decoding, once; `None` where two hex digits are missing.
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

/// Percent-decoding, once; a `%` without two hex digits stands for itself.
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

/// Whatever a request named, this may be opened below the storage folder.
#[track_caller]
pub fn assert_inside(path: &StorePath) {
    let bytes = path.as_bytes();
    let segments: Vec<&[u8]> = bytes.split(|b| *b == b'/').collect();
    assert!((2..=8).contains(&segments.len()), "{path:?}");
    for segment in segments {
        assert!(!segment.is_empty() && segment.len() <= 255, "{path:?}");
        assert!(segment[0] != b'.', "hidden, or leads up: {path:?}");
        assert!(!segment.contains(&0), "{path:?}");
    }
}

/// One answer as a client reads it.
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

/// Takes one answer from what a client got, strictly: `None` if it is not whole, and never anything malformed.
pub fn answer(output: &[u8], to_head: bool) -> Option<(Answer, usize)> {
    let end = find(output, b"\r\n\r\n")?;
    let text = std::str::from_utf8(&output[..end]).expect("a head in ASCII");
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
        None if !bodiless => panic!("an answer without a length: {text:?}"),
        _ => 0,
    };
    answer.body = output.get(at..at + length)?.to_vec();
    Some((answer, at + length))
}
