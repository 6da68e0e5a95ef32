//! Numbers that do not fit into 32 bits: files of more than 2 and 4 GiB, and times after 2038. They matter on 32-bit ARM.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::harness::files::seed;
use crate::harness::program::run;
use crate::harness::site::{ROMEO, ROMEO_FOLDER, assert_no_room};
use crate::harness::{Plan, request};

const GIB: u64 = 1 << 30;

/// The size of the large file.
const SIZE: u64 = 5 * GIB + 7;

/// Where its bytes are not 0: around 2 and 4 GiB, and at the end.
const MARKED: [u64; 3] = [2 * GIB, 4 * GIB, SIZE - 4];

/// Starts with a sparse file of [`SIZE`] bytes.
fn with_large_file(plan: Plan) -> (Plan, String) {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/large.bin");
    let file = seed(&plan.store(), &path, b"");
    let file = File::options().write(true).open(file).unwrap();
    file.set_len(SIZE).unwrap();
    for at in MARKED {
        file.write_all_at(b"12345678", at - 4).unwrap();
    }
    (plan, format!("/files/{path}"))
}

#[test]
fn ranges_beyond_4_gib() {
    let (plan, target) = with_large_file(Plan::alone());
    let site = plan.start();
    let mut client = site.client();
    client.send(&request("HEAD", &target, &[], b""));
    let head = client.reply_to("HEAD").is(200);
    assert_eq!(head.expect("Content-Length"), SIZE.to_string());
    for at in MARKED {
        let (first, last) = (at - 5, (at + 4).min(SIZE - 1));
        let range = format!("bytes={first}-{last}");
        let reply = client
            .ask("GET", &target, &[("Range", &range)], b"")
            .is(206);
        let end = if last == at + 4 { "\0" } else { "" };
        assert_eq!(reply.text(), format!("\u{0}12345678{end}"), "{range}");
        assert_eq!(
            reply.expect("Content-Range"),
            format!("bytes {first}-{last}/{SIZE}")
        );
        // Large enough not to be copied through a buffer.
        let range = format!("bytes={}-{}", at - 300_000, at + 3);
        let reply = client
            .ask("GET", &target, &[("Range", &range)], b"")
            .is(206);
        let (zeros, marked) = reply.body.split_at(300_000 - 4);
        assert!(zeros.iter().all(|byte| *byte == 0), "{range}");
        assert_eq!(marked, b"12345678", "{range}");
    }
    for (range, status, content_range) in [
        (
            format!("bytes={}-", SIZE - 4),
            206,
            format!("bytes {}-{}/{SIZE}", SIZE - 4, SIZE - 1),
        ),
        (
            "bytes=-4".to_owned(),
            206,
            format!("bytes {}-{}/{SIZE}", SIZE - 4, SIZE - 1),
        ),
        (format!("bytes={SIZE}-"), 416, format!("bytes */{SIZE}")),
        // Not the first byte, which it would be in 32 bits.
        (
            format!("bytes={}-{}", 1_u64 << 32, 1_u64 << 32),
            206,
            format!("bytes {0}-{0}/{SIZE}", 1_u64 << 32),
        ),
    ] {
        let reply = client
            .ask("GET", &target, &[("Range", &range)], b"")
            .is(status);
        assert_eq!(reply.expect("Content-Range"), content_range);
    }
    let both = format!(
        "bytes={}-{},{}-{}",
        2 * GIB - 4,
        2 * GIB + 3,
        4 * GIB - 4,
        4 * GIB + 3
    );
    let reply = client.ask("GET", &target, &[("Range", &both)], b"").is(206);
    assert_eq!(reply.text().matches("12345678").count(), 2);
}

#[test]
fn quotas_and_lists_beyond_4_gib() {
    let (plan, target) = with_large_file(Plan::new());
    let config = plan.dir().join("config.yml");
    let mut site = plan
        .set("user_quota_hard", SIZE + 10)
        .set("max_file_size", SIZE)
        .set("min_free_space", 0)
        .start();
    site.slot(ROMEO, "a.bin", 10, None);
    assert_no_room(&mut site, ROMEO, 11);
    assert_no_room(&mut site, ROMEO, 5 * GIB);
    // 10 bytes in 32 bits.
    assert_no_room(&mut site, ROMEO, (1 << 32) + 10);
    let query = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
    let answer = site.link().iq("get", ROMEO, query);
    assert!(format!("{answer:?}").contains(&SIZE.to_string()));

    let arguments = ["-c", config.to_str().unwrap(), "list", ROMEO];
    let (code, listed) = run(&arguments, site.dir.path());
    assert_eq!(code, Some(0), "{listed}");
    assert!(
        listed.contains("5.0 GiB") && listed.contains(&target),
        "{listed}"
    );
}

#[test]
fn modification_times_after_2038() {
    // 2040-01-01, and a time that is in the past if its upper half is lost.
    let times = [2_208_988_800, (1_u64 << 32) + 1_000_000];
    let plan = Plan::alone();
    let files = times.map(|seconds| {
        let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/{seconds}.txt");
        let file = seed(&plan.store(), &path, b"hello");
        let time = UNIX_EPOCH + Duration::from_secs(seconds);
        File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(time)
            .unwrap();
        (file, format!("/files/{path}"), time)
    });
    if files
        .iter()
        .any(|(file, _, time)| file.metadata().unwrap().modified().unwrap() != *time)
    {
        eprintln!("NOT TESTED: the file system has no times after 2038");
        return;
    }
    let mut site = plan
        .set("expire_interval", 1)
        .set("expire_maxage", 1000)
        .start();
    site.program.allow("time in the future");
    for (_, target, _) in &files {
        let reply = site.get(target).is(200);
        let modified = httpdate::parse_http_date(reply.expect("Last-Modified")).unwrap();
        let age = SystemTime::now().duration_since(modified).unwrap();
        assert!(age < Duration::from_secs(60), "{age:?}");
    }
    // The sweep counts their age from now.
    site.program
        .wait_line(&["files have a time in the future", "files=2"]);
    site.program.wait_lines(&["sweep done ", "removed=0"], 2);
    for (file, target, _) in &files {
        let modified = file.metadata().unwrap().modified().unwrap();
        let age = SystemTime::now().duration_since(modified).unwrap();
        assert!(age < Duration::from_secs(60), "{age:?}");
        site.get(target).is(200);
    }
}
