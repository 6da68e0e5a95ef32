//! Attacks: out of the store by whatever spelling or planted link, into answers and the log by whatever text, and
//! with slots of another path, size, type, owner or time.
//!
//! What each feature refuses in its own right is told where the feature is tested; here stand the attempts of
//! somebody who means it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::hmac;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::harness::site::{ROMEO, ROMEO_FOLDER, age, owner_folder, seed, set_kept_type};
use crate::harness::wait::long;
use crate::harness::{Client, Plan, Site, Slot, eventually, request, unix_now};
use crate::purposes::{inside, until};

const KEY: &str = "correct horse battery staple";
const DELETE_SECRET: &str = "a secret for deleting alone";
const JULIET: &str = "juliet@capulet.tld";

/// Stands in every file that nobody may see.
const CANARY: &[u8] = b"CANARY-not-to-be-seen";

fn hex(message: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
    HEXLOWER.encode(hmac::sign(&key, message).as_ref())
}

/// The right to PUT five bytes to a path, as the XMPP server would sign it if it were talked into it.
fn signed_put(path: &[u8]) -> String {
    format!("v={}", hex(&[path, b" 5"].concat()))
}

fn signed_delete(path: &[u8]) -> String {
    format!(
        "token={}",
        hex(&[path, b"\0", DELETE_SECRET.as_bytes()].concat())
    )
}

/// A plan that takes every kind of right.
fn every_door() -> Plan {
    Plan::new()
        .set("external_secret", format!("'{KEY}'"))
        .set("external_delete_secret", format!("'{DELETE_SECRET}'"))
        .set("file_share_secret", format!("'{KEY}'"))
        .set("api", "{port: 0}")
        .set("fsync", false)
}

/// Whatever is below a folder: kind, inode and content; links are not followed.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let facts = fs::symlink_metadata(&path).unwrap();
            let kind = facts.file_type();
            let what = if kind.is_dir() {
                folders.push(path.clone());
                "folder".to_owned()
            } else if kind.is_file() {
                let content = fs::read(&path).unwrap();
                format!("file {} {}", facts.ino(), content.escape_ascii())
            } else if kind.is_symlink() {
                format!("link {}", fs::read_link(&path).unwrap().display())
            } else {
                format!("other {}", facts.ino())
            };
            found.insert(path.strip_prefix(root).unwrap().to_owned(), what);
        }
    }
    found
}

/// What nobody may change from outside: all but the visible files of the store.
fn untouchable(site: &Site) -> BTreeMap<PathBuf, String> {
    let mut all = snapshot(site.dir.path());
    all.retain(|path, _| match path.strip_prefix("store") {
        Err(_) => true,
        Ok(below) => below
            .components()
            .any(|part| part.as_os_str().as_encoded_bytes().starts_with(b".")),
    });
    all
}

/// Sends requests one after the other, on as many connections as it takes.
struct Asker<'a> {
    site: &'a Site,
    client: Option<Client>,
}

impl Asker<'_> {
    fn new(site: &Site) -> Asker<'_> {
        Asker { site, client: None }
    }

    /// The status and the body; the head is judged while it is read.
    #[track_caller]
    fn ask(&mut self, method: &str, target: &[u8], body: &[u8]) -> (u16, Vec<u8>) {
        let mut client = self.client.take().unwrap_or_else(|| self.site.client());
        let mut bytes = [method.as_bytes(), b" ", target, b" HTTP/1.1\r\nHost: a\r\n"].concat();
        if method == "PUT" {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        if method == "PUT" {
            bytes.extend_from_slice(body);
        }
        client.send(&bytes);
        let reply = client.reply_to(method);
        assert_plain_fields(&reply.fields);
        if reply.field("Connection") != Some("close") {
            self.client = Some(client);
        }
        (reply.status, reply.body)
    }
}

/// An answer has the fields that upslot writes, and no other.
#[track_caller]
fn assert_plain_fields(fields: &[(String, String)]) {
    const KNOWN: [&str; 21] = [
        "accept-ranges",
        "access-control-allow-headers",
        "access-control-allow-methods",
        "access-control-allow-origin",
        "access-control-expose-headers",
        "access-control-max-age",
        "allow",
        "cache-control",
        "connection",
        "content-disposition",
        "content-length",
        "content-range",
        "content-security-policy",
        "content-type",
        "date",
        "etag",
        "last-modified",
        "retry-after",
        "location",
        "www-authenticate",
        "x-content-type-options",
    ];
    let mut seen = BTreeSet::new();
    for (name, value) in fields {
        let lower = name.to_ascii_lowercase();
        assert!(KNOWN.contains(&&*lower), "{name}: {value} in {fields:?}");
        assert!(seen.insert(lower), "{name} twice in {fields:?}");
        assert!(
            value.bytes().all(|b| (b' '..=b'~').contains(&b)),
            "{name}: {value:?}"
        );
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Raw bytes out of a text in which `\xNN` stands for any byte.
fn raw(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\x") {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        bytes.push(u8::from_str_radix(&rest[at + 2..at + 4], 16).unwrap());
        rest = &rest[at + 4..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// What a server could take for a dot.
const DOTS: [&str; 16] = [
    ".",
    "%2e",
    "%2E",
    "%252e",
    "%25252e",
    "%c0%ae",
    "%e0%80%ae",
    "%f0%80%80%ae",
    "\\xc0\\xae",
    "%c0%2e",
    "%u002e",
    "%00.",
    ".%00",
    "%EF%BC%8E",
    "%E2%80%A4",
    "%E3%80%82",
];

/// What a server could take for a slash.
const SLASHES: [&str; 20] = [
    "/",
    "//",
    "/./",
    "/%2e/",
    "%2f",
    "%2F",
    "%252f",
    "%5c",
    "%5C",
    "%255c",
    "\\x5c",
    "%c0%af",
    "%e0%80%af",
    "\\xc0\\xaf",
    "%c1%9c",
    "%u2215",
    "%E2%88%95",
    "%EF%BC%8F",
    ";/",
    "/;x=1/",
];

/// What a server could cut off a name.
const TAILS: [&str; 15] = [
    "",
    ".",
    "...",
    "%20",
    "%00",
    "%00.jpg",
    "%2500.jpg",
    ";.jpg",
    ";jsessionid=1",
    "::$DATA",
    "%3a%3a$DATA",
    "/",
    "/.",
    "%0a",
    "~",
];

/// Every spelling of a way to something that nobody may have.
fn spellings() -> BTreeSet<Vec<u8>> {
    let below = format!("{ROMEO_FOLDER}/Abcdefghijk12");
    let mut found = BTreeSet::new();
    for dot in DOTS {
        for slash in SLASHES {
            let up = format!("{dot}{dot}{slash}");
            for way in [
                format!("{up}outside.txt"),
                format!("{below}{slash}{up}{up}{up}outside.txt"),
                format!("{ROMEO_FOLDER}{slash}{up}{dot}upslot{slash}slot_secret"),
                format!("{dot}upslot{slash}slot_secret"),
                format!("{dot}upslot{slash}share{slash}alias"),
                format!("{dot}upslot{slash}gone{slash}00"),
                format!("{dot}well-known{slash}acme"),
                format!("{ROMEO_FOLDER}{slash}{dot}hidden"),
                format!("{below}{slash}{dot}hidden{slash}x"),
                format!("{slash}etc{slash}passwd"),
            ] {
                found.insert(raw(&way));
            }
        }
        for tail in TAILS {
            found.insert(raw(&format!("{dot}{dot}/outside.txt{tail}")));
            found.insert(raw(&format!("{dot}upslot/slot_secret{tail}")));
            found.insert(raw(&format!("{dot}upslot{tail}/slot_secret")));
            found.insert(raw(&format!("{ROMEO_FOLDER}/{dot}hidden{tail}")));
        }
    }
    for length in [254, 255, 256, 4000] {
        let long = "x".repeat(length);
        found.insert(format!("{long}/../../outside.txt").into_bytes());
        found.insert(format!("{ROMEO_FOLDER}/{long}/.hidden").into_bytes());
        found.insert(format!("{}outside.txt", "../".repeat(length / 4)).into_bytes());
        found.insert(format!("{}outside.txt", "%2e%2e/".repeat(length / 8)).into_bytes());
        found.insert(format!("a{}/outside.txt", "/..".repeat(length / 4)).into_bytes());
    }
    found
}

/// Seeds what nobody may have; the site of the attempts.
fn beleaguered() -> Site {
    let mut site = every_door().start();
    site.program.allow("external_delete_secret");
    let store = site.store();
    seed(site.dir.path(), "outside.txt", CANARY);
    for path in [
        ".well-known/acme",
        ".dots",
        ".upslot/share/alias",
        &format!("{ROMEO_FOLDER}/.hidden"),
        &format!("{ROMEO_FOLDER}/Abcdefghijk12/.hidden/x"),
    ] {
        seed(&store, path, CANARY);
    }
    seed(
        &store,
        &format!("{ROMEO_FOLDER}/Abcdefghijk12/real.txt"),
        b"hello",
    );
    site
}

#[test]
fn no_spelling_of_a_path_leads_out_or_to_what_is_hidden() {
    let site = beleaguered();
    let secret = fs::read(site.store().join(".upslot/slot_secret")).unwrap();
    let before = untouchable(&site);
    let spellings = spellings();
    assert!(spellings.len() > 2000, "{}", spellings.len());
    let mut asker = Asker::new(&site);
    let (_, missing) = asker.ask("GET", b"/files/none", b"");
    for way in &spellings {
        for prefix in ["/files/", "/", "/files", "http://a/files/"] {
            let target = [prefix.as_bytes(), way].concat();
            let shown = || String::from_utf8_lossy(&target).into_owned();
            let (status, body) = asker.ask("GET", &target, b"");
            assert!(matches!(status, 400 | 404), "GET {}: {status}", shown());
            assert!(
                !contains(&body, CANARY) && !contains(&body, &secret),
                "{}",
                shown()
            );
            assert!(status == 400 || body == missing, "GET {}", shown());
        }
        let target = [b"/files/", &way[..]].concat();
        let (status, _) = asker.ask("HEAD", &target, b"");
        assert!(matches!(status, 400 | 404), "HEAD: {status}");
    }
    assert_eq!(untouchable(&site), before);
}

/// The same with a signature that is good for the path, as it is sent and decoded once and twice: whoever can make
/// the XMPP server sign anything gets no further than into the visible store.
#[test]
fn no_signature_leads_out_or_to_what_is_hidden() {
    let site = beleaguered();
    let before = untouchable(&site);
    let mut asker = Asker::new(&site);
    let decode = |bytes: &[u8]| percent_encoding::percent_decode(bytes).collect::<Vec<u8>>();
    let mut stored = 0;
    // The short form takes one in four.
    let step = if long() { 1 } else { 4 };
    for (number, way) in spellings().iter().enumerate().step_by(step) {
        let (once, twice) = (decode(way), decode(&decode(way)));
        let mut signed = vec![way, &once, &twice];
        signed.dedup();
        for path in signed {
            let shown = || String::from_utf8_lossy(way).into_owned();
            for (method, query) in [("PUT", signed_put(path)), ("DELETE", signed_delete(path))] {
                // Some with the prefix stripped.
                let prefix = if number % 3 == 0 { "/" } else { "/files/" };
                let target = [prefix.as_bytes(), way, b"?", query.as_bytes()].concat();
                let (status, _) = asker.ask(method, &target, b"owned");
                let expected = match method {
                    "PUT" => matches!(status, 201 | 400 | 401 | 403 | 409 | 414),
                    _ => matches!(status, 204 | 400 | 403 | 404 | 405 | 409 | 414),
                };
                assert!(expected, "{method} {}: {status}", shown());
                stored += usize::from(status == 201);
            }
        }
    }
    // Names that only look dangerous are names.
    assert!(stored > 20, "{stored}");
    let mut after = untouchable(&site);
    // What was removed again is remembered.
    after.retain(|path, _| !path.starts_with("store/.upslot/gone"));
    assert_eq!(after, before);
    let real = format!("/files/{ROMEO_FOLDER}/Abcdefghijk12/real.txt");
    assert_eq!(site.get(&real).is(200).body, b"hello");
}

/// What users and XMPP servers may put into names and addresses never adds a level to a path, and takes none away.
#[test]
fn names_and_addresses_stay_one_segment() {
    let mut site = every_door().start();
    site.program.allow("external_delete_secret");
    let before = untouchable(&site);
    let names = [
        "../../../outside.txt",
        "/etc/passwd",
        "..",
        ".",
        "...",
        ".upslot",
        ".htaccess",
        "a/../../b",
        "a\\..\\..\\b",
        "%2e%2e%2fb",
        "\u{ff0e}\u{ff0e}\u{ff0f}b",
        "\u{2024}\u{2024}\u{2215}b",
        "a\u{202e}gpj.exe",
        "C:\\con",
        "a::$DATA",
        "<script>alert(1)</script>.html",
        "' onload='alert(1)",
        "\"; filename=\"b.html",
        "a\r\nX-Evil: 1",
        "?size=1&until=2#",
    ];
    for name in names {
        let slot = site.slot(ROMEO, name.trim_matches(['\r', '\n']), 5, None);
        assert_eq!(slot.get.split('/').count(), 5, "{name:?}: {slot:?}");
        site.put(&slot, b"hello").is(201);
        let reply = site.get(&slot.get).is(200);
        assert_plain_fields(&reply.fields);
        let path = slot.stored_at();
        assert_eq!(path.components().count(), 3, "{path:?}");
        assert!(path.starts_with(ROMEO_FOLDER), "{path:?}");
    }
    for owner in [
        "..@montague.tld",
        ".upslot@montague.tld",
        "a\\b@montague.tld",
    ] {
        let slot = site.slot(owner, "a.txt", 5, None);
        site.put(&slot, b"hello").is(201);
        assert!(slot.stored_at().starts_with(owner_folder(owner)));
        assert_eq!(slot.stored_at().components().count(), 3, "{slot:?}");
    }
    // What stands in a token of the file share is the user's choice, too.
    for (number, name) in names.iter().enumerate() {
        let escaped: String = name
            .chars()
            .map(|c| format!("\\u{:04x}", c as u32))
            .collect();
        let claims = Claims::new(&format!("share-{number}")).with("filename", &escaped);
        let reply = claims.put(&site, b"hello");
        assert_eq!(reply.status, 201, "{name:?}: {}", reply.text());
        assert_plain_fields(&reply.fields);
        let got = site.get(&claims.target()).is(200);
        assert_plain_fields(&got.fields);
    }
    for slot in ["..", ".", ".upslot", "../../x", "a/b", "%2e%2e"] {
        let escaped: String = slot
            .chars()
            .map(|c| format!("\\u{:04x}", c as u32))
            .collect();
        let mut claims = Claims::new(&escaped);
        claims.target = format!(
            "/files/{}/x",
            percent_encoding::utf8_percent_encode(slot, percent_encoding::NON_ALPHANUMERIC)
        );
        let status = claims.put(&site, b"hello").status;
        assert!(matches!(status, 201 | 403), "{slot}: {status}");
    }
    for file in site.files() {
        let segments: Vec<&str> = file.split('/').collect();
        assert_eq!(segments.len(), 3, "{file}");
        assert!(!segments.iter().any(|part| part.starts_with('.')), "{file}");
    }
    let mut after = untouchable(&site);
    after.retain(|path, _| !path.starts_with("store/.upslot/share"));
    assert_eq!(after, before);
}

// --- Planted links ---------------------------------------------------------------------------------------------------

fn plant_node(at: &Path, kind: FileType, device: u64) -> bool {
    mknodat(CWD, at, kind, Mode::from_raw_mode(0o666), device).is_ok()
}

/// Links of every kind, at every level: nothing is read, written, counted or removed through them, and nothing hangs.
#[test]
fn planted_links_pipes_and_devices() {
    let outside_name = format!("outside/{ROMEO_FOLDER}/x/old.txt");
    let plan = every_door()
        .set("expire_interval", 1)
        .set("expire_maxage", 1000)
        .set("max_file_size", 100_000)
        .set("user_quota_hard", 100_000);
    let store = plan.store();
    let outside = plan.dir().join("outside");
    for path in ["secret.txt", "x/secret.txt"] {
        age(&seed(&outside, path, CANARY), 5000);
    }
    age(&seed(plan.dir(), &outside_name, CANARY), 5000);
    // Before the start, so that counting and sweeping meet them.
    let folder = store.join(ROMEO_FOLDER).join("Abcdefghijk12");
    age(&seed(&folder, "expired.txt", b"hello"), 5000);
    seed(&folder, "real.txt", b"hello");
    for (target, name) in [
        (outside.join("secret.txt"), "out.txt"),
        (PathBuf::from("real.txt"), "beside.txt"),
        (PathBuf::from("nowhere"), "broken.txt"),
        (PathBuf::from("loop.txt"), "loop.txt"),
        (PathBuf::from("/proc/self/environ"), "environ.txt"),
        (PathBuf::from("/proc/self/fd/0"), "magic.txt"),
        (store.join(".upslot/slot_secret"), "key.txt"),
        (PathBuf::from("/dev/zero"), "zero.txt"),
    ] {
        symlink(target, folder.join(name)).unwrap();
    }
    for (target, at) in [
        (outside.clone(), store.join("Linkedowner")),
        (store.join(".upslot"), store.join("Linkedsecret")),
        (PathBuf::from("."), store.join("Linkedself")),
        (PathBuf::from("/proc/self/cwd"), store.join("Linkedmagic")),
        (
            outside.join("x"),
            store.join(ROMEO_FOLDER).join("Linkedrandom"),
        ),
        (
            folder.clone(),
            store.join(ROMEO_FOLDER).join("Linkedinside"),
        ),
    ] {
        symlink(target, at).unwrap();
    }
    assert!(plant_node(&folder.join("pipe.txt"), FileType::Fifo, 0));
    assert!(plant_node(
        &store.join(ROMEO_FOLDER).join("Pipe"),
        FileType::Fifo,
        0
    ));
    assert!(plant_node(&store.join("Pipeowner"), FileType::Fifo, 0));
    // Only root makes devices.
    let devices = plant_node(
        &folder.join("device.txt"),
        FileType::CharacterDevice,
        makedev(1, 5),
    );
    if !devices {
        eprintln!("no devices were planted: not root");
    }
    let listener = std::os::unix::net::UnixListener::bind(folder.join("sock.txt")).unwrap();
    seed(&folder, "folder.txt/x", b"x");
    let hard = seed(&outside, "hard.txt", CANARY);
    fs::hard_link(&hard, folder.join("hard.txt")).unwrap();

    let before = snapshot(&outside);
    let mut site = plan.start();
    site.program.allow("external_delete_secret");
    eventually("the sweep", || !folder.join("expired.txt").exists());
    let below = format!("{ROMEO_FOLDER}/Abcdefghijk12");
    let mut paths: Vec<String> = [
        "out", "beside", "broken", "loop", "environ", "magic", "key", "zero", "pipe", "sock",
        "folder",
    ]
    .iter()
    .map(|name| format!("{below}/{name}.txt"))
    .collect();
    for path in [
        "Linkedowner/secret.txt",
        "Linkedowner/x/secret.txt",
        "Linkedsecret/slot_secret",
        "Linkedmagic/etc/passwd",
        "Pipeowner/x.txt",
    ] {
        paths.push(path.to_owned());
    }
    paths.push(format!("Linkedself/{below}/real.txt"));
    paths.push(format!("{ROMEO_FOLDER}/Linkedrandom/secret.txt"));
    paths.push(format!("{ROMEO_FOLDER}/Linkedinside/real.txt"));
    paths.push(format!("{ROMEO_FOLDER}/Pipe/x.txt"));
    paths.push(format!("Linkedowner/{ROMEO_FOLDER}/x/old.txt"));
    if devices {
        paths.push(format!("{below}/device.txt"));
    }
    let in_store = |site: &Site| {
        let mut all = snapshot(&site.store());
        all.retain(|path, _| !path.starts_with(".upslot/gone"));
        all
    };
    site.program.allow("owner folder cannot be used");
    let planted = in_store(&site);
    let mut asker = Asker::new(&site);
    for path in &paths {
        for method in ["GET", "HEAD"] {
            let (status, body) = asker.ask(method, format!("/files/{path}").as_bytes(), b"");
            assert_eq!(status, 404, "{method} {path}");
            assert!(!contains(&body, CANARY), "{path}");
        }
        let target = format!("/files/{path}?{}", signed_put(path.as_bytes()));
        let (status, _) = asker.ask("PUT", target.as_bytes(), b"owned");
        assert!(matches!(status, 409 | 503), "PUT {path}: {status}");
        // What is no file cannot be removed from here.
        let target = format!("/files/{path}?{}", signed_delete(path.as_bytes()));
        let (status, _) = asker.ask("DELETE", target.as_bytes(), b"");
        assert!(matches!(status, 404 | 503), "DELETE {path}: {status}");
        assert_eq!(snapshot(&outside), before, "{path}");
    }
    // Through a linked folder nothing new is made, either.
    for path in [
        "Linkedowner/new/a.txt",
        "Linkedsecret/a.txt",
        "Linkedmagic/tmp/a.txt",
    ] {
        let target = format!("/files/{path}?{}", signed_put(path.as_bytes()));
        let (status, _) = asker.ask("PUT", target.as_bytes(), b"owned");
        assert!(matches!(status, 409 | 503), "PUT {path}: {status}");
    }
    assert_eq!(snapshot(&outside), before);
    assert_eq!(in_store(&site), planted);
    // A hard link is a file of the store like any other: read, never written to, and only its name is removed.
    let hard = format!("{below}/hard.txt");
    assert_eq!(site.get(&format!("/files/{hard}")).is(200).body, CANARY);
    let target = format!("/files/{hard}?{}", signed_put(hard.as_bytes()));
    assert_eq!(asker.ask("PUT", target.as_bytes(), b"owned").0, 409);
    let target = format!("/files/{hard}?{}", signed_delete(hard.as_bytes()));
    assert_eq!(asker.ask("DELETE", target.as_bytes(), b"").0, 204);
    assert!(!folder.join("hard.txt").exists());
    assert_eq!(snapshot(&outside), before);

    // Slots of our own, with something in their way.
    for kind in ["link", "dangling link", "pipe", "folder", "hard link"] {
        let slot = site.slot(ROMEO, "a.txt", 5, None);
        let file = site.store().join(slot.stored_at());
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        match kind {
            "link" => symlink(outside.join("secret.txt"), &file).unwrap(),
            "dangling link" => symlink(outside.join("new.txt"), &file).unwrap(),
            "pipe" => assert!(plant_node(&file, FileType::Fifo, 0)),
            "folder" => fs::create_dir(&file).unwrap(),
            _ => fs::hard_link(outside.join("secret.txt"), &file).unwrap(),
        }
        site.put(&slot, b"owned").is(409);
        assert_eq!(snapshot(&outside), before, "{kind}");
    }
    for level in 1..=2 {
        let owner = format!("level{level}@montague.tld");
        let slot = site.slot(&owner, "a.txt", 5, None);
        let at = slot.stored_at().iter().take(level).collect::<PathBuf>();
        let at = site.store().join(at);
        if level == 2 {
            fs::create_dir(at.parent().unwrap()).unwrap();
        }
        symlink(&outside, &at).unwrap();
        let status = site.put(&slot, b"owned").status;
        assert!(matches!(status, 409 | 503), "level {level}: {status}");
        assert_eq!(snapshot(&outside), before, "level {level}");
        fs::remove_file(&at).unwrap();
        site.put(&slot, b"hello").is(201);
    }
    drop(listener);
    let slot = site.slot(ROMEO, "still.txt", 5, None);
    site.put(&slot, b"hello").is(201);
}

/// The storage folder itself may be a link: it is the operator's choice. One that is turned elsewhere is followed.
#[test]
fn the_storage_folder_may_be_a_link() {
    let plan = Plan::new();
    let (link, one, two) = (
        plan.dir().join("link"),
        plan.dir().join("one"),
        plan.dir().join("two"),
    );
    for folder in [&one, &two] {
        fs::create_dir(folder).unwrap();
    }
    symlink(&one, &link).unwrap();
    let mut site = plan.set("storage_path", link.display()).start();
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    site.put(&slot, b"hello").is(201);
    assert!(one.join(slot.stored_at()).is_file());
    site.program.allow("storage folder replaced");
    fs::remove_file(&link).unwrap();
    symlink(&two, &link).unwrap();
    eventually("the other folder", || {
        let slot = site.slot(ROMEO, "b.txt", 5, None);
        site.put(&slot, b"hello").is(201);
        two.join(slot.stored_at()).is_file()
    });
    // Upslot's own folder may not.
    let plan = Plan::alone();
    let elsewhere = plan.dir().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, plan.store().join(".upslot")).unwrap();
    let config = plan.dir().join("config.yml");
    fs::write(
        &config,
        format!(
            "storage_path: {}\nhttp_port: 0\nget_url: https://a/\nput_url: https://a/\n",
            plan.store().display()
        ),
    )
    .unwrap();
    let (code, said) = crate::harness::program::run(&["-c", config.to_str().unwrap()], plan.dir());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(".upslot"), "{said}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

/// Set when it goes, so that a thread that waits for it ends with a test that fails, too.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Somebody who may write into the store removes the folder of an upload and puts a link in its place, over and over,
/// while the upload is stored.
#[test]
fn a_link_planted_while_a_file_gets_its_name() {
    for fsync in [false, true] {
        let mut site = Plan::new().set("fsync", fsync).start();
        site.program.allow("store failed");
        let outside = site.dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let slots: Vec<Slot> = (0..if long() { 2000 } else { 150 })
            .map(|_| site.slot(ROMEO, "a.txt", 5, None))
            .collect();
        let contested = Mutex::new(None::<PathBuf>);
        let over = AtomicBool::new(false);
        fs::create_dir_all(site.store().join(ROMEO_FOLDER)).unwrap();
        let mut stored = 0;
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let Some(folder) = contested.lock().unwrap().clone() else {
                        thread::yield_now();
                        continue;
                    };
                    for _ in 0..50 {
                        let _ = fs::remove_dir(&folder);
                        if symlink(&outside, &folder).is_ok() {
                            let _ = fs::remove_file(&folder);
                        }
                    }
                }
            });
            let _end = Raise(&over);
            for slot in &slots {
                let folder = site.store().join(slot.stored_at());
                *contested.lock().unwrap() = Some(folder.parent().unwrap().to_owned());
                let status = site.put(slot, b"hello").status;
                assert!(matches!(status, 201 | 409 | 503), "{status}");
                stored += usize::from(status == 201);
            }
        });
        assert_eq!(
            fs::read_dir(&outside).unwrap().count(),
            0,
            "{stored} stored"
        );
    }
}

// --- Answers and the log ---------------------------------------------------------------------------------------------

/// A token of the file share; values go in as they are, escapes and all.
#[derive(Clone)]
struct Claims {
    fields: Vec<(String, String)>,
    target: String,
}

impl Claims {
    fn new(slot: &str) -> Claims {
        let now = unix_now();
        let fields = [
            ("iat", now.to_string()),
            ("exp", (now + 300).to_string()),
            ("sub", format!("\"{ROMEO}\"")),
            ("slot", format!("\"{slot}\"")),
            ("filename", "\"a.txt\"".to_owned()),
            ("filesize", "5".to_owned()),
            ("filetype", "\"text/plain\"".to_owned()),
        ];
        Claims {
            fields: fields
                .map(|(name, value)| (name.to_owned(), value))
                .to_vec(),
            target: format!("/files/{slot}/a.txt"),
        }
    }

    /// With another text.
    fn with(self, name: &str, text: &str) -> Claims {
        self.with_raw(name, &format!("\"{text}\""))
    }

    /// With another value.
    fn with_raw(mut self, name: &str, value: &str) -> Claims {
        self.fields.retain(|(other, _)| other != name);
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    fn without(mut self, name: &str) -> Claims {
        self.fields.retain(|(other, _)| other != name);
        self
    }

    fn json(&self) -> String {
        let fields: Vec<String> = self
            .fields
            .iter()
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        format!("{{{}}}", fields.join(","))
    }

    fn token(&self) -> String {
        token_of(r#"{"alg":"HS256","typ":"JWT"}"#, &self.json())
    }

    fn target(&self) -> String {
        self.target.clone()
    }

    #[track_caller]
    fn put(&self, site: &Site, body: &[u8]) -> crate::harness::Reply {
        let authorization = format!("Bearer {}", self.token());
        site.client().ask(
            "PUT",
            &self.target,
            &[("Authorization", &authorization)],
            body,
        )
    }
}

fn token_of(header: &str, payload: &str) -> String {
    let signed = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(header.as_bytes()),
        BASE64URL_NOPAD.encode(payload.as_bytes())
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
    let tag = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
}

/// Sends bytes and takes everything that comes back.
#[track_caller]
fn raw_answer(site: &Site, bytes: &[u8]) -> Vec<u8> {
    let mut client = site.client();
    client.send(bytes);
    client.shut_write();
    client.drain()
}

/// Exactly one head, of lines that are what upslot writes, whatever stands behind it.
#[track_caller]
fn assert_one_sound_head(answer: &[u8]) -> Vec<(String, String)> {
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap_or_else(|| panic!("no head in {}", answer.escape_ascii()));
    let head = &answer[..end];
    for (at, byte) in head.iter().enumerate() {
        let sound = match byte {
            b'\r' => head.get(at + 1) == Some(&b'\n'),
            b'\n' => head[..at].last() == Some(&b'\r'),
            byte => (b' '..=b'~').contains(byte),
        };
        assert!(sound, "byte {at} of {}", head.escape_ascii());
    }
    let head = std::str::from_utf8(head).unwrap();
    let fields: Vec<(String, String)> = head
        .split("\r\n")
        .skip(1)
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap_or((line, ""));
            (name.to_owned(), value.to_owned())
        })
        .collect();
    assert_plain_fields(&fields);
    fields
}

/// Texts that end a line, a field or an element, or that look different from what they are.
const EVIL: [&str; 14] = [
    "a\r\nX-Evil: 1",
    "a\nX-Evil: 1",
    "a\rX-Evil: 1",
    "a\r\n\r\n<script>alert(1)</script>",
    "a\u{85}X-Evil: 1",
    "a\u{2028}X-Evil: 1\u{2029}b",
    "a\u{1b}[2K\u{1b}[31mX-Evil",
    "a\u{202e}\u{2066}gpj.exe",
    "a\0b",
    "a\u{7f}b\u{8}\u{c}",
    "a\"; X=\"b",
    "a\\\"b\\",
    "\u{feff}a\u{200b}\u{ad}b",
    "a%0d%0aX-Evil:%201",
];

#[test]
fn names_and_types_end_no_field_of_an_answer() {
    let mut site = every_door().start();
    site.program.allow("external_delete_secret");
    let get = |target: &str, more: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: a\r\n{more}Connection: close\r\n\r\n").into_bytes()
    };
    let escape = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    for (number, evil) in EVIL.iter().enumerate() {
        // As a name that the XMPP server signed, and that nobody cleaned.
        let path = format!("folder{number}/{evil}");
        let target = format!("/files/folder{number}/{}", escape(evil));
        let put = format!(
            "PUT {target}?{} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
            signed_put(path.as_bytes())
        );
        let answer = raw_answer(&site, put.as_bytes());
        let fields = assert_one_sound_head(&answer);
        let stored = answer.starts_with(b"HTTP/1.1 201 ");
        assert!(
            stored || evil.contains(['\0', '/']),
            "{}",
            answer.escape_ascii()
        );
        if stored {
            assert!(fields.iter().any(|(name, _)| name == "Location"));
        }
        for more in [
            "",
            "Range: bytes=0-1\r\n",
            "Range: bytes=0-0,2-2\r\n",
            "If-None-Match: *\r\n",
        ] {
            let answer = raw_answer(&site, &get(&target, more));
            assert_one_sound_head(&answer);
            assert!(!contains(&answer, b"\nX-Evil"), "{}", answer.escape_ascii());
        }
        // As the type that a file keeps: no valid one, so that the extension decides.
        let path = format!("{ROMEO_FOLDER}/kept{number}/a.png");
        let file = seed(&site.store(), &path, b"hello");
        for kind in [
            format!("image/{evil}"),
            format!("text/html; charset={evil}"),
            format!("text/html; charset=\"{evil}\""),
            (*evil).to_owned(),
            format!("image/png{}", evil.trim_start_matches('a')),
        ] {
            if !set_kept_type(&file, kind.as_bytes()) {
                eprintln!("no kept types were tried: no extended attributes here");
                break;
            }
            for more in ["", "Range: bytes=0-0,2-2\r\n"] {
                let answer = raw_answer(&site, &get(&format!("/files/{path}"), more));
                assert_one_sound_head(&answer);
                assert!(!contains(&answer, b"\nX-Evil"), "{}", answer.escape_ascii());
            }
        }
        // As the name and the type of a slot, and of a token.
        let xml_safe: String = evil
            .chars()
            .filter(|c| !c.is_control() || matches!(c, '\r' | '\n' | '\u{85}'))
            .collect();
        let slot = site.slot(ROMEO, &xml_safe, 5, Some(&format!("image/{xml_safe}")));
        let put = format!(
            "PUT {} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
            slot.put
        );
        let answer = raw_answer(&site, put.as_bytes());
        assert!(
            answer.starts_with(b"HTTP/1.1 201 "),
            "{}",
            answer.escape_ascii()
        );
        assert_one_sound_head(&answer);
        let answer = raw_answer(&site, &get(&slot.get, ""));
        assert_one_sound_head(&answer);
        let json: String = evil
            .chars()
            .map(|c| format!("\\u{:04x}", c as u32))
            .collect();
        let claims = Claims::new(&format!("t{number}"))
            .with("filename", &json)
            .with("filetype", &format!("text/html{json}"));
        claims.put(&site, b"hello").is(201);
        let answer = raw_answer(&site, &get(&claims.target(), ""));
        assert_one_sound_head(&answer);
        assert!(!contains(&answer, b"\nX-Evil"), "{}", answer.escape_ascii());
    }
    // Nor does what a request says come back in a head.
    for evil in [
        "\u{202e}x",
        "a\tb",
        "\"'<>&;,",
        "https://evil.example\u{a0}x",
    ] {
        for name in [
            "Origin",
            "Host",
            "Referer",
            "User-Agent",
            "Range",
            "If-Range",
            "Expect",
            "Cookie",
        ] {
            let bytes = format!(
                "GET /files/none HTTP/1.1\r\n{}{name}: {evil}marker\r\nConnection: close\r\n\r\n",
                if name == "Host" { "" } else { "Host: a\r\n" }
            );
            let answer = raw_answer(&site, bytes.as_bytes());
            assert_one_sound_head(&answer);
            assert!(
                !contains(&answer, b"marker"),
                "{name}: {}",
                answer.escape_ascii()
            );
        }
    }
}

/// What ends a line or turns the direction of writing for whoever reads the log.
fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0001}'..='\u{e007f}'
        )
}

/// One event is one line of the log, with nothing in it that a terminal or a reader could take for something else, and
/// no longer than a line may be, whoever wrote the text.
#[test]
fn one_event_is_one_line_of_the_log() {
    const LONGEST: usize = 4200;
    const FORGED: &str = "2026-01-01T00:00:00.000Z ERROR forged why=\"it was\"";
    let mut site = every_door()
        .set("log_level", "trace")
        .set("trusted_proxies", "[127.0.0.0/8]")
        .set("allowed_file_types", "[image/*, text/*]")
        .set("expire_interval", 1)
        .set("expire_maxage", 1000)
        .start();
    for part in ["external_delete_secret", "link down", "file not removed"] {
        site.program.allow(part);
    }
    let mut evils: Vec<String> = EVIL.iter().map(|evil| (*evil).to_owned()).collect();
    for end in [
        "\n",
        "\r\n",
        "\r",
        "\u{85}",
        "\u{2028}",
        "\u{b}",
        "\u{c}",
        "\u{1b}c\u{1b}[1F",
    ] {
        evils.push(format!("x\"{end}{FORGED}"));
    }
    evils.push("\u{1d}\u{e0041}\u{fffb}\u{61c}x".to_owned());
    evils.push("y".repeat(7000));
    evils.push("\u{202e}".repeat(2000));
    evils.push("\"".repeat(7000));
    evils.push("\\".repeat(7000));
    let escape = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let mut number = 0;
    for evil in &evils {
        number += 1;
        let one_line: String = evil
            .chars()
            .map(|c| {
                if matches!(c, '\r' | '\n' | '\0') {
                    ' '
                } else {
                    c
                }
            })
            .collect();
        // In paths, encoded and raw, of all methods, and in the method.
        let encoded = escape(evil);
        for method in ["GET", "PUT", "DELETE", "POST", "BREW"] {
            for target in [
                format!("/files/{encoded}"),
                format!("/files/{}", one_line.replace(' ', "")),
                format!("/files/a/b?{encoded}&sig=x"),
            ] {
                let line = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n");
                raw_answer(&site, line.as_bytes());
            }
        }
        raw_answer(
            &site,
            format!("{evil} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(),
        );
        raw_answer(&site, format!("GET / {evil}\r\nHost: a\r\n\r\n").as_bytes());
        // In fields.
        for name in [
            "Host",
            "User-Agent",
            "X-Forwarded-For",
            "Forwarded",
            "Content-Type",
            "Authorization",
            "Range",
            "Expect",
            "Transfer-Encoding",
            "Content-Length",
        ] {
            for method in ["GET", "PUT"] {
                let head =
                    format!("{method} /files/a/b HTTP/1.1\r\nHost: a\r\n{name}: {evil}\r\n\r\n");
                raw_answer(&site, head.as_bytes());
                let head = format!(
                    "{method} /files/a/b HTTP/1.1\r\nHost: a\r\n{name}: {one_line}\r\n\r\n"
                );
                raw_answer(&site, head.as_bytes());
            }
        }
        // In the type of a PUT that differs from its slot's.
        let slot = site.slot(ROMEO, "a.png", 5, Some("image/png"));
        let head = format!(
            "PUT {} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Type: {one_line}\r\n\r\nhello",
            slot.put
        );
        raw_answer(&site, head.as_bytes());
        // In what users and other servers name.
        if evil.len() < 255 && !evil.contains('\0') {
            let path = format!("log{number}/{evil}.png");
            let target = format!("/files/log{number}/{encoded}%2Epng");
            let query = signed_put(path.as_bytes());
            site.client()
                .ask("PUT", &format!("{target}?{query}"), &[], b"hello");
            let query = signed_delete(path.as_bytes());
            site.client()
                .ask("DELETE", &format!("{target}?{query}"), &[], b"");
            // A file that the sweep removes.
            let name = evil.replace('/', "_");
            age(
                &seed(
                    &site.store(),
                    &format!("{ROMEO_FOLDER}/log{number}/{name}"),
                    b"x",
                ),
                5000,
            );
        }
        let xml_safe: String = evil
            .chars()
            .filter(|c| !c.is_control() || matches!(c, '\r' | '\n' | '\u{85}'))
            .take(2000)
            .collect();
        let _ = site.ask(ROMEO, &xml_safe, 5, Some("image/png"), "");
        let _ = site.ask(ROMEO, "a.png", 5, Some(&xml_safe), "");
        let _ = site.ask(ROMEO, &xml_safe, 99_999_999_999, Some(&xml_safe), "");
        site.ask_api(&format!(
            "/slot/?jid={encoded}@montague.tld&name={encoded}&size=5"
        ));
        site.ask_api(&format!(
            "/slot/?jid={ROMEO}&name={encoded}&size=5&type={encoded}"
        ));
        site.ask_api(&format!("/max_size/?jid={encoded}&output={encoded}"));
        site.ask_api(&format!("/{encoded}"));
        // In addresses, of which not all are addresses.
        let local: String = xml_safe
            .chars()
            .filter(|c| !c.is_whitespace() && !"'\"<>&@/".contains(*c))
            .take(1000)
            .collect();
        for owner in [
            format!("x{local}@evil.tld"),
            format!("x{local}@montague.tld"),
            format!("x@evil{local}.tld"),
        ] {
            if owner.len() < 1000 {
                let _ = site.ask(&owner, "a.png", 5, Some("image/png"), "");
            }
        }
    }
    // In what the XMPP server says when it ends the stream.
    for text in [evils.concat(), "\u{202e}".repeat(5000)] {
        let text: String = text
            .chars()
            .filter(|c| !c.is_control() || matches!(c, '\r' | '\n' | '\u{85}'))
            .take(5000)
            .collect();
        let text = crate::harness::xml::escape(&text);
        site.link().send_to_deaf(
            format!(
                "<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
                 <text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>{text}</text></stream:error></stream:stream>"
            )
            .as_bytes(),
        );
        site.link().gone();
        site.relink();
    }
    site.program.wait_line(&["link down ", "policy-violation"]);
    eventually("the sweep", || {
        !site
            .files()
            .iter()
            .any(|file| file.starts_with(&format!("{ROMEO_FOLDER}/log")))
    });
    site.program.wait_line(&["file expired "]);
    let lines = site.program.lines();
    assert!(lines.len() > 1000, "{}", lines.len());
    for line in lines {
        assert!(line.len() <= LONGEST, "{} bytes: {line}", line.len());
        assert!(!line.chars().any(is_treacherous), "{line:?}");
        assert!(!line.starts_with(&FORGED[..25]), "{line}");
        assert!(
            !line.contains('\u{fffd}') || !line.contains("ERROR"),
            "{line}"
        );
    }
}

// --- Slots -----------------------------------------------------------------------------------------------------------

/// The parameters of a slot's query, in their order.
fn parameters(slot: &Slot) -> Vec<(String, String)> {
    let (_, query) = slot.put.split_once('?').unwrap();
    query
        .split('&')
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

fn target_of(path: &str, parameters: &[(String, String)]) -> String {
    let query: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    format!("{path}?{}", query.join("&"))
}

/// Of two real slots, each part of one in the place of the other's: no mixture is good.
#[test]
fn no_part_of_a_slot_fits_another() {
    let mut site = Plan::new()
        .set(
            "access",
            "[{jid: '^romeo@', max_total_size: 100000}, {jid: '^benvolio@', max_total_size: 200000}, {jid: .}]",
        )
        .set("purposes", "{message: {}, ephemeral: {}, permanent: {}}")
        .start();
    let later = unix_now() + 3600;
    let (before, permanent) = (until(later), inside("permanent"));
    let slots = [
        site.slot(ROMEO, "a.txt", 5, Some("text/plain")),
        site.slot(ROMEO, "a.txt", 5, Some("text/plain")),
        site.slot(ROMEO, "b.txt", 5, Some("text/plain")),
        site.slot(ROMEO, "a.txt", 6, Some("text/plain")),
        site.slot(ROMEO, "a.txt", 5, Some("text/html")),
        site.slot(ROMEO, "a.txt", 5, None),
        site.slot("benvolio@montague.tld", "a.txt", 5, Some("text/plain")),
        site.slot(JULIET, "a.txt", 5, Some("text/plain")),
        site.ask(ROMEO, "a.txt", 5, Some("text/plain"), &before)
            .unwrap(),
        site.ask(ROMEO, "a.txt", 5, Some("text/plain"), &permanent)
            .unwrap(),
    ];
    // Another moment, so that the lapse differs, too.
    eventually("the next second", || {
        let slot = site.slot(ROMEO, "a.txt", 5, Some("text/plain"));
        parameters(&slot) != parameters(&slots[0]) && slot.put.contains("until=")
    });
    let late = site.slot(ROMEO, "a.txt", 5, Some("text/plain"));
    let all: Vec<&Slot> = slots.iter().chain([&late]).collect();
    let mut tried = 0;
    let mut client = site.client();
    let mut refuse = |target: &str, size: usize| {
        tried += 1;
        client.ask("PUT", target, &[], &vec![b'x'; size]).is(403);
    };
    for one in &all {
        for other in &all {
            if one == other {
                continue;
            }
            let (mine, others) = (parameters(one), parameters(other));
            // The path of one, all the rest of the other; and the other way round.
            for size in [5, 6] {
                refuse(&target_of(one.put_path(), &others), size);
            }
            // A folder or a name of the other's.
            let (a, b): (Vec<&str>, Vec<&str>) = (
                one.put_path().split('/').collect(),
                other.put_path().split('/').collect(),
            );
            for at in 2..a.len() {
                let mut mixed = a.clone();
                mixed[at] = b[at];
                if mixed != a {
                    refuse(&target_of(&mixed.join("/"), &mine), 5);
                }
            }
            // Each parameter by itself: another's value, one more, one less.
            for name in ["size", "type", "total", "until", "sig"] {
                let value = others.iter().find(|(other, _)| other == name);
                let mut mixed = mine.clone();
                mixed.retain(|(other, _)| other != name);
                mixed.extend(value.cloned());
                let mut sorted = (mixed.clone(), mine.clone());
                sorted.0.sort();
                sorted.1.sort();
                if sorted.0 != sorted.1 {
                    refuse(&target_of(one.put_path(), &mixed), 5);
                    refuse(&target_of(one.put_path(), &mixed), 6);
                }
            }
        }
    }
    assert!(tried > 500, "{tried}");
    assert!(site.files().is_empty(), "{:?}", site.files());
    // Every bit of a signature counts, and it has one spelling.
    let (path, mine) = (late.put_path(), parameters(&late));
    let signature = &mine.iter().find(|(name, _)| name == "sig").unwrap().1;
    let tag = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    let with = |signature: &str| {
        let mut forged = mine.clone();
        for (name, value) in &mut forged {
            if name == "sig" {
                signature.clone_into(value);
            }
        }
        target_of(path, &forged)
    };
    let mut client = site.client();
    for bit in 0..tag.len() * 8 {
        let mut tag = tag.clone();
        tag[bit / 8] ^= 1 << (bit % 8);
        client
            .ask("PUT", &with(&BASE64URL_NOPAD.encode(&tag)), &[], b"hello")
            .is(403);
    }
    for other in [
        format!("{signature}="),
        format!("{signature}%3D"),
        signature.replace('-', "+").replace('_', "/") + "A",
        HEXLOWER.encode(&tag),
        format!("%{:02x}{}", signature.as_bytes()[0], &signature[1..]),
        signature[..signature.len() - 1].to_owned() + "_",
        String::new(),
    ] {
        client.ask("PUT", &with(&other), &[], b"hello").is(403);
    }
    client.ask("PUT", &late.put, &[], b"hello").is(201);
}

/// The same of other servers' signatures: every bit, and every field for itself.
#[test]
fn no_signature_of_another_server_fits_another_upload() {
    let site = every_door().start();
    let mut site = site;
    site.program.allow("external_delete_secret");
    let mut client = site.client();
    let mut number = 0;
    for scheme in ["v", "v2", "token"] {
        number += 1;
        let path = format!("{ROMEO_FOLDER}/external{number}/a.txt");
        let message = match scheme {
            "v" => format!("{path} 5"),
            _ => format!("{path}\x005\0text/plain"),
        };
        let good = hex(message.as_bytes());
        let tag = HEXLOWER.decode(good.as_bytes()).unwrap();
        let plain = [("Content-Type", "text/plain")];
        for bit in 0..tag.len() * 8 {
            let mut tag = tag.clone();
            tag[bit / 8] ^= 1 << (bit % 8);
            let target = format!("/files/{path}?{scheme}={}", HEXLOWER.encode(&tag));
            client.ask("PUT", &target, &plain, b"hello").is(403);
        }
        let juliets = owner_folder(JULIET);
        for (path, body) in [
            (path.replace(ROMEO_FOLDER, &juliets), &b"hello"[..]),
            (path.replace("external", "External"), b"hello"),
            (path.replace("a.txt", "b.txt"), b"hello"),
            (path.replace("a.txt", "a.txt%20"), b"hello"),
            (path.replace("a.txt", "A.TXT"), b"hello"),
            (format!("{path}/a.txt"), b"hello"),
            (path.clone(), b"hello!"),
            (path.clone(), b"hell"),
            (path.clone(), b""),
        ] {
            let target = format!("/files/{path}?{scheme}={good}");
            client.ask("PUT", &target, &plain, body).is(403);
        }
        // In no other place, and under no other name.
        for target in [
            format!("/files/{path}?sig={good}"),
            format!("/files/{path}?{}={good}", scheme.to_uppercase()),
            format!("/files/{path}?%76={good}"),
            format!("/files/{path};{scheme}={good}"),
            format!("/files/{path}?x={scheme}={good}"),
            format!("/files/{path}?{scheme}={good}%00"),
            format!("/files/{path}?{scheme}=0x{good}"),
            format!("/files/{path}?{scheme}[]={good}"),
        ] {
            let status = client.ask("PUT", &target, &plain, b"hello").status;
            assert!(matches!(status, 401 | 403), "{target}: {status}");
        }
        let target = format!("/files/{path}?{scheme}={good}");
        client.ask("DELETE", &target, &[], b"").is(403);
        client.ask("PUT", &target, &plain, b"hello").is(201);
        client.ask("PUT", &target, &plain, b"HELLO").is(409);
        assert_eq!(client.get(&format!("/files/{path}")).is(200).body, b"hello");
    }
    assert_eq!(site.files().len(), 3);
}

#[test]
fn no_token_fits_another_upload() {
    let mut site = every_door().start();
    site.program.allow("external_delete_secret");
    let good = Claims::new("slot");
    let json = good.json();
    let mut tried = 0;
    let mut refuse = |what: &str, token: &str, target: &str, body: &[u8]| {
        tried += 1;
        let authorization = format!("Bearer {token}");
        let fields = [("Authorization", authorization.as_str())];
        let status = site.client().ask("PUT", target, &fields, body).status;
        assert!(
            matches!(status, 400 | 401 | 403 | 413 | 415),
            "{what}: {status}"
        );
    };
    let target = good.target();
    let token = good.token();
    // Every bit of the signature, and one of each byte of the rest.
    let (signed, tag) = token.rsplit_once('.').unwrap();
    let tag = BASE64URL_NOPAD.decode(tag.as_bytes()).unwrap();
    for bit in 0..tag.len() * 8 {
        let mut tag = tag.clone();
        tag[bit / 8] ^= 1 << (bit % 8);
        let token = format!("{signed}.{}", BASE64URL_NOPAD.encode(&tag));
        refuse("a bit of the signature", &token, &target, b"hello");
    }
    // Algorithms.
    for alg in [
        "none", "None", "NONE", "HS384", "HS512", "RS256", "ES256", "hs256", "Hs256", "HS256 ", "",
    ] {
        let header = format!("{{\"alg\":\"{alg}\",\"typ\":\"JWT\"}}");
        let token = token_of(&header, &json);
        refuse(alg, &token, &target, b"hello");
        let (signed, _) = token.rsplit_once('.').unwrap();
        refuse(alg, &format!("{signed}."), &target, b"hello");
        refuse(alg, signed, &target, b"hello");
    }
    for header in [
        r#"{"typ":"JWT"}"#,
        r#"{"alg":null,"typ":"JWT"}"#,
        r#"{"alg":["HS256"],"typ":"JWT"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"ALG":"HS256"}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","typ":"at+jwt"}"#,
        "",
    ] {
        refuse(header, &token_of(header, &json), &target, b"hello");
    }
    // Claims: missing, twice, of the wrong kind, of another time.
    for name in ["exp", "slot", "filesize"] {
        let claims = good.clone().without(name);
        refuse(name, &claims.token(), &target, b"hello");
    }
    for (name, value) in &good.fields {
        let doubled = json.replace('}', &format!(",\"{name}\":{value}}}"));
        refuse(
            name,
            &token_of(r#"{"alg":"HS256"}"#, &doubled),
            &target,
            b"hello",
        );
    }
    let now = unix_now();
    for (name, value) in [
        ("exp", "0"),
        ("exp", "-1"),
        ("exp", "1e99"),
        ("exp", "\"9999999999\""),
        ("exp", "null"),
        ("exp", "99999999999999999999999"),
        ("exp", "true"),
        ("nbf", "9999999999"),
        ("iat", "9999999999"),
        ("aud", "\"elsewhere\""),
        ("filesize", "-5"),
        ("filesize", "5.5"),
        ("filesize", "\"5\""),
        ("filesize", "4"),
        ("filesize", "6"),
        ("filesize", "[5]"),
        ("slot", "\"slo\""),
        ("slot", "\"slot \""),
        ("slot", "\"SLOT\""),
        ("slot", "\"slot\\u0000\""),
        ("slot", "5"),
        ("slot", "\"\""),
        ("sub", "5"),
        ("sub", "\"a@b@c\""),
        ("sub", "\"\""),
        ("expires", "1"),
    ] {
        let claims = good.clone().with_raw(name, value);
        refuse(
            &format!("{name}: {value}"),
            &claims.token(),
            &target,
            b"hello",
        );
    }
    let lapsed = good.clone().with_raw("exp", &(now - 1).to_string());
    refuse("lapsed", &lapsed.token(), &target, b"hello");
    // Spellings.
    for token in [
        format!("{token}="),
        format!("{token}=="),
        token.replace('-', "+").replace('_', "/") + "+",
        format!("{token}.{token}"),
        format!(" {token}"),
        format!("{token}\t{token}"),
        token.to_uppercase(),
        token.replacen('.', "%2E", 1),
    ] {
        if token != good.token() && token.trim() != good.token() {
            refuse(&token, &token, &target, b"hello");
        }
    }
    // Other uploads.
    for (target, body) in [
        ("/files/slot2/a.txt", &b"hello"[..]),
        ("/files/slot/a.txt/b", b"hello"),
        ("/files/slot", b"hello"),
        ("/files/Slot/a.txt", b"hello"),
        ("/files/slot/a.txt", b"hello!"),
        ("/files/slot/a.txt", b"hell"),
        ("/files/slot/a.txt", b""),
    ] {
        refuse(target, &token, target, body);
    }
    let bearer = format!("Bearer {token}");
    let kind = [("Authorization", &*bearer), ("Content-Type", "text/html")];
    site.client().ask("PUT", &target, &kind, b"hello").is(415);
    // In no other place.
    for target in [
        format!("{target}?token={token}"),
        format!("{target}?access_token={token}"),
        format!("{target}?jwt={token}"),
    ] {
        let status = site.client().ask("PUT", &target, &[], b"hello").status;
        assert!(matches!(status, 401 | 403), "{target}: {status}");
    }
    for name in [
        "Cookie",
        "X-Authorization",
        "Proxy-Authorization",
        "WWW-Authenticate",
    ] {
        let status = site
            .client()
            .ask("PUT", &target, &[(name, &bearer)], b"hello")
            .status;
        assert!(matches!(status, 401 | 403), "{name}: {status}");
    }
    assert!(tried > 300, "{tried}");
    assert!(site.files().is_empty(), "{:?}", site.files());
    good.put(&site, b"hello").is(201);
    good.put(&site, b"HELLO").is(409);
    // A file is in its own uploader's folder, whatever the slot is called.
    let claims = Claims::new(&owner_folder(JULIET)).with("filename", "x.txt");
    claims.put(&site, b"hello").is(201);
    assert!(
        site.files()
            .iter()
            .all(|file| file.starts_with(ROMEO_FOLDER)),
        "{:?}",
        site.files()
    );
}

/// A slot makes one file: not again after its end, nor after its removal by whatever way, nor by a PUT that was begun
/// before.
#[test]
fn a_slot_is_not_good_again_when_its_file_is_gone() {
    let mut site = every_door()
        .set("fsync", true)
        .set("purposes", "{message: {}, ephemeral: {}}")
        .set("expire_interval", 1)
        .set("expire_maxage", 1000)
        .set("user_quota_hard", 12)
        .set("max_file_size", 12)
        .set("evict_on_quota", true)
        .start();
    site.program.allow("external_delete_secret");
    let begin = |site: &Site, target: &str, fields: &[(&str, &str)]| {
        let mut client = site.client();
        let mut all = vec![("Content-Length", "5"), ("Expect", "100-continue")];
        all.extend_from_slice(fields);
        client.send(&request("PUT", target, &all, b""));
        client.reply().is(100);
        client
    };
    let delete = |site: &Site, path: &str| {
        let target = format!("/files/{path}?{}", signed_delete(path.as_bytes()));
        site.client().ask("DELETE", &target, &[], b"").is(204);
    };

    // Ephemeral: used or not, it lapses with the file.
    let at = unix_now() + 4;
    let used = site.ask(ROMEO, "a.txt", 5, None, &until(at)).unwrap();
    let unused = site.ask(ROMEO, "a.txt", 5, None, &until(at)).unwrap();
    site.put(&used, b"hello").is(201);
    eventually("its end", || {
        unix_now() > at && site.get(&used.get).status == 404
    });
    eventually("the sweep", || site.files().is_empty());
    for slot in [&used, &unused] {
        let status = site.put(slot, b"other").status;
        assert!(matches!(status, 403 | 409), "{status}");
    }

    // Removed for its age, which is less than the slot's.
    site.rewrite("expire_maxage", 1);
    site.program.signal(rustix::process::Signal::HUP);
    site.program.wait_line(&["config reloaded"]);
    let aged = site.slot(ROMEO, "a.txt", 5, None);
    site.put(&aged, b"hello").is(201);
    eventually("the sweep", || site.files().is_empty());
    site.put(&aged, b"other").is(409);
    site.rewrite("expire_maxage", 1000);
    site.program.signal(rustix::process::Signal::HUP);
    site.program.wait_lines(&["config reloaded"], 2);

    // Removed to make room.
    let first = site.slot(ROMEO, "a.txt", 5, None);
    site.put(&first, b"hello").is(201);
    age(&site.store().join(first.stored_at()), 10);
    for _ in 0..2 {
        let slot = site.slot(ROMEO, "b.txt", 5, None);
        site.put(&slot, b"hello").is(201);
    }
    site.get(&first.get).is(404);
    let evicted = first;

    // Removed by the server that may, with a second PUT under way that was begun before.
    let slot = site.slot(JULIET, "a.txt", 5, None);
    let mut second = begin(&site, &slot.put, &[]);
    site.put(&slot, b"hello").is(201);
    delete(&site, &slot.stored_at().to_string_lossy());
    second.send(b"other");
    second.reply().is(409);
    let deleted = slot;
    let path = "external-folder/a.txt";
    let external = format!("/files/{path}?{}", signed_put(path.as_bytes()));
    let mut second = begin(&site, &external, &[]);
    site.client().ask("PUT", &external, &[], b"hello").is(201);
    delete(&site, path);
    second.send(b"other");
    second.reply().is(409);
    let share = Claims::new("share").with("sub", JULIET);
    let bearer = format!("Bearer {}", share.token());
    let mut second = begin(&site, &share.target, &[("Authorization", &bearer)]);
    share.put(&site, b"hello").is(201);
    let stored = site
        .files()
        .into_iter()
        .find(|file| file.starts_with(&owner_folder(JULIET)));
    delete(&site, &stored.unwrap());
    second.send(b"other");
    second.reply().is(409);

    for _ in 0..2 {
        for slot in [&aged, &evicted, &deleted] {
            site.put(slot, b"other").is(409);
        }
        site.client().ask("PUT", &external, &[], b"other").is(409);
        share.put(&site, b"other").is(409);
        // A restart forgets none of it.
        site.restart();
        site.program.allow("external_delete_secret");
    }
}

// --- Addresses -------------------------------------------------------------------------------------------------------

/// A connection from another address of the loopback network.
fn client_from(site: &Site, source: Ipv4Addr) -> Client {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((source, 0))).unwrap();
    connect(&socket, &site.http).unwrap();
    Client::over(TcpStream::from(socket))
}

/// The status that a request gets whose connection then stays busy if it is served.
#[track_caller]
fn keep_busy(
    site: &mut Site,
    source: Ipv4Addr,
    fields: &[(&str, &str)],
    busy: &mut Vec<Client>,
) -> u16 {
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    let mut client = client_from(site, source);
    let mut all = vec![("Content-Length", "5"), ("Expect", "100-continue")];
    all.extend_from_slice(fields);
    client.send(&request("PUT", &slot.put, &all, b""));
    let status = client.reply().status;
    if status == 100 {
        busy.push(client);
    }
    status
}

const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;

#[test]
fn what_a_stranger_says_of_his_address_changes_nothing() {
    for trusted in ["[]", "[192.0.2.0/24, '2001:db8::/32']"] {
        let mut site = Plan::new()
            .set("max_connections_per_address", 2)
            .set("trusted_proxies", trusted)
            .start();
        let mut busy = Vec::new();
        let lies: [&[(&str, &str)]; 9] = [
            &[("X-Forwarded-For", "203.0.113.1")],
            &[("X-Forwarded-For", "192.0.2.1")],
            &[("X-Forwarded-For", "203.0.113.2, 192.0.2.1")],
            &[("Forwarded", "for=203.0.113.3")],
            &[("Forwarded", "for=\"[2001:db8::1]\"")],
            &[("X-Real-IP", "203.0.113.4")],
            &[("CF-Connecting-IP", "203.0.113.5")],
            &[("X-Forwarded-For", "127.0.0.9")],
            &[],
        ];
        for (number, lie) in lies.iter().enumerate() {
            let expected = if number < 2 { 100 } else { 503 };
            let status = keep_busy(&mut site, HOME, lie, &mut busy);
            assert_eq!(status, expected, "{lie:?}");
        }
        // Nobody else pays for it.
        let other = Ipv4Addr::new(127, 0, 0, 9);
        for _ in 0..2 {
            assert_eq!(keep_busy(&mut site, other, &[], &mut busy), 100);
        }
        assert_eq!(keep_busy(&mut site, other, &[], &mut busy), 503);
        for line in site.program.lines() {
            assert!(
                !line.contains("203.0.113.") && !line.contains("192.0.2.1"),
                "{line}"
            );
        }
        site.program
            .wait_line(&["refused status=503", "from=127.0.0.1"]);
        for client in &mut busy {
            client.send(b"hello");
            client.reply().is(201);
        }
    }
}

#[test]
fn a_trusted_proxy_names_the_client_and_nobody_else_does() {
    let mut site = Plan::new()
        .set("max_connections_per_address", 2)
        .set(
            "trusted_proxies",
            "[127.0.0.1, 10.0.0.0/8, '2001:db8:ffff::/48']",
        )
        .start();
    let mut busy = Vec::new();
    let long = format!("{}203.0.113.1", "6.6.6.6, ".repeat(3000));
    let v4: &[&[(&str, &str)]] = &[
        // All of them are 203.0.113.1.
        &[("X-Forwarded-For", "203.0.113.1")],
        &[("X-Forwarded-For", "6.6.6.6, 203.0.113.1")],
        &[("X-Forwarded-For", "203.0.113.1, 10.1.2.3")],
        &[(
            "X-Forwarded-For",
            "203.0.113.1,10.1.2.3,2001:db8:ffff::1, 127.0.0.1",
        )],
        &[
            ("X-Forwarded-For", "6.6.6.6"),
            ("X-Forwarded-For", "203.0.113.1"),
        ],
        &[("X-Forwarded-For", "203.0.113.1:4711")],
        &[("X-Forwarded-For", "::ffff:203.0.113.1")],
        &[("X-Forwarded-For", "[::ffff:203.0.113.1]:4711")],
        &[("X-Forwarded-For", "10.0.0.1, garbage, 203.0.113.1")],
        &[("X-Forwarded-For", &long)],
        &[(
            "Forwarded",
            "for=6.6.6.6, for=203.0.113.1;proto=https;by=10.0.0.1",
        )],
        &[("Forwarded", "For=\"203.0.113.1:4711\", for=10.1.2.3")],
        &[
            ("X-Forwarded-For", "203.0.113.1"),
            ("Forwarded", "for=6.6.6.6"),
        ],
    ];
    // One /64 is one client.
    let v6: &[&[(&str, &str)]] = &[
        &[("X-Forwarded-For", "2001:db8::1")],
        &[("X-Forwarded-For", "2001:db8::2")],
        &[("X-Forwarded-For", "2001:db8:0:0:ffff:ffff:ffff:ffff")],
        &[("X-Forwarded-For", "[2001:db8::3]:4711")],
        &[("Forwarded", "for=\"[2001:db8::4]:4711\"")],
    ];
    for same in [v4, v6] {
        for (number, fields) in same.iter().enumerate() {
            let expected = if number < 2 { 100 } else { 503 };
            let status = keep_busy(&mut site, HOME, fields, &mut busy);
            assert_eq!(status, expected, "{fields:?}");
        }
    }
    // Others are others, and a client that says it is a proxy is not.
    for fields in [
        &[("X-Forwarded-For", "203.0.113.2")],
        &[("X-Forwarded-For", "203.0.113.1, 203.0.113.3")],
        &[("X-Forwarded-For", "2001:db8:0:1::1")],
        &[("Forwarded", "for=203.0.113.4")],
    ] {
        let status = keep_busy(&mut site, HOME, fields, &mut busy);
        assert_eq!(status, 100, "{fields:?}");
    }
    let stranger = Ipv4Addr::new(127, 0, 0, 7);
    for number in 0..4 {
        let claim = format!("203.0.113.{}", 100 + number);
        let fields = [("X-Forwarded-For", claim.as_str())];
        let expected = if number < 2 { 100 } else { 503 };
        assert_eq!(keep_busy(&mut site, stranger, &fields, &mut busy), expected);
    }
    // A connection that the proxy keeps is nobody's between two requests.
    let mut kept: Vec<Client> = (0..5).map(|_| site.client()).collect();
    for address in ["203.0.113.50", "203.0.113.51", "2001:db8:50::1"] {
        for client in &mut kept {
            let fields = [("X-Forwarded-For", address)];
            client.ask("GET", "/", &fields, b"").is(200);
        }
    }
    // What names nobody is the proxy's own request.
    for value in [
        "",
        ",",
        ", ,",
        "unknown",
        "_hidden",
        "203.0.113",
        "203.0.113.1.1",
        "[2001:db8::1",
        "::1%lo",
        "203.0.113.1 203.0.113.2",
        "203.0.113.9\tx",
        "0x7f000001",
        "2130706433",
        "\"203.0.113.9\"",
        "for=203.0.113.9",
        "-1",
        "999.999.999.999",
        "\u{ff11}.1.1.1",
    ] {
        for name in ["X-Forwarded-For", "Forwarded"] {
            let mut client = site.client();
            client.send(&request("GET", "/files/none", &[(name, value)], b""));
            let status = client.reply().status;
            assert!(matches!(status, 404 | 503), "{name}: {value:?}: {status}");
        }
    }
    // Served again as soon as there is room.
    for client in &mut busy {
        client.send(b"hello");
        client.reply().is(201);
    }
    drop(busy);
    eventually("room", || {
        let fields = [("X-Forwarded-For", "203.0.113.1")];
        site.client().ask("GET", "/", &fields, b"").status == 200
    });
}

// --- One user against another ----------------------------------------------------------------------------------------

#[test]
fn nobody_evicts_or_fills_another() {
    let mut site = every_door()
        .set("user_quota_hard", 1000)
        .set("max_file_size", 1000)
        .set("evict_on_quota", true)
        .set("expire_interval", 1)
        .set("user_quota_soft", 900)
        .start();
    site.program.allow("external_delete_secret");
    let kept: Vec<Slot> = (0..2)
        .map(|_| {
            let slot = site.slot(JULIET, "old.bin", 400, None);
            site.put(&slot, &[b'j'; 400]).is(201);
            age(&site.store().join(slot.stored_at()), 100_000);
            slot
        })
        .collect();
    // Juliet's files are the oldest of all, and stay, whatever Romeo does and however he spells himself.
    for number in 0..30 {
        let owner = [
            "romeo@montague.tld",
            "Romeo@Montague.TLD/x",
            "romeo@montague.tld./juliet@capulet.tld",
        ][number % 3];
        let slot = site.slot(owner, "new.bin", 700, None);
        assert!(slot.get.contains(ROMEO_FOLDER), "{owner}: {slot:?}");
        site.put(&slot, &[b'r'; 700]).is(201);
    }
    // Bodies under way, refused and broken ones cost nobody else anything.
    let slots: Vec<Slot> = (0..4)
        .map(|_| site.slot(ROMEO, "hanging.bin", 1000, None))
        .collect();
    let mut hanging = Vec::new();
    for (number, slot) in slots.iter().enumerate() {
        let mut client = site.client();
        client.send(&request(
            "PUT",
            &slot.put,
            &[("Content-Length", "1000")],
            b"",
        ));
        client.send(&[b'r'; 500]);
        let juliets = slot.put.replace(ROMEO_FOLDER, &owner_folder(JULIET));
        assert_ne!(juliets, slot.put);
        site.client()
            .ask("PUT", &juliets, &[], &[b'r'; 1000])
            .is(403);
        if number % 2 == 0 {
            hanging.push(client);
        }
    }
    // Neither do those who only look like her.
    for owner in [
        "\u{458}uliet@capulet.tld",
        "juliet@capulet.tld.montague.tld",
        "juliet\u{200b}@capulet.tld",
        "juliet%40capulet.tld@montague.tld",
        "capulet.tld",
    ] {
        assert_ne!(owner_folder(owner), owner_folder(JULIET));
        if let Ok(slot) = site.ask(owner, "new.bin", 900, None, "") {
            assert!(!slot.get.contains(&owner_folder(JULIET)), "{owner}");
            site.put(&slot, &[b'x'; 900]).is(201);
        }
    }
    for slot in &kept {
        assert_eq!(site.get(&slot.get).is(200).body, [b'j'; 400]);
    }
    // She has exactly the room that she had.
    let slot = site.slot(JULIET, "new.bin", 200, None);
    site.put(&slot, &[b'j'; 200]).is(201);
    for slot in &kept {
        site.get(&slot.get).is(200);
    }
    drop(hanging);
    // Without eviction neither, and not through the quota of all.
    let mut site = Plan::new()
        .set("user_quota_hard", 1000)
        .set("max_file_size", 1000)
        .start();
    let slot = site.slot(ROMEO, "a.bin", 1000, None);
    site.put(&slot, &[b'r'; 1000]).is(201);
    assert!(site.ask(ROMEO, "b.bin", 1, None, "").is_err());
    let slot = site.slot(JULIET, "a.bin", 1000, None);
    site.put(&slot, &[b'j'; 1000]).is(201);
}
