//! The query of a request target in form encoding: `application/x-www-form-urlencoded` (WHATWG URL §5).
//!
//! Parsing is strict: a query in which a `%` is not followed by two hex digits, or whose decoded text is not UTF-8, is
//! rejected as a whole. It is decoded once. The values are not interpreted; they may contain NUL and control
//! characters.
//!
//! Only the slot API parses its query in this way. In the signed queries of PUTs a `+` is not a space, and no parameter
//! may be repeated.

use std::fmt;

use crate::layout::{decode_segment, query_parameters};

/// Most parameters of a query; requests have at most six.
pub const MAX_PARAMETERS: usize = 64;

/// A decoded query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    parameters: Vec<(String, String)>,
}

/// Why a query is rejected. Its `Display` is one sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// A `%` that is not followed by two hex digits.
    Percent,
    /// Decoded bytes that are not UTF-8.
    NotUtf8,
    /// More than [`MAX_PARAMETERS`].
    TooMany,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            QueryError::Percent => "The query has a % without two hex digits.",
            QueryError::NotUtf8 => "The query is not UTF-8.",
            QueryError::TooMany => "The query has too many parameters.",
        })
    }
}

impl Query {
    /// Parses the part of a target after the `?`, whose length the request head limits. Empty pieces between two `&`
    /// are ignored; a piece without `=` is a name with an empty value.
    pub fn parse(raw: &[u8]) -> Result<Query, QueryError> {
        let mut parameters = Vec::new();
        for (name, value) in query_parameters(raw) {
            if name.is_empty() && value.is_none() {
                continue;
            }
            if parameters.len() == MAX_PARAMETERS {
                return Err(QueryError::TooMany);
            }
            parameters.push((decode(name)?, decode(value.unwrap_or_default())?));
        }
        Ok(Query { parameters })
    }

    /// The value of a parameter. If it is repeated, this is the last value, as in Django's `QueryDict`.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().rev().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

fn decode(raw: &[u8]) -> Result<String, QueryError> {
    let spaced: Vec<u8> = raw
        .iter()
        .map(|b| if *b == b'+' { b' ' } else { *b })
        .collect();
    let decoded = decode_segment(&spaced).ok_or(QueryError::Percent)?;
    String::from_utf8(decoded.into_owned()).map_err(|_| QueryError::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::Rng;

    /// The query has these parameters, in this order.
    #[track_caller]
    fn check(raw: &str, parameters: &[(&str, &str)]) {
        let query = Query::parse(raw.as_bytes()).expect(raw);
        let found: Vec<(&str, &str)> = query
            .parameters
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(found, parameters, "{raw:?}");
    }

    #[track_caller]
    fn check_rejected(raw: &[u8], error: QueryError) {
        assert_eq!(Query::parse(raw), Err(error), "{}", raw.escape_ascii());
        assert!(error.to_string().ends_with('.'));
    }

    #[test]
    fn splits_and_decodes_once() {
        check("", &[]);
        check("&&", &[]);
        check("a=1&b=2", &[("a", "1"), ("b", "2")]);
        check("&a=1&&b=2&", &[("a", "1"), ("b", "2")]);
        check("a", &[("a", "")]);
        check("a=", &[("a", "")]);
        check("=1", &[("", "1")]);
        check("a=b=c", &[("a", "b=c")]);
        check("a=1;b=2?c", &[("a", "1;b=2?c")]);
        check("%61=%31%3d%26", &[("a", "1=&")]);
        check("a=%2541%2B", &[("a", "%41+")]);
        check("a+b=c+d%20e", &[("a b", "c d e")]);
        check("a=tr%C3%A8s%20cool.jpg", &[("a", "très cool.jpg")]);
        check("a=tr%c3%a8s", &[("a", "très")]);
        check("a=très", &[("a", "très")]);
        check("a=%00%0d%0A%7f", &[("a", "\0\r\n\u{7f}")]);
    }

    #[test]
    fn the_last_of_repeated_parameters_wins() {
        let query = Query::parse(b"a=1&b=2&%61=3&A=4").unwrap();
        assert_eq!(query.get("a"), Some("3"));
        assert_eq!(query.get("A"), Some("4"));
        assert_eq!(query.get("c"), None);
        assert_eq!(Query::parse(b"a=1&a").unwrap().get("a"), Some(""));
    }

    #[test]
    fn rejects_invalid_encodings() {
        for raw in [&b"a=%"[..], b"a=%4", b"a=%zz", b"a=%%41", b"%=1", b"a=% 41"] {
            check_rejected(raw, QueryError::Percent);
        }
        for raw in [
            &b"a=%ff"[..],
            b"a=\xff",
            b"a=%C3",
            b"a=%C0%AF",
            b"a=%ED%A0%80",
            b"%E9=1",
        ] {
            check_rejected(raw, QueryError::NotUtf8);
        }
        // A UTF-8 sequence cannot extend over two parameters.
        check_rejected(b"a=%C3&=%A8", QueryError::NotUtf8);
    }

    #[test]
    fn limits_the_number_of_parameters() {
        assert!(Query::parse("a&".repeat(MAX_PARAMETERS).as_bytes()).is_ok());
        check_rejected(
            "a&".repeat(MAX_PARAMETERS + 1).as_bytes(),
            QueryError::TooMany,
        );
        assert!(Query::parse("&".repeat(8192).as_bytes()).is_ok());
    }

    #[test]
    fn mutated_queries_never_grow() {
        let seed = "jid=romeo%40montague.tld&name=tr%C3%A8s+cool.jpg&size=23456&type=image%2Fjpeg";
        let tokens: [&[u8]; 8] = [b"%", b"&", b"=", b"+", b"\xff", b"%C3", b"%00", b"\xc3\xa8"];
        let mut rng = Rng::new(4);
        for _ in 0..5000 {
            let mut raw = seed.as_bytes().to_vec();
            rng.mutate(&mut raw, &tokens);
            if let Ok(query) = Query::parse(&raw) {
                let bytes: usize = query
                    .parameters
                    .iter()
                    .map(|(n, v)| n.len() + v.len())
                    .sum();
                assert!(bytes <= raw.len());
            }
        }
    }
}
