//! Responses of servers, to the doctor or of an object store: their content does not depend on how they are split, and memory is bounded.

use upslot::http::client::{Response, ResponseReader};
use upslot::reactor::object_facts::ObjectHead;

use super::{Choices, expand, split};

/// The longest body that is kept.
const MOST: usize = 1024 * 1024;

/// The statuses of a response and the response, or why there is none.
fn read(pieces: &[&[u8]], head_only: bool, closed: bool) -> Result<Option<Response>, &'static str> {
    let mut reader = ResponseReader::new(head_only);
    for piece in pieces {
        reader.received(piece).map_err(|error| error.0)?;
    }
    if closed {
        reader.peer_closed().map_err(|error| error.0)?;
        assert!(reader.is_complete());
    }
    let complete = reader.is_complete();
    assert!(reader.has_begun() || pieces.iter().all(|piece| piece.is_empty()));
    let response = reader.take();
    assert_eq!(response.is_some(), complete);
    Ok(response)
}

pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let (seed, flags) = (choices.number(), choices.byte());
    let (head_only, closed) = (flags & 1 != 0, flags & 2 != 0);
    let bytes = expand(choices.rest());
    let whole = read(&[&bytes], head_only, closed);
    assert_eq!(read(&split(&bytes, seed), head_only, closed), whole);
    let Ok(Some(response)) = whole else {
        return;
    };
    assert!((200..1000).contains(&response.status) && response.minor <= 1);
    assert!(response.body.len() <= MOST.min(bytes.len()));
    assert!(!head_only || response.body.is_empty());
    if let Some(ObjectHead { facts, span, .. }) = ObjectHead::of(&response) {
        assert!(span.start <= span.end && span.end <= facts.size);
    }
    for (name, value) in &response.fields {
        assert!(!name.is_empty() && !name.bytes().any(|b| b.is_ascii_uppercase()));
        assert!(!value.contains(['\r', '\n']), "{value:?}");
    }
}
