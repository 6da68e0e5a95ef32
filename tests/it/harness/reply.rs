//! A strict parser of responses.
//!
//! It checks what RFC 9110 and 9112, and upslot itself, promise of every response: a date, a length, ASCII in all
//! fields, a type for a body, no coding of any kind, and one readable line in every error.

/// A response.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Bytes of body that follow the head on the wire.
    pub body_length: usize,
}

impl Reply {
    /// Parses a head; `method` is that of the request.
    #[track_caller]
    pub fn parse(head: &str, method: &str) -> Reply {
        assert!(head.is_ascii(), "not ASCII: {head:?}");
        let mut lines = head.strip_suffix("\r\n\r\n").unwrap().split("\r\n");
        let line = lines.next().unwrap();
        let rest = line
            .strip_prefix("HTTP/1.1 ")
            .unwrap_or_else(|| panic!("status line {line:?}"));
        let status: u16 = rest[..3].parse().unwrap();
        assert_eq!(rest.as_bytes().get(3), Some(&b' '), "status line {line:?}");
        let mut fields = Vec::new();
        for line in lines {
            assert!(
                !line.chars().any(char::is_control),
                "control character in {line:?}"
            );
            let (name, value) = line
                .split_once(':')
                .unwrap_or_else(|| panic!("field line {line:?}"));
            assert!(
                !name.is_empty() && !name.contains(|c: char| c.is_ascii_whitespace()),
                "field line {line:?}"
            );
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
        let mut reply = Reply {
            status,
            fields,
            body: Vec::new(),
            body_length: 0,
        };
        assert!(
            !reply.has("Transfer-Encoding") && !reply.has("Content-Encoding"),
            "coded: {head}"
        );
        if status >= 200 {
            let length = reply.check_framing(head);
            reply.body_length = if method == "HEAD" { 0 } else { length };
        }
        reply
    }

    /// Checks the fields that every final response has; returns the length of its body.
    #[track_caller]
    fn check_framing(&self, head: &str) -> usize {
        let status = self.status;
        let date = self
            .field("Date")
            .unwrap_or_else(|| panic!("no Date: {head}"));
        assert!(
            httpdate::parse_http_date(date).is_ok() && date.ends_with(" GMT"),
            "Date: {date}"
        );
        let length = self.field("Content-Length").map(|value| {
            assert!(
                value.bytes().all(|byte| byte.is_ascii_digit()),
                "Content-Length: {value}"
            );
            value.parse::<usize>().unwrap()
        });
        if !matches!(status, 204 | 304) {
            assert!(length.is_some(), "no Content-Length: {head}");
            assert!(
                length == Some(0) || self.has("Content-Type"),
                "no Content-Type: {head}"
            );
        }
        if status == 204 {
            assert!(
                length.is_none(),
                "Content-Length in a 204 (RFC 9110 §8.6): {head}"
            );
        }
        length.filter(|_| !matches!(status, 204 | 304)).unwrap_or(0)
    }

    /// An error body is one readable line of plain text.
    #[track_caller]
    pub fn check_body(&self, method: &str) {
        if self.status >= 400 && method != "HEAD" {
            let kind = self.field("Content-Type").unwrap_or_default();
            assert!(kind.starts_with("text/plain"), "an error of type {kind:?}");
            let text = std::str::from_utf8(&self.body).expect("an error in UTF-8");
            let line = text.trim_end_matches('\n');
            assert!(
                !line.is_empty() && !line.chars().any(char::is_control),
                "error body {text:?}"
            );
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.fields
            .iter()
            .any(|(key, _)| key.eq_ignore_ascii_case(name))
    }

    /// The value of a field that occurs at most once.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut found = self
            .fields
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} twice in {:?}", self.fields);
        value
    }

    /// The value of a required field.
    #[track_caller]
    pub fn expect(&self, name: &str) -> &str {
        self.field(name)
            .unwrap_or_else(|| panic!("no {name} in {} {:?}", self.status, self.fields))
    }

    /// The body, which must be UTF-8.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// Asserts the status.
    #[track_caller]
    pub fn is(self, status: u16) -> Reply {
        assert_eq!(
            self.status,
            status,
            "{:?} {}",
            self.fields,
            String::from_utf8_lossy(&self.body[..self.body.len().min(300)])
        );
        self
    }

    /// All fields except `Date`.
    pub fn lasting_fields(&self) -> Vec<(String, String)> {
        self.fields
            .iter()
            .filter(|(name, _)| !name.eq_ignore_ascii_case("date"))
            .cloned()
            .collect()
    }
}
