//! Checks that all responses of the local API share.

use crate::harness::{Plan, Reply, Site};

pub fn with_api() -> Plan {
    Plan::alone().set("api", "{port: 0}")
}

#[track_caller]
pub fn check(site: &Site, target: &str, status: u16, body: &str) {
    let reply = site.ask_api(target);
    assert_eq!(
        (reply.status, reply.text()),
        (status, body),
        "{target}: {:?}",
        reply.fields
    );
    assert_private(&reply);
}

/// No CORS fields, no caching.
#[track_caller]
pub fn assert_private(reply: &Reply) {
    for (name, _) in &reply.fields {
        let name = name.to_ascii_lowercase();
        assert!(
            !name.starts_with("access-control-"),
            "{name} on the local API"
        );
    }
    if reply.status == 200 {
        assert_eq!(reply.expect("Cache-Control"), "no-store");
    }
}
