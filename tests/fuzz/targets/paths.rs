//! Request targets: no encoding of a path leads out of the storage folder or to a hidden file, and every path has a
//! single meaning.

use std::time::{Duration, Instant, UNIX_EPOCH};

use upslot::config;
use upslot::http::head::RequestHead;
use upslot::http::route::{Prefixes, Resource};
use upslot::layout::StorePath;
use upslot::now::Now;
use upslot::service::{Decision, DownloadRequest, PutRefusal, Service};

use super::{Choices, NOW, reference};

const PREFIXES: [&[&[u8]]; 4] = [
    &[b"/"],
    &[b"/up/"],
    &[b"/files/", b"/up/load/"],
    &[b"/a/", b"/a/a/"],
];

pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let which = choices.byte();
    let path = choices.rest();
    let known = PREFIXES[usize::from(which) % PREFIXES.len()];
    let prefixes = Prefixes::new(known);
    if let Resource::File(found) = prefixes.resource(path) {
        check_inside(path, &found);
        // The path in the URL of a slot leads to the same file, with any prefix or without.
        if !known
            .iter()
            .any(|prefix| starts_with_prefix(found.as_bytes(), prefix))
        {
            let encoded = found.encoded();
            for prefix in known {
                let prefix = String::from_utf8_lossy(prefix);
                for url in [format!("/{encoded}"), format!("{prefix}{encoded}")] {
                    assert_eq!(
                        prefixes.resource(url.as_bytes()),
                        Resource::File(found.clone())
                    );
                }
            }
        }
    }
    check_decision(path, which);
}

/// Whether the path starts with the segments of the prefix.
fn starts_with_prefix(path: &[u8], prefix: &[u8]) -> bool {
    prefix.len() > 1 && [path, b"/"].concat().starts_with(&prefix[1..])
}

/// A path in the store consists of the last segments of the request's path, each decoded once.
fn check_inside(raw: &[u8], found: &StorePath) {
    reference::assert_inside_storage(found);
    let decoded: Vec<Vec<u8>> = raw
        .split(|b| *b == b'/')
        .map(|part| reference::decode(part).expect("a file for a path that cannot be decoded"))
        .collect();
    let segments: Vec<&[u8]> = found.segments().collect();
    assert!(decoded.len() > segments.len());
    assert_eq!(decoded[decoded.len() - segments.len()..], segments);
}

thread_local! {
    static SERVICES: [Service; 2] = {
        let base = "storage_path: /srv/upslot\nget_url: https://get.example/files/\n\
                    put_url: https://put.example/up\nwhitelist: [montague.tld]\n";
        let share = format!("{base}file_share_secret: a secret of some length\n");
        [base.to_owned(), share].map(|text| {
            Service::new(&config::read(&text).unwrap().config, b"a secret of some length")
        })
    };
}

/// A GET for the path, decided by the service.
fn check_decision(path: &[u8], which: u8) {
    let head = [b"GET ", path, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    let Ok(request) = RequestHead::parse(&head) else {
        return;
    };
    let now = Now {
        mono: Instant::now(),
        wall: UNIX_EPOCH + Duration::from_secs(NOW),
    };
    let decision = SERVICES.with(|services| services[usize::from(which) % 2].decide(&request, now));
    match decision {
        Decision::Download(DownloadRequest { path, again, slot }) => {
            for path in path.iter().chain(&again) {
                reference::assert_inside_storage(path);
            }
            assert!(path != again || path.is_none(), "the same path twice");
            assert!(slot.is_none_or(|slot| !slot.is_empty()));
        }
        Decision::Answer(answer) => assert!([200, 404].contains(&answer.status)),
        // The path may contain line ends, and so add header fields.
        Decision::Refuse(PutRefusal::Expectation) => {}
        other => panic!("a GET is decided as {other:?}"),
    }
}
