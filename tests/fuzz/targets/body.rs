//! Request bodies: their end and their data do not depend on how they are split, or on whether data is moved directly.

use upslot::http::body::{Body, Step};
use upslot::http::head::Framing;

use super::{Choices, Dice, assert_sentence, expand, reference, split};

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    data: Vec<u8>,
    /// Bytes of the input that belong to the body, or the error; `None` while the body is incomplete.
    end: Option<Result<usize, String>>,
}

/// Reads a body from pieces. With `moves_directly`, data is moved without being shown to the body, as a splice does.
fn read(framing: Framing, pieces: &[&[u8]], moves_directly: bool) -> Outcome {
    let mut body = Body::new(framing);
    let mut outcome = Outcome {
        data: Vec::new(),
        end: None,
    };
    let mut used = 0;
    for piece in pieces {
        let mut rest = *piece;
        loop {
            if moves_directly && body.direct() > 0 && !rest.is_empty() {
                let n = body.direct().min(rest.len() as u64);
                outcome.data.extend_from_slice(&rest[..n as usize]);
                body.moved(n);
                (used, rest) = (used + n as usize, &rest[n as usize..]);
                continue;
            }
            let n = match body.step(rest) {
                Ok(Step::Data(n)) => {
                    outcome.data.extend_from_slice(&rest[..n]);
                    n
                }
                Ok(Step::Skip(n)) => n,
                Ok(Step::More) => {
                    assert!(rest.is_empty() && body.known_rest() != Some(0));
                    break;
                }
                Ok(Step::Done) => {
                    assert_eq!(body.known_rest(), Some(0));
                    assert_eq!(body.received(), outcome.data.len() as u64);
                    outcome.end = Some(Ok(used));
                    return outcome;
                }
                Err(error) => {
                    assert_sentence(&error.to_string());
                    assert_eq!(body.step(b"0\r\n\r\n"), Err(error), "an error is final");
                    outcome.end = Some(Err(error.to_string()));
                    return outcome;
                }
            };
            assert!((1..=rest.len()).contains(&n));
            (used, rest) = (used + n, &rest[n..]);
        }
    }
    if body.known_rest() == Some(0) {
        outcome.end = Some(Ok(used));
    }
    outcome
}

pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let (seed, length) = (choices.number(), choices.number());
    let bytes = &expand(choices.rest())[..];

    for framing in [
        Framing::Chunked,
        Framing::Length(length.into()),
        Framing::None,
    ] {
        let whole = read(framing, &[bytes], false);
        for (pieces, moves_directly) in [
            (split(bytes, seed), false),
            (split(bytes, seed), true),
            (split(bytes, 1), false),
            (vec![bytes], true),
        ] {
            assert_eq!(
                read(framing, &pieces, moves_directly),
                whole,
                "split or moved directly"
            );
        }
        if let Some(Ok(used)) = whole.end {
            let other =
                reference::body(framing, bytes).expect("the reference reader rejects the body");
            assert_eq!((&other.0, other.1), (&whole.data, used));
        }
    }
    check_encoded(bytes, seed);
}

/// A payload in any valid chunked coding is decoded to the same payload, and no byte after it is read.
fn check_encoded(payload: &[u8], seed: u16) {
    let mut dice = Dice::new(seed);
    let mut encoded = Vec::new();
    for chunk in split(payload, seed) {
        let zeros = "0".repeat(dice.below(4));
        let extension = ["", ";a", ";a=b", " ; a = \"b\\\"c\"", "\t;a"][dice.below(5)];
        let size = match dice.below(2) {
            0 => format!("{zeros}{:x}{extension}\r\n", chunk.len()),
            _ => format!("{zeros}{:X}{extension}\r\n", chunk.len()),
        };
        if chunk.is_empty() || extension.len() * split(payload, seed).len() > 10_000 {
            return;
        }
        encoded.extend_from_slice(size.as_bytes());
        encoded.extend_from_slice(chunk);
        encoded.extend_from_slice(b"\r\n");
    }
    encoded.extend_from_slice(
        [
            "0\r\n\r\n",
            "00\r\nA: b\r\n\r\n",
            "0;x\r\nA:\r\nB: é\r\n\r\n",
        ][dice.below(3)]
        .as_bytes(),
    );
    let used = encoded.len();
    encoded.extend_from_slice(b"5\r\nGET / HTTP/1.1\r\n");
    let expected = Outcome {
        data: payload.to_vec(),
        end: Some(Ok(used)),
    };
    for (pieces, moves_directly) in [
        (vec![&encoded[..]], false),
        (split(&encoded, seed.rotate_left(5)), seed & 1 == 0),
    ] {
        assert!(
            read(Framing::Chunked, &pieces, moves_directly) == expected,
            "decoded to other data"
        );
    }
}
