//! From the parsed head of a PUT to its grant, for each scheme.

use std::hint::black_box;

use ring::hmac;
use upslot::service::{Decision, Service};

use crate::bench::Bench;
use crate::common::outcome::Outcome;
use crate::fixtures::{self, SIZE};

pub fn run(bench: &mut Bench<'_>) -> Outcome<()> {
    let service = fixtures::service("")?;
    let external = fixtures::service(&fixtures::signed_puts())?;
    let (put, _) = fixtures::targets(&service)?;
    bench.case("put-own", 1, granted(&service, &put, "")?)?;
    let version_1 = fixtures::external_target(false);
    bench.case("put-external-v", 1, granted(&external, &version_1, "")?)?;
    let version_2 = fixtures::external_target(true);
    bench.case("put-external-v2", 1, granted(&external, &version_2, "")?)?;
    let (target, field) = fixtures::file_share_token();
    bench.case("put-jwt", 1, granted(&external, &target, &field)?)?;

    let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
    let message = vec![b'x'; put.len()];
    let tag = hmac::sign(&key, &message);
    bench.case("limit-hmac", 1, || {
        hmac::verify(&key, black_box(&message), tag.as_ref()).is_ok()
    })
}

/// Decides a PUT, which must be granted.
fn granted<'a>(
    service: &'a Service,
    target: &str,
    fields: &str,
) -> Outcome<impl FnMut() -> bool + 'a> {
    let request = fixtures::parsed(&fixtures::slixmpp(target, fields))?;
    let now = fixtures::now();
    Ok(move || match service.decide(black_box(&request), now) {
        Decision::Upload(grant) => black_box(grant).size == SIZE,
        _ => false,
    })
}
