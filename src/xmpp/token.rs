//! Where the tokens of an XMPP stream end: tags, CDATA sections, and the text between them.
//!
//! Every byte is looked at once, from where the last look stopped, so what comes out does not depend
//! on how they came in. What XMPP forbids (RFC 6120 §11.1) is seen here by its first bytes. What is inside a token is
//! none of this file's business; that an end can be told from its inside (quotes, blanks between attributes) is.

use std::fmt;

/// The most bytes of one stanza, from its first `<` to its last `>`. A token outside of stanzas has the same limit.
pub const MAX_STANZA: usize = 64 * 1024;

/// What follows `<!` in the one thing that may begin so.
const CDATA: &[u8] = b"[CDATA[";
/// A larger buffer is given back when it is empty.
const KEPT_BUFFER: usize = 8 * 1024;

/// Why reading stopped; each says what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No XML, or no namespaces as they should be.
    Malformed(&'static str),
    /// XML that XMPP forbids (RFC 6120 §11.1).
    Restricted(&'static str),
    /// Past a limit of ours.
    TooLarge(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Malformed(what) | Fault::Restricted(what) | Fault::TooLarge(what) => {
                f.write_str(what)
            }
        }
    }
}

/// The bytes that are no complete token yet. Give it bytes, then take tokens until there is none.
#[derive(Debug)]
pub struct Tokens {
    /// Bytes that are not taken yet, from `start` on.
    buffer: Vec<u8>,
    /// Where the token under way begins.
    start: usize,
    /// The first byte that was not looked at; not before `start`.
    scanned: usize,
    scan: Scan,
    /// Whether nothing at all was taken yet: only there may an XML declaration stand.
    at_start: bool,
}

/// Where in a token the search for its end is.
#[derive(Clone, Copy, Debug)]
enum Scan {
    /// Before the next `<`.
    Text,
    /// After `<`.
    Angle,
    /// After `<?`, at the start of the stream. Whether the last byte was `?`.
    Declaration { question: bool },
    /// After `<!` and so many bytes of [`CDATA`].
    Bang { matched: usize },
    /// In a CDATA section, after so many `]`.
    Cdata { brackets: usize },
    /// In a start tag or an empty tag.
    Start { quote: Option<u8>, last: Last },
    /// In an end tag.
    End,
}

/// The byte before, as far as a start tag's form depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Quote,
    Slash,
    Other,
}

/// What a complete token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// `<?xml ...?>`
    Declaration,
    /// What stands between two tags inside a stanza.
    Text,
    /// `<![CDATA[...]]>`
    Cdata,
    /// `<...>`
    Start,
    /// `<.../>`
    Empty,
    /// `</...>`
    End,
}

/// What one more byte means for the token under way.
enum Step {
    More(Scan),
    /// The byte is the token's last.
    Ends(Token),
    /// The token ended before this byte.
    EndsBefore(Token),
}

impl Tokens {
    pub fn new() -> Tokens {
        Tokens {
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            scan: Scan::Text,
            at_start: true,
        }
    }

    /// These bytes came in. They are kept until the next tokens were taken; after those, never more than
    /// [`MAX_STANZA`] of them stay.
    pub fn received(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_BUFFER {
            self.buffer = Vec::new();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// How many bytes wait for the end of their token.
    pub fn waiting(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// The next complete token and its bytes; `None` when more bytes are needed. `outside` says that no stanza is
    /// open, `spent` how many bytes of the stanza under way were tokens before.
    pub fn next_token(
        &mut self,
        outside: bool,
        spent: usize,
    ) -> Result<Option<(Token, &[u8])>, Fault> {
        let token = self.find_end(outside, spent)?;
        let from = self.start;
        Ok(token.map(|token| {
            self.start = self.scanned;
            self.at_start = false;
            (token, &self.buffer[from..self.scanned])
        }))
    }

    /// Looks for the end of the token under way.
    fn find_end(&mut self, outside: bool, spent: usize) -> Result<Option<Token>, Fault> {
        loop {
            let between = outside && matches!(self.scan, Scan::Text);
            if !between {
                self.skip(spent);
            }
            let Some(&byte) = self.buffer.get(self.scanned) else {
                return Ok(None);
            };
            if between && byte != b'<' {
                // White space around stanzas keeps the link alive and is not kept itself (RFC 6120 §4.6.1).
                if !is_space(byte) {
                    return Err(Fault::Malformed("text outside of a stanza"));
                }
                self.scanned += 1;
                self.start = self.scanned;
                self.at_start = false;
                continue;
            }
            let step = self.step(byte, outside)?;
            if let Step::EndsBefore(token) = step {
                self.scan = Scan::Angle;
                if self.start < self.scanned {
                    // The `<` is looked at again, as the first byte of its own token.
                    self.scan = Scan::Text;
                    return Ok(Some(token));
                }
            }
            if spent + (self.scanned - self.start) >= MAX_STANZA {
                return Err(Fault::TooLarge("a stanza of more than 64 KiB"));
            }
            self.scanned += 1;
            match step {
                Step::More(scan) => self.scan = scan,
                Step::Ends(token) => {
                    self.scan = Scan::Text;
                    return Ok(Some(token));
                }
                Step::EndsBefore(_) => {}
            }
        }
    }

    /// Passes by the bytes that [`Tokens::step`] would take for more of the same: most of every token. It goes no
    /// further than a stanza may.
    fn skip(&mut self, spent: usize) {
        let most = MAX_STANZA.saturating_sub(spent + (self.scanned - self.start));
        let rest = &self.buffer[self.scanned..];
        let rest = &rest[..rest.len().min(most)];
        let telling = match self.scan {
            Scan::Text => rest.iter().position(|b| *b == b'<'),
            Scan::End => rest.iter().position(|b| matches!(b, b'<' | b'>')),
            Scan::Start { quote: Some(q), .. } => rest.iter().position(|b| *b == q || *b == b'<'),
            Scan::Start {
                quote: None,
                last: Last::Other,
            } => {
                let tells = |b: &u8| matches!(b, b'<' | b'>' | b'/' | b'"' | b'\'');
                rest.iter().position(tells)
            }
            _ => return,
        };
        self.scanned += telling.unwrap_or(rest.len());
    }

    /// One byte of a token.
    fn step(&self, byte: u8, outside: bool) -> Result<Step, Fault> {
        let scan = match (self.scan, byte) {
            (Scan::Text, b'<') => return Ok(Step::EndsBefore(Token::Text)),
            (Scan::Text, _) => Scan::Text,

            (Scan::Angle, b'!') => Scan::Bang { matched: 0 },
            (Scan::Angle, b'?') if self.at_start => Scan::Declaration { question: false },
            (Scan::Angle, b'?') => return Err(Fault::Restricted("a processing instruction")),
            (Scan::Angle, b'/') => Scan::End,
            (Scan::Angle, b'>' | b'<') => return Err(Fault::Malformed("a tag without a name")),
            (Scan::Angle, _) => Scan::Start {
                quote: None,
                last: Last::Other,
            },

            (Scan::Declaration { question: true }, b'>') => {
                return Ok(Step::Ends(Token::Declaration));
            }
            (Scan::Declaration { .. }, byte) => Scan::Declaration {
                question: byte == b'?',
            },

            (Scan::Bang { matched }, byte) => match CDATA.get(matched) {
                Some(&expected) if expected == byte && matched + 1 == CDATA.len() => {
                    if outside {
                        return Err(Fault::Malformed("text outside of a stanza"));
                    }
                    Scan::Cdata { brackets: 0 }
                }
                Some(&expected) if expected == byte => Scan::Bang {
                    matched: matched + 1,
                },
                _ if matched == 0 && byte == b'-' => return Err(Fault::Restricted("a comment")),
                _ => return Err(Fault::Restricted("a declaration of a document type")),
            },
            (Scan::Cdata { brackets: 2 }, b'>') => return Ok(Step::Ends(Token::Cdata)),
            (Scan::Cdata { brackets }, b']') => Scan::Cdata {
                brackets: (brackets + 1).min(2),
            },
            (Scan::Cdata { .. }, _) => Scan::Cdata { brackets: 0 },

            (Scan::Start { .. }, b'<') => return Err(Fault::Malformed("a < inside a tag")),
            (Scan::Start { quote: Some(q), .. }, byte) => Scan::Start {
                quote: (byte != q).then_some(q),
                last: Last::Quote,
            },
            (Scan::Start { quote: None, last }, byte) => match (last, byte) {
                (Last::Slash, b'>') => return Ok(Step::Ends(Token::Empty)),
                (Last::Slash, _) => return Err(Fault::Malformed("a / inside a tag")),
                (_, b'>') => return Ok(Step::Ends(Token::Start)),
                (_, b'/') => Scan::Start {
                    quote: None,
                    last: Last::Slash,
                },
                (Last::Quote, byte) if !is_space(byte) => {
                    return Err(Fault::Malformed("no blank between two attributes"));
                }
                (_, b'"' | b'\'') => Scan::Start {
                    quote: Some(byte),
                    last: Last::Other,
                },
                _ => Scan::Start {
                    quote: None,
                    last: Last::Other,
                },
            },

            (Scan::End, b'>') => return Ok(Step::Ends(Token::End)),
            (Scan::End, b'<') => return Err(Fault::Malformed("a < inside a tag")),
            (Scan::End, _) => Scan::End,
        };
        Ok(Step::More(scan))
    }
}

impl Default for Tokens {
    fn default() -> Tokens {
        Tokens::new()
    }
}

/// White space as XML has it (XML 1.0 §2.3).
pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens in a piece of a stanza, as they come out when it comes in in pieces of this size.
    fn tokens(bytes: &[u8], piece: usize) -> Result<Vec<(Token, String)>, Fault> {
        let mut tokens = Tokens::new();
        let (mut all, mut spent) = (Vec::new(), 0);
        for bytes in bytes.chunks(piece) {
            tokens.received(bytes);
            while let Some((token, bytes)) = tokens.next_token(false, spent)? {
                spent += bytes.len();
                all.push((token, String::from_utf8_lossy(bytes).into_owned()));
            }
        }
        Ok(all)
    }

    #[track_caller]
    fn check(text: &str, expected: &[(Token, &str)]) {
        for piece in [1, 2, 3, 7, 1000] {
            let found = tokens(text.as_bytes(), piece).unwrap();
            let found: Vec<_> = found.iter().map(|(t, s)| (*t, s.as_str())).collect();
            assert_eq!(found, expected, "{text} in pieces of {piece}");
        }
    }

    #[test]
    fn ends_each_token_where_it_ends() {
        check("", &[]);
        check("text", &[]);
        check("text<", &[(Token::Text, "text")]);
        check("<a", &[]);
        check("<a b='>'", &[]);
        check(
            "<a b='/>' c=\"'>\">t<b/></a>",
            &[
                (Token::Start, "<a b='/>' c=\"'>\">"),
                (Token::Text, "t"),
                (Token::Empty, "<b/>"),
                (Token::End, "</a>"),
            ],
        );
        check(
            "<![CDATA[<a>]]]]></b >]]>",
            &[(Token::Cdata, "<![CDATA[<a>]]]]>"), (Token::End, "</b >")],
        );
        // The first end counts, quoted or not (XML 1.0 §2.6).
        check(
            "<?xml a='?>' ?><a>",
            &[
                (Token::Declaration, "<?xml a='?>"),
                (Token::Text, "' ?>"),
                (Token::Start, "<a>"),
            ],
        );
        check(" <a>", &[(Token::Text, " "), (Token::Start, "<a>")]);
    }

    #[test]
    fn gives_up_at_the_first_wrong_byte() {
        for (text, fault) in [
            ("<!-", Fault::Restricted("a comment")),
            ("<!D", Fault::Restricted("a declaration of a document type")),
            ("<a><?", Fault::Restricted("a processing instruction")),
            ("<a b='<", Fault::Malformed("a < inside a tag")),
            ("<a/ ", Fault::Malformed("a / inside a tag")),
            (
                "<a b=''c",
                Fault::Malformed("no blank between two attributes"),
            ),
            ("<>", Fault::Malformed("a tag without a name")),
        ] {
            for piece in [1, 2, 1000] {
                let trailing = format!("{text}x>");
                assert_eq!(tokens(text.as_bytes(), piece), Err(fault), "{text}");
                assert_eq!(tokens(trailing.as_bytes(), piece), Err(fault), "{text}");
                let before = &text.as_bytes()[..text.len() - 1];
                assert!(tokens(before, piece).is_ok(), "{text}");
            }
        }
    }

    #[test]
    fn counts_what_was_spent_before() {
        let mut tokens = Tokens::new();
        tokens.received(b"<abc/><d/>");
        let first = tokens.next_token(false, MAX_STANZA - 6).unwrap();
        assert_eq!(first, Some((Token::Empty, &b"<abc/>"[..])));
        assert_eq!(tokens.waiting(), 4);
        assert!(matches!(
            tokens.next_token(false, MAX_STANZA - 3),
            Err(Fault::TooLarge(_))
        ));
    }
}
