//! Lists that Prosody and Metronome store (`util.datamanager`): one Lua call after the other, `item({ … });`.
//!
//! Only the literals that their serialiser writes are read; nothing is evaluated. A list is read in pieces and one item
//! at a time, so that memory does not grow with it. An item that is cut short, as by a crash, or not of this form is
//! reported, and reading continues at the next line that begins with `item(`. Newer versions pad the list with blank lines and
//! keep its offsets in a second file, which is not needed here.

/// Maximum length of an item in bytes. An item of the file share has less than a kilobyte.
pub const MAX_ITEM: usize = 64 * 1024;

/// Maximum nesting depth of tables.
const MAX_DEPTH: usize = 16;

/// The beginning of an item.
const BEGIN: &[u8] = b"item(";

/// A Lua literal.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(Vec<u8>),
    Number(f64),
    Table(Table),
    /// `nil`, `true` or `false`.
    Other,
}

/// The members of a table that have names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table(Vec<(Vec<u8>, Value)>);

impl Table {
    /// The member of this name; the last one counts, as in Lua.
    fn get(&self, name: &str) -> Option<&Value> {
        let found = self.0.iter().rev().find(|(n, _)| n == name.as_bytes());
        found.map(|(_, value)| value)
    }

    /// A text, which must be UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(text) => std::str::from_utf8(text).ok(),
            _ => None,
        }
    }

    /// A non-negative number, or a text of its digits; a fraction is dropped.
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            Value::Number(number) if (0.0..u64::MAX as f64).contains(number) => {
                Some(*number as u64)
            }
            Value::Text(digits) => crate::decimal::parse(digits),
            _ => None,
        }
    }

    pub fn table(&self, name: &str) -> Option<&Table> {
        match self.get(name)? {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }
}

/// One item of a list.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    Table(Table),
    /// Not of the expected form, or too long.
    Broken,
}

/// Splits a list that comes in pieces into its items.
#[derive(Debug, Default)]
pub struct Items {
    buffer: Vec<u8>,
    /// Bytes of the buffer that are used up.
    taken: usize,
    /// Whether no more pieces follow.
    ended: bool,
}

impl Items {
    /// Adds the next piece. All items of earlier pieces must have been taken.
    pub fn feed(&mut self, piece: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(piece);
    }

    /// There are no more pieces.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Whether everything is taken, and nothing follows.
    pub fn is_at_end(&self) -> bool {
        self.ended && self.taken == self.buffer.len()
    }

    /// The next item; `None` if more pieces are needed, or at the end of the list.
    pub fn next_item(&mut self) -> Option<Item> {
        let blank = |b: &&u8| matches!(**b, b' ' | b'\t' | b'\r' | b'\n' | b';');
        let rest = &self.buffer[self.taken..];
        self.taken += rest.iter().take_while(blank).count();
        let rest = &self.buffer[self.taken..];
        if rest.is_empty() || (!self.ended && rest.len() < BEGIN.len()) {
            return None;
        }
        if rest.starts_with(BEGIN) {
            let mut parser = Parser {
                text: rest,
                at: BEGIN.len(),
            };
            match parser.item() {
                Ok(table) if parser.at <= MAX_ITEM => {
                    self.taken += parser.at;
                    return Some(Item::Table(table));
                }
                Err(Stop::End) if !self.ended && rest.len() < MAX_ITEM => return None,
                _ => {}
            }
        }
        self.skip_broken()
    }

    /// Skips to the next line that begins an item.
    fn skip_broken(&mut self) -> Option<Item> {
        let rest = &self.buffer[self.taken..];
        // After the beginning, in case it is that of an item.
        let lines = rest[1..].windows(BEGIN.len() + 1);
        let next = lines
            .into_iter()
            .position(|line| line[0] == b'\n' && &line[1..] == BEGIN);
        match next {
            Some(at) => self.taken += 1 + at,
            None if self.ended => self.taken = self.buffer.len(),
            None if rest.len() < 2 * MAX_ITEM => return None,
            // The beginning of an item may be cut at the end of the buffer.
            None => self.taken = self.buffer.len() - (BEGIN.len() + 1),
        }
        Some(Item::Broken)
    }
}

/// Why an item was not read.
enum Stop {
    /// The text ends before the item.
    End,
    Malformed,
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    /// The table of an item, and the end of its statement.
    fn item(&mut self) -> Result<Table, Stop> {
        self.blank();
        let Value::Table(table) = self.value(0)? else {
            return Err(Stop::Malformed);
        };
        self.blank();
        self.expect(b')')?;
        Ok(table)
    }

    fn value(&mut self, depth: usize) -> Result<Value, Stop> {
        match self.peek()? {
            b'{' => self.table(depth).map(Value::Table),
            quote @ (b'"' | b'\'') => self.text(quote).map(Value::Text),
            b'(' => {
                // Infinity and NaN, as quotients.
                self.word(|b| b != b')')?;
                self.expect(b')')?;
                Ok(Value::Other)
            }
            b'-' | b'0'..=b'9' => {
                let digits = self.word(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))?;
                let number = std::str::from_utf8(digits).ok();
                let number = number.and_then(|digits| digits.parse().ok());
                number.map(Value::Number).ok_or(Stop::Malformed)
            }
            _ => match self.name()? {
                b"nil" | b"true" | b"false" => Ok(Value::Other),
                _ => Err(Stop::Malformed),
            },
        }
    }

    fn table(&mut self, depth: usize) -> Result<Table, Stop> {
        if depth == MAX_DEPTH {
            return Err(Stop::Malformed);
        }
        self.expect(b'{')?;
        let mut members = Vec::new();
        loop {
            self.blank();
            let name = match self.peek()? {
                b'}' => {
                    self.at += 1;
                    return Ok(Table(members));
                }
                b'[' => {
                    self.at += 1;
                    let name = self.value(depth + 1)?;
                    self.expect(b']')?;
                    self.equals()?;
                    Some(name)
                }
                b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                    let name = self.name()?.to_vec();
                    self.equals()?;
                    Some(Value::Text(name))
                }
                // A member of the array part has no name.
                _ => None,
            };
            let value = self.value(depth + 1)?;
            if let Some(Value::Text(name)) = name {
                members.push((name, value));
            }
            self.blank();
            match self.peek()? {
                b';' | b',' => self.at += 1,
                b'}' => {}
                _ => return Err(Stop::Malformed),
            }
        }
    }

    /// A quoted text. The serialiser escapes line ends, so that a bare one shows a text that was cut short.
    fn text(&mut self, quote: u8) -> Result<Vec<u8>, Stop> {
        self.at += 1;
        let mut text = Vec::new();
        loop {
            let byte = self.next()?;
            text.push(match byte {
                b'\n' => return Err(Stop::Malformed),
                byte if byte == quote => return Ok(text),
                b'\\' => self.escaped()?,
                byte => byte,
            });
        }
    }

    fn escaped(&mut self) -> Result<u8, Stop> {
        Ok(match self.next()? {
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            byte @ (b'\\' | b'"' | b'\'') => byte,
            first @ b'0'..=b'9' => {
                let mut code = u16::from(first - b'0');
                for _ in 0..2 {
                    let digit = self.peek()?;
                    if digit.is_ascii_digit() {
                        code = code * 10 + u16::from(digit - b'0');
                        self.at += 1;
                    }
                }
                u8::try_from(code).map_err(|_| Stop::Malformed)?
            }
            _ => return Err(Stop::Malformed),
        })
    }

    fn equals(&mut self) -> Result<(), Stop> {
        self.blank();
        self.expect(b'=')?;
        self.blank();
        Ok(())
    }

    fn name(&mut self) -> Result<&[u8], Stop> {
        self.word(|b| b.is_ascii_alphanumeric() || b == b'_')
    }

    /// The bytes that belong together, of which at least one is needed, and another byte after them.
    fn word(&mut self, is_part: impl Fn(u8) -> bool) -> Result<&[u8], Stop> {
        let rest = &self.text[self.at..];
        let length = rest.iter().position(|b| !is_part(*b)).ok_or(Stop::End)?;
        self.at += length;
        match length {
            0 => Err(Stop::Malformed),
            _ => Ok(&rest[..length]),
        }
    }

    fn blank(&mut self) {
        let blank = |b: &&u8| matches!(**b, b' ' | b'\t' | b'\r' | b'\n');
        self.at += self.text[self.at..].iter().take_while(blank).count();
    }

    fn expect(&mut self, byte: u8) -> Result<(), Stop> {
        match self.next()? == byte {
            true => Ok(()),
            false => Err(Stop::Malformed),
        }
    }

    fn next(&mut self) -> Result<u8, Stop> {
        let byte = self.peek()?;
        self.at += 1;
        Ok(byte)
    }

    fn peek(&self) -> Result<u8, Stop> {
        self.text.get(self.at).copied().ok_or(Stop::End)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Prosody 0.12 writes it.
    const UPLOAD: &str = "item({\n\t[\"attr\"] = {\n\t\t[\"content-type\"] = \"image/jpeg\";\n\t\t[\"filename\"] = \
         \"tr\\195\\168s \\\"cool\\\"\\n.jpg\";\n\t\t[\"size\"] = \"23456\";\n\t};\n\t[\"key\"] = \"a_b-C\";\n\t[\"when\"] = \
         1767225600.5;\n\t[\"with\"] = \"romeo@montague.tld\";\n\t{\n\t\t[1] = (1/0);\n\t\t\"text\";\n\t};\n});\n";

    fn items(pieces: &[&[u8]]) -> Vec<Item> {
        let mut items = Items::default();
        let mut found = Vec::new();
        for piece in pieces {
            items.feed(piece);
            found.extend(std::iter::from_fn(|| items.next_item()));
        }
        items.end();
        found.extend(std::iter::from_fn(|| items.next_item()));
        found
    }

    #[track_caller]
    fn tables(text: &[u8], count: usize, broken: usize) -> Vec<Table> {
        let whole = items(&[text]);
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(items(&bytes), whole, "byte by byte");
        let is_broken = |item: &&Item| **item == Item::Broken;
        assert_eq!(whole.iter().filter(is_broken).count(), broken);
        let tables: Vec<Table> = whole
            .into_iter()
            .filter_map(|item| match item {
                Item::Table(table) => Some(table),
                Item::Broken => None,
            })
            .collect();
        assert_eq!(tables.len(), count);
        tables
    }

    #[test]
    fn an_upload_is_read() {
        for text in [
            UPLOAD.to_owned(),
            format!("\n\n{UPLOAD}"),
            UPLOAD.replace(['\n', '\t'], ""),
        ] {
            let table = tables(text.as_bytes(), 1, 0).remove(0);
            let attributes = table.table("attr").unwrap();
            assert_eq!(
                attributes.text("filename"),
                Some("très \"cool\"\n.jpg"),
                "{text}"
            );
            assert_eq!(attributes.number("size"), Some(23456));
            assert_eq!(table.number("when"), Some(1_767_225_600));
            assert_eq!(table.text("with"), Some("romeo@montague.tld"));
            assert_eq!(table.text("attr"), None);
            assert_eq!(table.number("absent"), None);
        }
        let compact = "item({attr={filename='a',size=\"5\"},key=\"k\"});";
        assert_eq!(tables(compact.as_bytes(), 1, 0)[0].text("key"), Some("k"));
    }

    #[test]
    fn reading_continues_after_a_broken_item() {
        let cut = &UPLOAD[..60];
        for broken in [
            format!("{cut}\n"),
            UPLOAD.replace("});", "}); garbage"),
            UPLOAD.replace("\"key\"", "key"),
            UPLOAD.replace("\\195", "\\999"),
            "return { };\n".to_owned(),
            "\0\0\0\0\n".to_owned(),
            format!("item({}\n", "{".repeat(100)),
            format!("item({{\"{}\n", "x".repeat(200_000)),
            format!("item({{\"{}\"}});\n", "x".repeat(200_000)),
        ] {
            let text = format!("{UPLOAD}{broken}{UPLOAD}");
            for pieces in [
                vec![text.as_bytes()],
                text.as_bytes().chunks(1000).collect(),
            ] {
                let items = items(&pieces);
                let tables = items.iter().filter(|item| **item != Item::Broken).count();
                assert_eq!(
                    tables,
                    2 + usize::from(broken.contains("garbage")),
                    "{broken:?}"
                );
                assert!(items.len() > tables, "{broken:?}");
            }
        }
        for end in 1..UPLOAD.len() - 3 {
            let text = format!("{UPLOAD}{}", &UPLOAD[..end]);
            tables(text.as_bytes(), 1, 1);
        }
        tables(b"", 0, 0);
        tables(b"\n\n", 0, 0);
    }

    #[test]
    fn numbers_are_bounded() {
        for (text, number) in [
            ("5", Some(5)),
            ("-5", None),
            ("1e300", None),
            ("5.9", Some(5)),
            ("\"18446744073709551616\"", None),
            ("\"5x\"", None),
            ("nil", None),
            ("{}", None),
        ] {
            let item = format!("item({{ [\"n\"] = {text}; }});");
            assert_eq!(
                tables(item.as_bytes(), 1, 0)[0].number("n"),
                number,
                "{text}"
            );
        }
    }
}
