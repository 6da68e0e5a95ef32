//! Whether a client would rather have a page than a line of text (RFC 9110 §12.5.1).

use crate::http::head::RequestHead;
use crate::http::syntax::{list_elements, trim};

/// The weight of a media range without one; in thousandths.
const FULL_WEIGHT: u16 = 1000;

/// Whether the request names `text/html` and weighs it at least as much as `text/plain`, as browsers do. Wildcards alone
/// are not enough: `*/*` is what command-line clients send.
pub fn prefers_html(request: &RequestHead) -> bool {
    let ranges: Vec<MediaRange<'_>> = request
        .fields("accept")
        .flat_map(list_elements)
        .filter_map(MediaRange::parse)
        .collect();
    let weight = |range: &str| {
        let matching = ranges.iter().filter(|own| own.is(range));
        matching.map(|own| own.weight).max()
    };
    // The most specific range decides.
    let any_text = weight("text/*").or_else(|| weight("*/*")).unwrap_or(0);
    let plain = weight("text/plain").unwrap_or(any_text);
    weight("text/html").is_some_and(|html| html > 0 && html >= plain)
}

/// A media range with its weight. Other parameters are ignored.
struct MediaRange<'a> {
    range: &'a [u8],
    /// In thousandths; 0 is "not acceptable".
    weight: u16,
}

impl MediaRange<'_> {
    /// `None` if the weight is malformed.
    fn parse(element: &[u8]) -> Option<MediaRange<'_>> {
        let mut parts = element.split(|&byte| byte == b';').map(trim);
        let range = parts.next()?;
        let is_weight = |part: &&[u8]| matches!(part, [b'q' | b'Q', b'=', ..]);
        let weight = match parts.find(is_weight) {
            Some(part) => parse_weight(&part[2..])?,
            None => FULL_WEIGHT,
        };
        Some(MediaRange { range, weight })
    }

    fn is(&self, range: &str) -> bool {
        self.range.eq_ignore_ascii_case(range.as_bytes())
    }
}

/// `0` or `1` with at most three decimals, and no more than 1 (RFC 9110 §12.4.2).
fn parse_weight(text: &[u8]) -> Option<u16> {
    let (whole, decimals) = match text {
        [whole @ (b'0' | b'1')] => (whole, &b""[..]),
        [whole @ (b'0' | b'1'), b'.', decimals @ ..] => (whole, decimals),
        _ => return None,
    };
    if decimals.len() > 3 || !decimals.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| u16::from(decimals.get(at).map_or(0, |digit| digit - b'0'));
    let weight = u16::from(whole - b'0') * 1000 + digit(0) * 100 + digit(1) * 10 + digit(2);
    (weight <= FULL_WEIGHT).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: &[&str], expected: bool) {
        let fields: String = fields
            .iter()
            .map(|value| format!("Accept: {value}\r\n"))
            .collect();
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let head = RequestHead::parse(head.as_bytes()).expect("a valid head");
        assert_eq!(prefers_html(&head), expected, "{fields:?}");
    }

    #[test]
    fn browsers_get_the_page() {
        for value in [
            // Firefox, Chromium, Safari; lynx, w3m.
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,\
             application/signed-exchange;v=b3;q=0.7",
            "text/html, text/plain, text/sgml, text/css, application/xhtml+xml, */*;q=0.01",
            "text/html, text/*;q=0.5, image/*, application/*, audio/*, video/*",
            "text/html",
            "TEXT/HTML",
            "text/html;charset=utf-8",
            "text/html ; level=1 ; Q=0.4, text/*;q=0.3",
            "text/plain;q=0.5, text/html",
            "*/*;q=1, text/html, text/plain;q=0.999",
            "text/html;q=0.001",
            "text/html;q=0.5, text/plain;q=0",
            "text/html;q=0.5, text/plain;q=0.2, */*",
        ] {
            check(&[value], true);
        }
        check(&["image/png", "text/html"], true);
    }

    #[test]
    fn other_clients_get_the_line() {
        for value in [
            "",
            ",",
            "*/*",
            "text/*",
            "*/*;q=0.1",
            "text/plain",
            "application/json, text/plain, */*",
            "application/xhtml+xml",
            "text/html;q=0",
            "text/html;q=0.000, */*",
            "text/html;q=0.5, */*;q=0.8",
            "text/html;q=0.5, text/*;q=0.6, */*;q=0.1",
            "text/html;q=0.5, text/plain;q=0.6",
            // Malformed weights.
            "text/html;q=",
            "text/html;q=2",
            "text/html;q=1.001",
            "text/html;q=.5",
            "text/html;q=0.1234",
            "text/html;q=0.x",
            "text/htmlx",
            "xtext/html",
        ] {
            check(&[value], false);
        }
        check(&[], false);
        check(&["text/html;q=0.2", "text/plain;q=0.3"], false);
    }
}
