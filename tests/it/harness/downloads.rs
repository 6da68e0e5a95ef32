//! Files to download, and checks of the responses.

use std::thread;
use std::time::{Duration, Instant};

use crate::harness::files::age;
use crate::harness::site::ROMEO_FOLDER;
use crate::harness::{Client, Plan, Reply, Site, pseudo_random, unix_now};

pub const DIGITS: &[u8] = b"0123456789";

/// Old enough for a modification time to be a strong validator (RFC 9110 §8.8.2.2).
pub const DAY: u64 = 86_400;

/// A site with one old file of ten digits, and the target of that file.
pub fn digits() -> (Site, String) {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/digits.txt");
    let site = Plan::alone().seed(&path, DIGITS).start();
    age(&site.store().join(&path), DAY);
    (site, format!("/files/{path}"))
}

/// Requests a file until it is no longer served, which must be from this Unix second on and not earlier. Returns how often
/// it was served.
pub fn served_until(client: &mut Client, target: &str, until: u64) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(15);
    let mut served = 0;
    loop {
        let before = unix_now();
        let reply = client.get(target);
        let after = unix_now();
        match reply.status {
            200 => {
                assert!(before < until, "served at {before}, past {until}");
                served += 1;
            }
            404 => {
                assert!(after >= until, "not served at {after}, before {until}");
                return served;
            }
            status => panic!("{status}"),
        }
        assert!(Instant::now() < deadline, "still served");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Scripts in an uploaded file cannot run, whatever its type.
#[track_caller]
pub fn assert_no_scripts(reply: &Reply) {
    assert_eq!(reply.expect("X-Content-Type-Options"), "nosniff");
    let policy = reply.expect("Content-Security-Policy");
    let of = |name: &str| {
        policy
            .split(';')
            .map(str::trim)
            .find_map(|part| part.strip_prefix(name))
            .map(str::trim)
    };
    let sources = of("script-src ")
        .or_else(|| of("default-src "))
        .unwrap_or("*");
    let sandboxed = policy.contains("sandbox") && !policy.contains("allow-scripts");
    assert!(
        sources == "'none'" || sandboxed,
        "scripts may run: {policy}"
    );
}

/// The parts of a multipart/byteranges body (RFC 9110 §14.6): type, Content-Range, bytes.
pub fn parts_of(reply: &Reply) -> Vec<(String, String, Vec<u8>)> {
    let kind = reply.expect("Content-Type");
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap_or_else(|| panic!("{kind}"));
    let boundary = boundary.trim_matches('"');
    let mut rest = &reply.body[..];
    let mut parts = Vec::new();
    let find =
        |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).position(|window| window == part);
    loop {
        let line = format!("--{boundary}");
        let start = find(rest, line.as_bytes()).expect("a boundary") + line.len();
        if rest[start..].starts_with(b"--") {
            return parts;
        }
        let head_end = find(&rest[start..], b"\r\n\r\n").unwrap() + start + 4;
        let head = String::from_utf8(rest[start..head_end].to_vec()).unwrap();
        let field = |name: &str| {
            let line = head
                .lines()
                .find(|line| line.to_ascii_lowercase().starts_with(name));
            line.unwrap_or_else(|| panic!("no {name} in {head:?}"))
                .split_once(": ")
                .unwrap()
                .1
                .to_owned()
        };
        let end =
            find(&rest[head_end..], format!("\r\n--{boundary}").as_bytes()).unwrap() + head_end;
        parts.push((
            field("content-type"),
            field("content-range"),
            rest[head_end..end].to_vec(),
        ));
        rest = &rest[end..];
    }
}

/// The file name that a client reads from a Content-Disposition (RFC 6266 §4.3, RFC 8187).
pub fn name_of(disposition: &str) -> String {
    if let Some(at) = disposition.find("filename*=") {
        let value = disposition[at + 10..].split(';').next().unwrap().trim();
        let encoded = value
            .strip_prefix("UTF-8''")
            .unwrap_or_else(|| panic!("{disposition}"));
        let attr_char = |c: char| c.is_ascii_alphanumeric() || "!#$&+-.^_`|~%".contains(c);
        assert!(
            encoded.chars().all(attr_char),
            "not of attr-char: {disposition}"
        );
        return percent_encoding::percent_decode_str(encoded)
            .decode_utf8()
            .unwrap()
            .into_owned();
    }
    let at = disposition
        .find("filename=")
        .unwrap_or_else(|| panic!("no name in {disposition}"));
    let value = &disposition[at + 9..];
    let Some(quoted) = value.strip_prefix('"') else {
        return value.split(';').next().unwrap().trim().to_owned();
    };
    let mut name = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next().expect("the closing quote") {
            '"' => return name,
            '\\' => name.push(chars.next().unwrap()),
            c => name.push(c),
        }
    }
}

/// A plan with a large file; its target and content.
pub fn with_large_file(plan: Plan, length: usize) -> (Plan, String, Vec<u8>) {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/large.bin");
    let body = pseudo_random(20, length);
    let plan = plan.seed(&path, &body);
    (plan, format!("/files/{path}"), body)
}
