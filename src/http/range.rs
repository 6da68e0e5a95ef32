//! Range requests: which parts of a file a GET asks for.
//!
//! The value of `Range` is parsed into [`RangeSpec`]s, and once the size of the file is known these are resolved to
//! [`Ranges`]. Whether `Range` applies at all (method, `If-Range`) and how a multipart response is written is decided
//! elsewhere. A value that cannot be parsed is ignored, as the specification allows: the response is then the whole
//! file.
//!
//! A response is never much larger than the file. Ranges that overlap or touch are joined. If the response would still
//! exceed the size of the file by more than [`MARGIN`], ranges with a small gap between them are joined, too; if even
//! that does not suffice, the whole file is sent.
//!
//! Sources: RFC 9110 §14.1, §14.2, §15.3.7.2 and §17.15.

use std::ops::Range;

use crate::decimal;
use crate::http::head::RequestHead;
use crate::http::syntax::list_elements;

/// Most ranges in one request, including empty list elements.
pub const MAX_SPECS: usize = 64;
/// Bytes of a multipart response that each part takes in addition to its data: boundary, fields and line ends.
pub const PART_OVERHEAD: u64 = 256;
/// How many bytes a multipart response may be larger than the file.
pub const MARGIN: u64 = 1024;

/// One requested range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSpec {
    /// From the first byte to the last one, inclusive; `None` is the end of the file. A number that does not fit 64
    /// bits is read as the largest one.
    From(u64, Option<u64>),
    /// This many bytes at the end.
    Suffix(u64),
}

/// The parts of the file to send. No range is empty, and none exceeds the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// The whole file, with 200.
    Whole,
    /// None of the requested bytes exists: 416.
    Unsatisfiable,
    /// One range, with 206.
    One(Range<u64>),
    /// Several ranges that do not overlap, in this order, as multipart/byteranges with 206.
    Many(Vec<Range<u64>>),
}

/// The ranges of a request. `None` if `Range` is absent or to be ignored: repeated, in a unit other than bytes,
/// malformed, or with too many ranges.
pub fn from_request(head: &RequestHead) -> Option<Vec<RangeSpec>> {
    let mut lines = head.fields("range");
    match (lines.next(), lines.next()) {
        (Some(value), None) => parse(value),
        _ => None,
    }
}

/// The ranges in a value of `Range`; `None` as for [`from_request`].
pub fn parse(value: &[u8]) -> Option<Vec<RangeSpec>> {
    let equals = value.iter().position(|&byte| byte == b'=')?;
    let (unit, set) = (&value[..equals], &value[equals + 1..]);
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let mut specs = Vec::new();
    for (n, element) in list_elements(set).enumerate() {
        if n == MAX_SPECS {
            return None;
        }
        // A list may have empty elements (RFC 9110 §5.6.1.2).
        if !element.is_empty() {
            specs.push(parse_spec(element)?);
        }
    }
    (!specs.is_empty()).then_some(specs)
}

/// Resolves ranges for a file of `size` bytes.
pub fn resolve(specs: &[RangeSpec], size: u64) -> Ranges {
    let mut ranges: Vec<Range<u64>> = Vec::with_capacity(specs.len().min(MAX_SPECS));
    for spec in specs {
        let range = match *spec {
            RangeSpec::From(first, _) if first >= size => continue,
            RangeSpec::From(first, last) => {
                first..last.map_or(size, |last| size.min(last.saturating_add(1)))
            }
            RangeSpec::Suffix(0) => continue,
            // Formally satisfiable (RFC 9110 §14.1.2), but Content-Range cannot express an empty range.
            RangeSpec::Suffix(_) if size == 0 => return Ranges::Whole,
            RangeSpec::Suffix(length) => size.saturating_sub(length)..size,
        };
        if ranges.len() == MAX_SPECS {
            return Ranges::Whole;
        }
        ranges.push(range);
    }
    ranges = join(ranges, 0);
    if ranges.len() > 1 && response_size(&ranges) > size.saturating_add(MARGIN) {
        ranges = join(ranges, PART_OVERHEAD);
    }
    match ranges.as_slice() {
        [] => Ranges::Unsatisfiable,
        [range] => Ranges::One(range.clone()),
        _ if response_size(&ranges) > size.saturating_add(MARGIN) => Ranges::Whole,
        _ => Ranges::Many(ranges),
    }
}

/// Parses one range-spec (RFC 9110 §14.1.1). It is malformed if the last byte precedes the first.
fn parse_spec(text: &[u8]) -> Option<RangeSpec> {
    let dash = text.iter().position(|&byte| byte == b'-')?;
    let (first, last) = (&text[..dash], &text[dash + 1..]);
    match (first, last) {
        ([], suffix) => Some(RangeSpec::Suffix(decimal::parse_saturating(suffix)?)),
        (first, []) => Some(RangeSpec::From(decimal::parse_saturating(first)?, None)),
        (first, last) => {
            let (from, to) = (
                decimal::parse_saturating(first)?,
                decimal::parse_saturating(last)?,
            );
            (from <= to).then_some(RangeSpec::From(from, Some(to)))
        }
    }
}

/// Joins ranges that overlap, touch, or are at most `gap` bytes apart. A joined range takes the place of the first of
/// them.
fn join(ranges: Vec<Range<u64>>, gap: u64) -> Vec<Range<u64>> {
    let is_near = |a: &Range<u64>, b: &Range<u64>| {
        a.start <= b.end.saturating_add(gap) && b.start <= a.end.saturating_add(gap)
    };
    let mut result: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for mut range in ranges {
        // Joining one range may bring it near to others that were checked before.
        let mut place = None;
        while let Some(at) = result.iter().position(|other| is_near(other, &range)) {
            let other = result.remove(at);
            range = range.start.min(other.start)..range.end.max(other.end);
            place = Some(place.map_or(at, |first: usize| first.min(at)));
        }
        result.insert(place.unwrap_or(result.len()), range);
    }
    result
}

/// Size of a multipart response with these parts, in bytes.
fn response_size(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().fold(0, |sum: u64, range| {
        sum.saturating_add(range.end - range.start)
            .saturating_add(PART_OVERHEAD)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::Rng;

    #[track_caller]
    fn check(value: &str, size: u64, expected: Ranges) {
        let resolved = parse(value.as_bytes()).map_or(Ranges::Whole, |specs| resolve(&specs, size));
        assert_eq!(resolved, expected, "{value:?} of {size}");
    }

    fn one(range: Range<u64>) -> Ranges {
        Ranges::One(range)
    }

    fn many<const N: usize>(ranges: [Range<u64>; N]) -> Ranges {
        Ranges::Many(ranges.to_vec())
    }

    #[test]
    fn single_ranges() {
        check("bytes=0-499", 10_000, one(0..500));
        check("bytes=500-999", 10_000, one(500..1000));
        check("bytes=-500", 10_000, one(9500..10_000));
        check("bytes=9500-", 10_000, one(9500..10_000));
        check("bytes=0-", 10_000, one(0..10_000));
        check("bytes=0-0", 10_000, one(0..1));
        check("bytes=0-1", 1, one(0..1));
        check("bytes=-1", 10_000, one(9999..10_000));
        check("bytes=-20000", 10_000, one(0..10_000));
        check("bytes=9999-9999", 10_000, one(9999..10_000));
        check("bytes=9999-10000", 10_000, one(9999..10_000));
        check("BYTES=0-0", 10, one(0..1));
        check("Bytes=  0-0 ", 10, one(0..1));
        check("bytes=00-0001", 10, one(0..2));
        check("bytes=,0-0,,\t,", 10, one(0..1));
    }

    #[test]
    #[rustfmt::skip]
    fn ranges_past_the_end() {
        for value in [
            "bytes=10-", "bytes=10-20", "bytes=-0", "bytes=10-,-0", "bytes=99999999999999999999-",
        ] {
            check(value, 10, Ranges::Unsatisfiable);
        }
        for value in ["bytes=0-", "bytes=0-0", "bytes=-0", "bytes=5-9"] {
            check(value, 0, Ranges::Unsatisfiable);
        }
        check("bytes=-1", 0, Ranges::Whole);
        check("bytes=0-,-5", 0, Ranges::Whole);
        check("bytes=20-,0-0", 10, one(0..1));
        check(
            "bytes=0-0,20-30,-1",
            10_000,
            many([0..1, 20..31, 9999..10_000]),
        );
        check("bytes=0-0,10000-,-1", 10_000, many([0..1, 9999..10_000]));
    }

    #[test]
    fn large_numbers() {
        check("bytes=0-99999999999999999999", 10, one(0..10));
        check("bytes=-99999999999999999999", 10, one(0..10));
        check("bytes=0-18446744073709551615", u64::MAX, one(0..u64::MAX));
        check(
            "bytes=18446744073709551614-",
            u64::MAX,
            one(u64::MAX - 1..u64::MAX),
        );
        check(
            "bytes=18446744073709551615-",
            u64::MAX,
            Ranges::Unsatisfiable,
        );
        check(
            "bytes=0-0,-1",
            u64::MAX,
            many([0..1, u64::MAX - 1..u64::MAX]),
        );
    }

    #[test]
    #[rustfmt::skip]
    fn malformed_ranges_are_ignored() {
        for value in [
            "", "bytes", "bytes=", "bytes=,", "bytes= ", "bytes=-", "bytes=--1", "bytes=1",
            "bytes=a-b", "bytes=0x0-1", "bytes=5-4", "bytes=0-1,5-4", "bytes=0 -1", "bytes=0- 1",
            "bytes =0-1", " bytes=0-1", "byte=0-1", "bits=0-1", "items=0-1", "bytes:0-1",
            "bytes=0-1;2-3", "bytes=0-1 2-3", "bytes=0-1-2", "bytes=+0-1", "bytes=0-+1",
            "bytes==0-1", "bytes=0-1,x", "bytes=\u{e9}-1", "bytes=1.0-2", "none", "bytes 0-1/10",
        ] {
            check(value, 100, Ranges::Whole);
        }
    }

    #[test]
    fn several_ranges_keep_their_order() {
        check(
            "bytes=0-0,500-509,-10",
            10_000,
            many([0..1, 500..510, 9990..10_000]),
        );
        check("bytes=-10 , 0-9", 10_000, many([9990..10_000, 0..10]));
        check("bytes=500-600,100-200", 10_000, many([500..601, 100..201]));
        check("bytes=0-1,4-5", 10, many([0..2, 4..6]));
    }

    #[test]
    fn overlapping_and_adjacent_ranges_are_joined() {
        check("bytes=0-9,5-20", 10_000, one(0..21));
        check("bytes=0-9,10-19", 10_000, one(0..20));
        check("bytes=500-700,601-999", 10_000, one(500..1000));
        check("bytes=0-9,0-9,0-9", 10_000, one(0..10));
        check("bytes=0-9,900-909,5-20", 10_000, many([0..21, 900..910]));
        check(
            "bytes=900-909,0-9,20-29,5-25",
            10_000,
            many([900..910, 0..30]),
        );
        check(
            "bytes=0-9,20-29,10-19,500-509",
            10_000,
            many([0..30, 500..510]),
        );
        check("bytes=20-29,0-9,0-", 10_000, one(0..10_000));
    }

    #[test]
    fn responses_are_not_much_larger_than_the_file() {
        let every_other = |n: u64| {
            let specs: Vec<String> = (0..n).map(|i| format!("{}-{}", 2 * i, 2 * i)).collect();
            format!("bytes={}", specs.join(","))
        };
        check(&every_other(20), 100, one(0..39));
        check(&every_other(64), 1000, one(0..127));
        check(&every_other(65), 1000, Ranges::Whole);
        check(&format!("bytes=0-0{}", ",".repeat(64)), 1000, Ranges::Whole);
        check(&format!("bytes={}", "0-,".repeat(64)), 1000, Ranges::Whole);
        check(&format!("bytes={}0-", "0-,".repeat(63)), 1000, one(0..1000));
        match parse(every_other(64).as_bytes()).map(|specs| resolve(&specs, 1 << 30)) {
            Some(Ranges::Many(ranges)) => assert_eq!(ranges.len(), 64),
            other => panic!("{other:?}"),
        }
        assert_eq!(
            resolve(&vec![RangeSpec::From(0, Some(0)); 65], 10),
            Ranges::Whole
        );
    }

    #[test]
    fn a_repeated_field_is_ignored() {
        let head = |fields: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            from_request(&RequestHead::parse(text.as_bytes()).unwrap())
        };
        assert_eq!(head(""), None);
        assert_eq!(
            head("Range: bytes=1-\r\n"),
            Some(vec![RangeSpec::From(1, None)])
        );
        assert_eq!(head("Range: bytes=1-\r\nRange: bytes=1-\r\n"), None);
        assert_eq!(head("Range: pages=1-\r\n"), None);
    }

    /// Resolved ranges lie within the file, do not overlap, and do not exceed the size limit.
    #[test]
    fn random_ranges_are_valid() {
        let mut rng = Rng::new(3);
        let alphabet = b"0123456789--,,, =x";
        for round in 0..20_000 {
            let mut value = b"bytes=".to_vec();
            for _ in 0..rng.below(60) {
                value.push(alphabet[rng.below(alphabet.len())]);
            }
            let size = [0, 1, 7, 100, 5000, u64::MAX][round % 6];
            let Some(specs) = parse(&value) else {
                continue;
            };
            let ranges = match resolve(&specs, size) {
                Ranges::Whole | Ranges::Unsatisfiable => continue,
                Ranges::One(range) => vec![range],
                Ranges::Many(ranges) => {
                    assert!(ranges.len() > 1);
                    assert!(response_size(&ranges) <= size.saturating_add(MARGIN));
                    ranges
                }
            };
            for (n, range) in ranges.iter().enumerate() {
                assert!(
                    range.start < range.end && range.end <= size,
                    "{range:?} of {size}"
                );
                for other in &ranges[n + 1..] {
                    assert!(range.end < other.start || other.end < range.start);
                }
            }
        }
    }
}
