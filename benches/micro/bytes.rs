//! Range fields and chunked bodies.

use std::hint::black_box;

use upslot::http::body::{Body, Step};
use upslot::http::head::Framing;
use upslot::http::range::{self, Ranges};

use crate::bench::Bench;
use crate::common::outcome::Outcome;

/// Bytes of data in a chunked body.
const BODY: usize = 256 * 1024;
const KIB: usize = 1024;
/// Size in bytes of the file to which ranges apply.
const FILE: u64 = 1 << 30;

pub fn run(bench: &mut Bench<'_>) -> Outcome<()> {
    bench.case("range-1", 1, || {
        let ranges = ranges(black_box(b"bytes=1048576-"));
        matches!(black_box(ranges), Some(Ranges::One(_)))
    })?;
    let value: Vec<String> = (0..10)
        .map(|n| format!("{}-{}", n * 100_000, n * 100_000 + 999))
        .collect();
    let value = format!("bytes={}", value.join(", ")).into_bytes();
    bench.case("range-10", 1, || {
        let ranges = ranges(black_box(&value));
        matches!(black_box(ranges), Some(Ranges::Many(_)))
    })?;
    for (name, chunk) in [
        ("chunked-64k", 64 * KIB),
        ("chunked-1k", KIB),
        ("chunked-16", 16),
    ] {
        let body = chunked(chunk);
        bench.case(name, BODY / KIB, || decode(black_box(&body)) == Some(BODY))?;
    }
    Ok(())
}

fn ranges(value: &[u8]) -> Option<Ranges> {
    range::parse(value).map(|specs| range::resolve(&specs, FILE))
}

/// A body in chunks of `chunk` bytes.
fn chunked(chunk: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..BODY / chunk {
        body.extend_from_slice(format!("{chunk:x}\r\n").as_bytes());
        body.resize(body.len() + chunk, b'x');
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    body
}

/// Decodes a chunked body; returns the bytes of data, or none if it is incomplete or invalid.
fn decode(bytes: &[u8]) -> Option<usize> {
    let mut body = Body::new(Framing::Chunked);
    let (mut at, mut data) = (0, 0);
    loop {
        match body.step(&bytes[at..]) {
            Ok(Step::Skip(n)) => at += n,
            Ok(Step::Data(n)) => {
                black_box(&bytes[at..at + n]);
                at += n;
                data += n;
            }
            Ok(Step::Done) => return (at == bytes.len()).then_some(data),
            Ok(Step::More) | Err(_) => return None,
        }
    }
}
