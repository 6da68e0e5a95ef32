//! The right of a PUT, by each of the schemes, from the parsed head to the grant.

use std::hint::black_box;

use ring::hmac;
use upslot::service::{Decision, Service};

use crate::bench::Bench;
use crate::common::outcome::Outcome;
use crate::site::{self, SIZE};

pub fn run(bench: &mut Bench) -> Outcome<()> {
    let service = site::service("")?;
    let doors = site::service(&site::doors())?;
    let (put, _) = site::targets(&service)?;
    let about = "a parsed PUT to its grant: a slot of our own";
    bench.case("put-own", about, 1, granted(&service, &put, "")?)?;
    let about = "the same, signed by mod_http_upload_external, v";
    let first = site::external(false);
    bench.case("put-external-v", about, 1, granted(&doors, &first, "")?)?;
    let about = "the same, v2";
    let second = site::external(true);
    bench.case("put-external-v2", about, 1, granted(&doors, &second, "")?)?;
    let about = "the same, with a token of mod_http_file_share";
    let (target, field) = site::share();
    bench.case("put-jwt", about, 1, granted(&doors, &target, &field)?)?;

    let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
    let message = vec![b'x'; put.len()];
    let tag = hmac::sign(&key, &message);
    let about = "limit: the HMAC alone, over as many bytes as the URL of a slot has";
    bench.case("limit-hmac", about, 1, || {
        hmac::verify(&key, black_box(&message), tag.as_ref()).is_ok()
    })
}

fn granted<'a>(
    service: &'a Service,
    target: &str,
    fields: &str,
) -> Outcome<impl FnMut() -> bool + 'a> {
    let request = site::parsed(&site::slixmpp(target, fields))?;
    let now = site::now();
    Ok(move || match service.decide(black_box(&request), now) {
        Decision::Upload(grant) => black_box(grant).size == SIZE,
        _ => false,
    })
}
