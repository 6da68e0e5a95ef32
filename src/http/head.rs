//! The head of an HTTP/1 request: where it ends, what it says, and every way in which it can be wrong.
//!
//! [`Scan`] finds the end of the head in a buffer that grows, [`RequestHead::parse`] judges it once.
//! httparse splits the fields; what it lets through is judged again here, because two parsers that
//! disagree about one head are how requests are smuggled. Where the specification leaves a choice the
//! stricter reading is taken. Nothing here knows what a path or a field is good for, beyond what
//! decides about the connection: framing, `Expect`, `Connection`, `Host`.
//!
//! Sources: RFC 9112 §2 to §7 and §9.3, RFC 9110 §5 to §10.

use std::fmt;
use std::net::Ipv6Addr;
use std::str;

/// Longest head in bytes, with its blank line.
pub const MAX_HEAD: usize = 32 * 1024;
/// Most fields in a head.
pub const MAX_FIELDS: usize = 100;
/// Longest request target in bytes.
pub const MAX_TARGET: usize = 8 * 1024;

/// Fields of most heads.
const FEW_FIELDS: usize = 16;
/// Longest method in bytes; the longest registered one has 17.
const MAX_METHOD: usize = 64;
/// Empty lines that are skipped before a request line (RFC 9112 §2.2 asks for "at least one").
const MAX_EMPTY_LINES: u8 = 4;
/// The first byte of a TLS connection: a record with a handshake (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// The empty lines with which the binary form of HAProxy's PROXY protocol begins, before a NUL; and the beginning of its
/// line of text.
const EMPTY_LINES_OF_PROXY: u8 = 2;
const PROXY_LINE: &[u8] = b"PROXY ";
/// What follows the longest target in its line: a blank and the version.
const AFTER_TARGET: usize = " HTTP/1.1".len();

const _: () = assert!(
    MAX_HEAD <= u16::MAX as usize,
    "a Span holds offsets of 16 bits"
);

/// Why a head cannot be served. Its `Display` is one sentence. After any of them the connection ends:
/// nobody can say where the next request begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadFault {
    /// Not HTTP, or ambiguous; says how.
    Malformed(&'static str),
    /// Well-formed, but neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// A method longer than any that exists.
    MethodTooLong,
    /// A transfer coding other than `chunked`.
    TransferCoding,
    /// The target has more than [`MAX_TARGET`] bytes.
    TargetTooLong,
    /// The head has more than [`MAX_HEAD`] bytes.
    TooLarge,
    /// The head has more than [`MAX_FIELDS`] fields.
    TooManyFields,
}

impl HeadFault {
    /// The HTTP status that answers it.
    pub fn status(&self) -> u16 {
        match self {
            HeadFault::Malformed(_) => 400,
            HeadFault::TargetTooLong => 414,
            HeadFault::TooLarge | HeadFault::TooManyFields => 431,
            HeadFault::MethodTooLong | HeadFault::TransferCoding => 501,
            HeadFault::Version => 505,
        }
    }
}

impl fmt::Display for HeadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeadFault::Malformed(how) => f.write_str(how),
            HeadFault::Version => f.write_str("This service speaks HTTP/1.1 and HTTP/1.0 only."),
            HeadFault::MethodTooLong => {
                f.write_str("The method is longer than any method of HTTP.")
            }
            HeadFault::TransferCoding => {
                f.write_str("The only transfer coding that this service knows is chunked.")
            }
            HeadFault::TargetTooLong => {
                write!(f, "The request target is longer than {MAX_TARGET} bytes.")
            }
            HeadFault::TooLarge => write!(f, "The request head is larger than {MAX_HEAD} bytes."),
            HeadFault::TooManyFields => {
                write!(f, "The request head has more than {MAX_FIELDS} fields.")
            }
        }
    }
}

impl std::error::Error for HeadFault {}

/// The search for the end of a head. It remembers where it stopped, so that the work is linear however
/// the bytes arrive, and answers the same however they were split.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Bytes before this one were judged.
    at: usize,
    /// Where the current line begins.
    line: usize,
    /// Where the target begins, once the method has ended.
    target: Option<usize>,
    /// The request line, once it has ended.
    request: Option<RequestLine>,
    /// Field lines that have ended.
    fields: usize,
    /// Empty lines before the request line.
    empty: u8,
}

impl Scan {
    /// Looks on in `buffer`, which holds all bytes since the last head (or its body) ended: what was
    /// there at the last call, and what came since. `Some(n)`: the head is the first n bytes. `None`:
    /// more bytes are needed. A fault is told as soon as no further byte could mend it. After `Some`
    /// or a fault the scan has served; the next head takes a new one.
    pub fn scan(&mut self, buffer: &[u8]) -> Result<Option<usize>, HeadFault> {
        let seen = &buffer[..buffer.len().min(MAX_HEAD)];
        while self.target.is_some() || self.scan_method(seen)? {
            let rest = seen.get(self.at..).unwrap_or_default();
            let found = find_control(rest);
            let stop = self.at + found.unwrap_or(rest.len());
            if self.request.is_none()
                && stop - self.target.unwrap_or(stop) > MAX_TARGET + AFTER_TARGET
            {
                return Err(HeadFault::TargetTooLong);
            }
            self.at = stop;
            match (seen.get(stop), seen.get(stop + 1)) {
                (None, _) | (Some(b'\r'), None) => break,
                (Some(b'\r'), Some(b'\n')) => {}
                (Some(b'\r'), Some(_)) => return Err(malformed::BARE_CR),
                (Some(b'\n'), _) => return Err(malformed::BARE_LF),
                (Some(_), _) => return Err(malformed::CONTROL),
            }
            let line = seen.get(self.line..stop).unwrap_or_default();
            self.at = stop + 2;
            self.line = self.at;
            if self.request.is_none() {
                self.request = Some(RequestLine::parse(line)?);
            } else if line.is_empty() {
                return Ok(Some(self.at));
            } else if self.fields == MAX_FIELDS {
                return Err(HeadFault::TooManyFields);
            } else {
                self.fields += 1;
            }
        }
        if buffer.len() >= MAX_HEAD {
            return Err(HeadFault::TooLarge);
        }
        Ok(None)
    }

    /// Bytes of empty lines before the request line. They belong to the head that `scan` measures, but
    /// a connection that sent nothing else is still idle.
    pub fn skipped(&self) -> usize {
        usize::from(self.empty) * 2
    }

    /// Whether a byte of a request line was seen.
    pub fn started(&self) -> bool {
        self.at > self.skipped()
    }

    /// Skips empty lines and goes through the method; true once a blank ended it.
    fn scan_method(&mut self, seen: &[u8]) -> Result<bool, HeadFault> {
        while let Some(&byte) = seen.get(self.at) {
            let first = self.at == self.line;
            match byte {
                b'\r' if first => match seen.get(self.at + 1) {
                    None => return Ok(false),
                    Some(b'\n') if self.empty < MAX_EMPTY_LINES => {
                        self.empty += 1;
                        self.at += 2;
                        self.line = self.at;
                    }
                    Some(_) => return Err(malformed::NO_METHOD),
                },
                b' ' if !first => {
                    self.at += 1;
                    self.target = Some(self.at);
                    return Ok(true);
                }
                byte if is_token_byte(byte) => {
                    self.at += 1;
                    if self.at - self.line > MAX_METHOD {
                        return Err(HeadFault::MethodTooLong);
                    }
                }
                // No method of HTTP begins so, and clients of these protocols cannot read our answer: the log will tell.
                TLS_HANDSHAKE if first => return Err(malformed::TLS),
                b'<' if first => return Err(malformed::XMPP),
                b'\0' if first && self.empty == EMPTY_LINES_OF_PROXY => {
                    return Err(malformed::PROXY);
                }
                _ => return Err(malformed::NO_METHOD),
            }
        }
        Ok(false)
    }
}

/// The request's method. Methods are case-sensitive (RFC 9110 §9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    Get,
    Head,
    Put,
    Options,
    /// Registered with IANA, but nothing for this service: 405.
    Known,
    /// No method of HTTP: 501.
    Unknown,
}

/// The rest of IANA's method registry, sorted.
#[rustfmt::skip]
const REGISTERED: [&str; 36] = [
    "ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "CONNECT", "COPY", "DELETE", "LABEL",
    "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE",
    "MOVE", "ORDERPATCH", "PATCH", "POST", "PRI", "PROPFIND", "PROPPATCH", "QUERY", "REBIND",
    "REPORT", "SEARCH", "TRACE", "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE",
    "UPDATEREDIRECTREF", "VERSION-CONTROL",
];

impl Method {
    fn of(name: &[u8]) -> Method {
        match name {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"PUT" => Method::Put,
            b"OPTIONS" => Method::Options,
            _ if REGISTERED.iter().any(|known| known.as_bytes() == name) => Method::Known,
            _ => Method::Unknown,
        }
    }
}

/// The request's version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V10,
    V11,
}

/// How the end of the request's body is known (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body, and no length was given.
    None,
    /// `Content-Length`, bytes; possibly 0.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// What the client expects before it sends its body (RFC 9110 §10.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    None,
    /// `100-continue`, in HTTP/1.1 only: HTTP/1.0 has no interim responses.
    Continue,
    /// An expectation that nobody can meet: 417.
    Other,
}

/// A request's head, checked, with its own copy of the bytes.
#[derive(Clone)]
pub struct RequestHead {
    /// From the first byte of the method to the blank line.
    bytes: Box<[u8]>,
    line: RequestLine,
    method: Method,
    fields: Vec<Field>,
    framing: Framing,
    expect: Expect,
    keep_alive: bool,
}

impl RequestHead {
    /// Judges a whole head, as measured by [`Scan::scan`]; leading empty lines may be there or not.
    pub fn parse(head: &[u8]) -> Result<RequestHead, HeadFault> {
        let mut scan = Scan::default();
        match scan.scan(head)? {
            Some(end) if end == head.len() => RequestHead::scanned(&scan, head),
            _ => Err(malformed::NO_END),
        }
    }

    /// Judges a whole head whose end `scan` has just found.
    pub fn scanned(scan: &Scan, head: &[u8]) -> Result<RequestHead, HeadFault> {
        let Some(line) = scan.request else {
            return Err(malformed::NO_END);
        };
        let bytes = head.get(scan.skipped()..).unwrap_or_default();
        let section = bytes.get(line.len()..).unwrap_or_default();

        // Few heads have many fields, and room costs time.
        let (mut some, mut most);
        let room: &mut [httparse::Header<'_>] = if scan.fields <= FEW_FIELDS {
            some = [httparse::EMPTY_HEADER; FEW_FIELDS];
            &mut some
        } else {
            most = [httparse::EMPTY_HEADER; MAX_FIELDS];
            &mut most
        };
        let split = match httparse::parse_headers(section, room) {
            Ok(httparse::Status::Complete((n, split))) if n == section.len() => split,
            Ok(_) => return Err(malformed::NO_END),
            Err(httparse::Error::TooManyHeaders) => return Err(HeadFault::TooManyFields),
            Err(httparse::Error::HeaderName) if has_fold(section) => return Err(malformed::FOLD),
            Err(httparse::Error::HeaderValue) => return Err(malformed::CONTROL),
            Err(_) => return Err(malformed::FIELD_NAME),
        };
        let mut fields = Vec::with_capacity(split.len());
        for field in split {
            if !is_token(field.name.as_bytes()) {
                return Err(malformed::FIELD_NAME);
            }
            // The scan has seen to it that no value holds a control character.
            fields.push(Field {
                name: Span::within(bytes, field.name.as_bytes()),
                value: Span::within(bytes, trim(field.value)),
            });
        }

        let mut head = RequestHead {
            bytes: bytes.into(),
            line,
            method: Method::of(line.method.of(bytes)),
            fields,
            framing: Framing::None,
            expect: Expect::None,
            keep_alive: false,
        };
        head.check_host()?;
        head.framing = head.find_framing()?;
        head.expect = head.find_expect();
        head.keep_alive = head.find_keep_alive();
        Ok(head)
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The method as it was sent; ASCII.
    pub fn method_str(&self) -> &str {
        str::from_utf8(self.line.method.of(&self.bytes)).unwrap_or_default()
    }

    /// The version of HTTP.
    pub fn version(&self) -> Version {
        self.line.version
    }

    /// The target's path as it was sent: not decoded, in UTF-8, beginning with `/`. An absolute target
    /// is reduced to its path. `*` with OPTIONS only; empty with CONNECT, whose target has no path.
    pub fn path(&self) -> &[u8] {
        match self.line.target {
            Target::Path { path, .. } if path.is_empty() => b"/",
            Target::Path { path, .. } => path.of(&self.bytes),
            Target::Asterisk => b"*",
            Target::Authority(_) => b"",
        }
    }

    /// What follows the first `?` of the target, as it was sent.
    pub fn query(&self) -> Option<&[u8]> {
        match self.line.target {
            Target::Path { query, .. } => query.map(|query| query.of(&self.bytes)),
            Target::Asterisk | Target::Authority(_) => None,
        }
    }

    /// The host and port that the request is for: an absolute target's, else the field `Host`
    /// (RFC 9112 §3.2.2).
    pub fn authority(&self) -> Option<&[u8]> {
        match self.line.target {
            Target::Authority(authority)
            | Target::Path {
                authority: Some(authority),
                ..
            } => Some(authority.of(&self.bytes)),
            Target::Path { .. } | Target::Asterisk => self.field("host"),
        }
    }

    /// How the end of the body is known.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// What the client expects.
    pub fn expect(&self) -> Expect {
        self.expect
    }

    /// Whether the client lets the connection live on (RFC 9112 §9.3).
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// The value of the first field of this name, in any case, without the blanks around it.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields(name).next()
    }

    /// Whether this is a GET without a query, conditions or ranges, so that whoever asks the same is told the same.
    pub fn is_plain_get(&self) -> bool {
        let counts = |field: &Field| {
            let name = field.name.of(&self.bytes);
            let begins = |word: &[u8]| {
                name.len() >= word.len() && name[..word.len()].eq_ignore_ascii_case(word)
            };
            begins(b"if-") || begins(b"range")
        };
        self.method() == Method::Get
            && self.query().is_none()
            && self.expect == Expect::None
            && self.framing != Framing::Chunked
            && !self.fields.iter().any(counts)
    }

    /// The values of all fields of this name, in any case, in order, without the blanks around them.
    pub fn fields<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a [u8]> {
        let matching = move |field: &&Field| {
            let found = field.name.of(&self.bytes);
            found.eq_ignore_ascii_case(name.as_bytes())
        };
        let value = |field: &'a Field| field.value.of(&self.bytes);
        self.fields.iter().filter(matching).map(value)
    }

    /// RFC 9112 §3.2: one in HTTP/1.1, at most one in HTTP/1.0, and never an impossible one.
    fn check_host(&self) -> Result<(), HeadFault> {
        let mut hosts = self.fields("host");
        match (hosts.next(), hosts.next()) {
            (Some(_), Some(_)) => Err(malformed::HOSTS),
            (Some(host), None) if !is_authority(host) => Err(malformed::HOST),
            (None, _) if self.version() == Version::V11 => Err(malformed::NO_HOST),
            _ => Ok(()),
        }
    }

    /// RFC 9112 §6.1 to §6.3.
    fn find_framing(&self) -> Result<Framing, HeadFault> {
        let mut lengths = self.fields("content-length");
        let (length, second) = (lengths.next(), lengths.next());
        let coded = self.field("transfer-encoding").is_some();
        if coded && length.is_some() {
            return Err(malformed::TWO_FRAMINGS);
        }
        if coded {
            if self.version() == Version::V10 {
                return Err(malformed::CODING_IN_1_0);
            }
            return self.check_codings().map(|()| Framing::Chunked);
        }
        match (length, second) {
            (None, _) => Ok(Framing::None),
            (Some(_), Some(_)) => Err(malformed::LENGTHS),
            (Some(length), None) => decimal(length)
                .map(Framing::Length)
                .ok_or(malformed::LENGTH),
        }
    }

    /// `chunked` must be there once and alone. A list that nobody can read, and one in which `chunked`
    /// comes twice, with parameters, or before another coding, is malformed.
    fn check_codings(&self) -> Result<(), HeadFault> {
        let mut chunked = false;
        let mut other = false;
        for line in self.fields("transfer-encoding") {
            for coding in line.split(|&byte| byte == b',').map(trim) {
                let mut parts = coding.splitn(2, |&byte| byte == b';');
                let name = parts.next().map(trim).unwrap_or_default();
                let is_chunked = name.eq_ignore_ascii_case(b"chunked");
                if !is_token(name) || chunked || (is_chunked && parts.next().is_some()) {
                    return Err(malformed::CODINGS);
                }
                chunked |= is_chunked;
                other |= !is_chunked;
            }
        }
        if other {
            return Err(HeadFault::TransferCoding);
        }
        Ok(())
    }

    fn find_expect(&self) -> Expect {
        let mut expect = Expect::None;
        for line in self.fields("expect") {
            for expectation in line.split(|&byte| byte == b',').map(trim) {
                if expectation.eq_ignore_ascii_case(b"100-continue") {
                    expect = Expect::Continue;
                } else if !expectation.is_empty() {
                    return Expect::Other;
                }
            }
        }
        if self.version() == Version::V10 {
            return Expect::None;
        }
        expect
    }

    fn find_keep_alive(&self) -> bool {
        let mut keep = self.version() == Version::V11;
        for line in self.fields("connection") {
            for option in line.split(|&byte| byte == b',').map(trim) {
                if option.eq_ignore_ascii_case(b"close") {
                    return false;
                }
                keep |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        keep
    }
}

/// Without path, query and values: they may hold what no log may show.
impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method_str())
            .field("version", &self.version())
            .field("fields", &self.fields.len())
            .field("framing", &self.framing)
            .field("expect", &self.expect)
            .field("keep_alive", &self.keep_alive)
            .finish()
    }
}

/// A part of the head, as offsets. An empty one may stand anywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    start: u16,
    end: u16,
}

impl Span {
    /// Offsets of a head fit, because [`MAX_HEAD`] does.
    fn new(start: usize, end: usize) -> Span {
        Span {
            start: start as u16,
            end: end as u16,
        }
    }

    /// Where `part` lies in `whole`, which it was sliced from.
    fn within(whole: &[u8], part: &[u8]) -> Span {
        if part.is_empty() {
            return Span::default();
        }
        let start = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
        Span::new(start, start + part.len())
    }

    fn of(self, bytes: &[u8]) -> &[u8] {
        let range = usize::from(self.start)..usize::from(self.end);
        bytes.get(range).unwrap_or_default()
    }

    fn is_empty(self) -> bool {
        self.start == self.end
    }
}

#[derive(Clone, Copy, Debug)]
struct Field {
    name: Span,
    /// Without the blanks around it.
    value: Span,
}

/// The parts of a request line, as offsets from its first byte.
#[derive(Clone, Copy, Debug)]
struct RequestLine {
    method: Span,
    target: Target,
    version: Version,
    /// Where the line ends, without its line end.
    end: u16,
}

/// The four forms of a target (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug)]
enum Target {
    /// origin-form; absolute-form if it has an authority. An empty path stands for `/`.
    Path {
        authority: Option<Span>,
        path: Span,
        query: Option<Span>,
    },
    /// authority-form, for CONNECT alone.
    Authority(Span),
    /// asterisk-form, for OPTIONS alone.
    Asterisk,
}

impl RequestLine {
    /// Takes the line without its line end.
    fn parse(line: &[u8]) -> Result<RequestLine, HeadFault> {
        if line.starts_with(PROXY_LINE) {
            return Err(malformed::PROXY);
        }
        let mut parts = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed::REQUEST_LINE);
        };
        if !is_token(method) {
            return Err(malformed::NO_METHOD);
        }
        if target.len() > MAX_TARGET {
            return Err(HeadFault::TargetTooLong);
        }
        let version = match version {
            b"HTTP/1.1" => Version::V11,
            b"HTTP/1.0" => Version::V10,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                return Err(HeadFault::Version);
            }
            _ => return Err(malformed::VERSION),
        };
        Ok(RequestLine {
            method: Span::new(0, method.len()),
            target: Target::parse(method, target)?,
            version,
            end: line.len() as u16,
        })
    }

    /// Bytes of the line with its line end.
    fn len(&self) -> usize {
        usize::from(self.end) + 2
    }
}

impl Target {
    fn parse(method: &[u8], target: &[u8]) -> Result<Target, HeadFault> {
        // Only what would be ambiguous is refused; predecessors put `[`, `\` and `^` into their URLs.
        if target
            .iter()
            .any(|&byte| byte <= b' ' || byte == 0x7f || byte == b'#')
        {
            return Err(malformed::TARGET);
        }
        if str::from_utf8(target).is_err() {
            return Err(malformed::TARGET_TEXT);
        }
        let start = method.len() + 1;
        let end = start + target.len();
        if method == b"CONNECT" {
            let port = target.iter().rposition(|&byte| byte == b':');
            let has_port =
                port.is_some_and(|at| at + 1 < target.len() && target.last() != Some(&b']'));
            if !has_port || !is_authority(target) {
                return Err(malformed::TARGET);
            }
            return Ok(Target::Authority(Span::new(start, end)));
        }
        if target == b"*" {
            return if method == b"OPTIONS" {
                Ok(Target::Asterisk)
            } else {
                Err(malformed::TARGET)
            };
        }
        let mut path_at = 0;
        let mut authority = None;
        if target.first() != Some(&b'/') {
            let host_at = scheme(target).ok_or(malformed::TARGET)?;
            let rest = &target[host_at..];
            let host = rest.iter().position(|&byte| byte == b'/' || byte == b'?');
            path_at = host_at + host.unwrap_or(rest.len());
            if !is_authority(&target[host_at..path_at]) {
                return Err(malformed::TARGET);
            }
            authority = Some(Span::new(start + host_at, start + path_at));
        }
        let question = target[path_at..].iter().position(|&byte| byte == b'?');
        let path_end = question.map_or(target.len(), |at| path_at + at);
        Ok(Target::Path {
            authority,
            path: Span::new(start + path_at, start + path_end),
            query: question.map(|_| Span::new(start + path_end + 1, end)),
        })
    }
}

/// How far `http://` or `https://` goes, if the target begins with it.
fn scheme(target: &[u8]) -> Option<usize> {
    let begins = |scheme: &&str| {
        let prefix = target.get(..scheme.len()).unwrap_or_default();
        prefix.eq_ignore_ascii_case(scheme.as_bytes())
    };
    ["http://", "https://"]
        .into_iter()
        .find(begins)
        .map(str::len)
}

/// Whether this is a host with an optional port (RFC 9110 §7.2, RFC 3986 §3.2): a name, an IPv4
/// address, or an IPv6 address in brackets. An empty host is none: the http schemes forbid it
/// (RFC 9110 §4.2.1). Neither is one with a comma, which is what a proxy makes of two fields.
fn is_authority(text: &[u8]) -> bool {
    let (host, port) = match text {
        [b'[', rest @ ..] => {
            let Some(close) = rest.iter().position(|&byte| byte == b']') else {
                return false;
            };
            let address = str::from_utf8(&rest[..close]).unwrap_or_default();
            if address.parse::<Ipv6Addr>().is_err() {
                return false;
            }
            (&rest[..close], &rest[close + 1..])
        }
        _ => {
            let colon = text.iter().position(|&byte| byte == b':');
            let (host, port) = text.split_at(colon.unwrap_or(text.len()));
            if !is_registered_name(host) {
                return false;
            }
            (host, port)
        }
    };
    let port_is_sound = match port {
        [] | [b':'] => true,
        [b':', digits @ ..] => digits.len() <= 5 && decimal(digits).is_some_and(|n| n <= 65535),
        _ => false,
    };
    !host.is_empty() && port_is_sound
}

/// RFC 3986 §3.2.2, reg-name without the comma; covers IPv4 addresses.
fn is_registered_name(mut host: &[u8]) -> bool {
    loop {
        host = match host {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest
            }
            [byte, rest @ ..]
                if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(byte) =>
            {
                rest
            }
            _ => return false,
        };
    }
}

/// Whether a line of the field section begins with a blank: an obsolete line folding
/// (RFC 9112 §5.2), or junk before the first field.
fn has_fold(section: &[u8]) -> bool {
    matches!(section.first(), Some(b' ' | b'\t'))
        || section
            .windows(2)
            .any(|pair| matches!(pair, [b'\n', b' ' | b'\t']))
}

/// Digits only (RFC 9110 §8.6), within 64 bits.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// A byte that may stand in a token (RFC 9110 §5.6.2).
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether this is a token (RFC 9110 §5.6.2).
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_token_byte(byte))
}

/// A control character, other than the tab that field values may hold (RFC 9110 §5.5).
pub fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

/// Where the first control character is. Sixteen bytes at a time, without a branch for each, because
/// every byte of every head goes through here.
fn find_control(bytes: &[u8]) -> Option<usize> {
    let clean = |block: &&[u8]| {
        !block
            .iter()
            .fold(false, |any, &byte| any | is_control(byte))
    };
    let at = 16 * bytes.chunks_exact(16).take_while(clean).count();
    let found = bytes[at..].iter().position(|&byte| is_control(byte))?;
    Some(at + found)
}

/// Without the blanks and tabs around it (OWS, RFC 9110 §5.6.3).
pub fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The ways in which a head is malformed.
mod malformed {
    use super::HeadFault;
    use super::HeadFault::Malformed;

    pub(super) const BARE_CR: HeadFault =
        Malformed("A CR in the request's head is not followed by LF.");
    pub(super) const BARE_LF: HeadFault =
        Malformed("A line of the request's head ends without CR.");
    pub(super) const CONTROL: HeadFault =
        Malformed("There is a control character in the request's head.");
    pub(super) const NO_METHOD: HeadFault =
        Malformed("This is no HTTP request: it begins with no method.");
    pub(super) const TLS: HeadFault = Malformed(
        "This port speaks plain HTTP, but the client speaks TLS: set http_certfile and http_keyfile, or let the proxy \
         connect with http://.",
    );
    pub(super) const XMPP: HeadFault =
        Malformed("This port speaks HTTP, but the client speaks XMPP.");
    pub(super) const PROXY: HeadFault = Malformed(
        "The PROXY protocol is not spoken here: let the proxy send X-Forwarded-For instead.",
    );
    pub(super) const NO_END: HeadFault =
        Malformed("The request's head does not end with its blank line.");
    pub(super) const REQUEST_LINE: HeadFault = Malformed(
        "The request line is not a method, a target and a version with one blank between them.",
    );
    pub(super) const VERSION: HeadFault =
        Malformed("The request line does not end with a version of HTTP.");
    pub(super) const TARGET: HeadFault = Malformed("The request target is malformed.");
    pub(super) const TARGET_TEXT: HeadFault = Malformed("The request target is not in UTF-8.");
    pub(super) const FOLD: HeadFault = Malformed("A field is folded over several lines.");
    pub(super) const FIELD_NAME: HeadFault = Malformed(
        "A field's name is missing, or has a blank or another character that names do not have.",
    );
    pub(super) const NO_HOST: HeadFault = Malformed("The field Host is missing.");
    pub(super) const HOSTS: HeadFault = Malformed("There is more than one field Host.");
    pub(super) const HOST: HeadFault = Malformed("The field Host names no host.");
    pub(super) const LENGTH: HeadFault = Malformed("Content-Length is not a number of bytes.");
    pub(super) const LENGTHS: HeadFault = Malformed("There is more than one field Content-Length.");
    pub(super) const TWO_FRAMINGS: HeadFault =
        Malformed("There is a Content-Length beside a Transfer-Encoding.");
    pub(super) const CODING_IN_1_0: HeadFault = Malformed("HTTP/1.0 has no Transfer-Encoding.");
    pub(super) const CODINGS: HeadFault =
        Malformed("Transfer-Encoding does not end with one plain chunked.");
}

#[cfg(test)]
mod tests;
