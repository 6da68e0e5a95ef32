//! The command `import`, with stores in the layout of the other programs.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use data_encoding::HEXLOWER;

use crate::harness::files::{seed, walk};
use crate::harness::program::{command, command_line, run};
use crate::harness::signing::{Claims, KEY, external_plan, put_query};
use crate::harness::site::{JULIET, ROMEO, ROMEO_FOLDER, minimal_config, owner_folder};
use crate::harness::{Plan, unix_now};

/// SHA-1 of Romeo's address, as ejabberd names his folder.
const ROMEO_SHA1: &str = "43feddb25776a343c69835c7e79dc2c7f59598a6";

/// Runs `import` with the site's configuration; its output.
#[track_caller]
fn import(dir: &Path, words: &[&str], code: i32) -> String {
    let (ended, said) = run(&[&["import"][..], words].concat(), dir);
    assert_eq!(ended, Some(code), "{words:?}: {said}");
    said
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// One item of the list of Prosody's file share, as Prosody 0.12 writes it.
fn item(slot: &str, owner: &str, name: &str, kind: &str, size: usize, when: u64) -> String {
    format!(
        "item({{\n\t[\"attr\"] = {{\n\t\t[\"content-type\"] = \"{kind}\";\n\t\t[\"filename\"] = \"{name}\";\n\
         \t\t[\"size\"] = \"{size}\";\n\t\t[\"xmlns\"] = \"urn:xmpp:http:upload:0\";\n\t}};\n\t[\"key\"] = \"{slot}\";\n\
         \t[\"name\"] = \"request\";\n\t[\"when\"] = {when};\n\t[\"with\"] = \"{owner}\";\n}});\n"
    )
}

/// A store of Prosody's file share.
struct Share {
    folder: PathBuf,
    list: String,
}

impl Share {
    fn new(dir: &Path) -> Share {
        let folder = dir.join("upload%2elocalhost");
        fs::create_dir_all(folder.join("http_file_share")).unwrap();
        Share {
            folder,
            list: String::new(),
        }
    }

    /// A file and its item.
    fn add(&mut self, slot: &str, owner: &str, name: &str, kind: &str, bytes: &[u8]) -> PathBuf {
        let when = unix_now() - 1000;
        self.list += &item(slot, owner, name, kind, bytes.len(), when);
        self.file(slot, bytes)
    }

    fn file(&self, slot: &str, bytes: &[u8]) -> PathBuf {
        let encoded = slot.replace('_', "%5f").replace('-', "%2d");
        seed(
            &self.folder,
            &format!("http_file_share/{encoded}.bin"),
            bytes,
        )
    }

    fn write(&self) {
        fs::write(self.folder.join("uploads.list"), &self.list).unwrap();
    }

    #[track_caller]
    fn import(&self, dir: &Path, more: &[&str], code: i32) -> String {
        let words = ["prosody-file-share", text(&self.folder)];
        import(dir, &[&words[..], more].concat(), code)
    }
}

#[track_caller]
fn assert_says(said: &str, lines: &[&str]) {
    for line in lines {
        assert!(said.contains(line), "{line:?} is missing in:\n{said}");
    }
}

/// The old links of imported files.
fn old_links(store: &Path) -> usize {
    fs::read_dir(store.join(".upslot/imported")).map_or(0, Iterator::count)
}

#[test]
fn links_owners_types_and_times_of_a_file_share_are_kept() {
    let mut site = Plan::new()
        .set("user_quota_hard", 1000)
        .set("max_file_size", 1000)
        .start();
    let dir = site.dir.path().to_owned();
    let mut share = Share::new(&dir);
    let big = vec![b'x'; 700];
    let first = share.add(
        "aB_c-1",
        ROMEO,
        "tr\\195\\168s cool.jpg",
        "image/jpeg",
        &big,
    );
    share.add("slot2", JULIET, "a.html", "text/html", b"<p>");
    share.write();
    // Romeo's use is counted before the import, and must be known at once after it.
    site.slot(ROMEO, "a.bin", 900, None);
    let said = share.import(&dir, &["--dry-run"], 0);
    assert_says(
        &said,
        &["2 files would be imported, 703 B: 2 by hard links, 0 copied."],
    );
    assert!(site.files().is_empty() && old_links(&site.store()) == 0);
    let added = unix_now() - 1000;
    let said = share.import(&dir, &[], 0);
    assert_says(
        &said,
        &["2 files were imported, 703 B: 2 by hard links, 0 copied."],
    );
    let refused = site.ask(ROMEO, "a.bin", 400, None, "");
    assert!(refused.is_err(), "the quota is full");
    site.slot(ROMEO, "a.bin", 250, None);

    let files = site.files();
    assert_eq!(files.len(), 2, "{files:?}");
    let romeos = files
        .iter()
        .find(|file| file.starts_with(ROMEO_FOLDER))
        .unwrap();
    assert!(romeos.ends_with("~2bc~m/très cool.jpg"), "{romeos}");
    let stored = site.store().join(romeos);
    assert_eq!(
        stored.metadata().unwrap().ino(),
        first.metadata().unwrap().ino()
    );
    let time = stored.metadata().unwrap().modified().unwrap();
    let time = time.duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!((added - 60..=added).contains(&time), "{time}");
    for target in [
        "/file_share/aB_c-1/tr%C3%A8s%20cool.jpg",
        "/files/file_share/aB_c-1/tr%C3%A8s%20cool.jpg",
        "/files/aB_c-1/x",
        "/a/b/c/d/aB_c-1/other",
    ] {
        for _ in 0..2 {
            let got = site.get(target).is(200);
            assert_eq!(
                (got.expect("Content-Type"), got.body.len()),
                ("image/jpeg", 700),
                "{target}"
            );
        }
    }
    let got = site.get("/file_share/slot2/a.html").is(200);
    assert_eq!(got.expect("Content-Type"), "text/html");
    assert!(got.expect("Content-Disposition").starts_with("attachment"));
    let head = site
        .client()
        .ask("HEAD", "/file_share/slot2/a.html", &[], b"")
        .is(200);
    assert_eq!(head.expect("Content-Length"), "3");
    for target in ["/file_share/slot3/a.html", "/slot2/", "/removed/removed"] {
        site.get(target).is(404);
    }
    // Again: nothing is changed.
    let entries = walk(&site.store());
    let said = share.import(&dir, &[], 0);
    assert_says(
        &said,
        &["0 files were imported", "2 files imported before, 703 B."],
    );
    assert_eq!(walk(&site.store()), entries);
    site.restart();
    site.get("/file_share/slot2/a.html").is(200);
}

#[test]
fn removed_files_stay_removed() {
    let site = Plan::alone().start();
    let dir = site.dir.path().to_owned();
    let mut share = Share::new(&dir);
    for number in 0..3 {
        share.add(
            &format!("slot{number}"),
            ROMEO,
            "a.txt",
            "text/plain",
            b"hello",
        );
    }
    share.write();
    share.import(&dir, &[], 0);
    let url = "https://upload.localhost/file_share/slot0/a.txt";
    let (code, said) = run(&["remove", url], &dir);
    assert_eq!(code, Some(0), "{said}");
    assert_says(&said, &["Removed https"]);
    site.get("/file_share/slot0/a.txt").is(404);
    site.get("/file_share/slot1/a.txt").is(200);
    let said = share.import(&dir, &[], 0);
    assert_says(
        &said,
        &[
            "2 files imported before",
            "1 file left out: the file was imported before, and deleted since",
        ],
    );
    site.get("/file_share/slot0/a.txt").is(404);
    let (code, said) = run(&["remove", ROMEO], &dir);
    assert_eq!(code, Some(0), "{said}");
    site.get("/file_share/slot1/a.txt").is(404);
    share.import(&dir, &[], 0);
    assert_eq!(site.files(), Vec::<String>::new());
    // Neither owner nor name can be read from the aliases.
    for entry in fs::read_dir(site.store().join(".upslot/imported")).unwrap() {
        let target = fs::read_link(entry.unwrap().path()).unwrap();
        assert_eq!(target, Path::new("removed/removed"));
    }
    // The other program's files are untouched.
    assert_eq!(walk(&share.folder.join("http_file_share")).len(), 3);
}

/// Broken and hostile records and files are reported, and the others imported.
#[test]
fn hostile_stores() {
    let site = Plan::alone()
        .set("expire_interval", 3600)
        .set("expire_maxage", 86_400)
        .start();
    let dir = site.dir.path().to_owned();
    let secret = seed(&dir, "secret.txt", b"secret");
    let mut share = Share::new(&dir);
    let folder = share.folder.join("http_file_share");
    share.add(
        "good",
        ROMEO,
        "a\\000b/../c.txt",
        "text/plain\\r\\nX: y",
        b"good",
    );
    share.list += &item("linked", ROMEO, "a", "a/b", 6, 1);
    symlink(&secret, folder.join("linked.bin")).unwrap();
    share.list += &item("pipe", ROMEO, "a", "a/b", 0, 1);
    let pipe = Command::new("mkfifo").arg(folder.join("pipe.bin")).status();
    assert!(pipe.unwrap().success());
    share.list += &item("folder", ROMEO, "a", "a/b", 0, 1);
    fs::create_dir(folder.join("folder.bin")).unwrap();
    share.list += &item("never-used", ROMEO, "a", "a/b", 5, 1);
    share.list += &item("../../../secret", ROMEO, "a", "a/b", 6, 1);
    share.list +=
        &item("large", ROMEO, "a", "a/b", 5, 1).replace("\"5\"", "\"99999999999999999999999\"");
    share.list += &item("differs", ROMEO, "a", "a/b", 7, 1);
    share.file("differs", b"shorter");
    fs::write(folder.join("differs.bin"), b"short").unwrap();
    share.list += &item("old", ROMEO, "a", "a/b", 3, unix_now() - 100_000);
    share.file("old", b"old");
    share.list += "item({ [\"key\"] = \"cut";
    share.list += &format!("\nitem({}\n", "{".repeat(100_000));
    share.list += "\0\0\0garbage\n";
    share.add("nobody", "a b", "a", "a/b", b"x");
    share.add("twice", ROMEO, "one.txt", "text/plain", b"x");
    share.add("twice", ROMEO, "two.txt", "text/plain", b"x");
    share.add("last", ROMEO, "last.txt", "text/plain", b"last");
    share.add("dotted", ROMEO, ".x", "text/plain", b"x");
    share.file("unlisted", b"unlisted");
    seed(&folder, "unfinished.bin~", b"unf");
    share.write();
    let dry = share.import(&dir, &["--dry-run"], 0);
    let said = share.import(&dir, &[], 0);
    for said in [dry, said] {
        assert_says(
            &said,
            &[
                "3 files w",
                "it is not a regular file. Such as \"linked\", \"pipe\", \"folder\"",
                "the file is missing. Such as \"never-used\", \"../../../secret\"",
                "the file does not have its recorded size. Such as \"differs\"",
                "the file is older than expire_maxage. Such as \"old\"",
                "the record is damaged",
                "the owner is not known; see --owner. Such as \"nobody\", \"unlisted.bin\"",
                "there is a second record for the same link. Such as \"twice\"",
                "1 file left out: its name begins with a dot. Such as \"dotted\"",
                "the upload is unfinished. Such as \"unfinished.bin~\"",
            ],
        );
    }
    site.assert_all_files_in(ROMEO_FOLDER);
    assert_eq!(site.files().len(), 3);
    assert_eq!(site.get("/good/x").is(200).body, b"good");
    assert_eq!(site.get("/last/x").is(200).body, b"last");
    site.get("/linked/x").is(404);
    // Files without a known owner can be given to one.
    let said = share.import(&dir, &["--owner", JULIET], 0);
    assert_says(&said, &["2 files were imported", "4 files imported before"]);
    assert_eq!(site.get("/unlisted/x").is(200).body, b"unlisted");
    assert!(
        site.files()
            .iter()
            .any(|file| file.starts_with(&owner_folder(JULIET)))
    );
}

/// The PUT URLs of the other program never expire; they must neither replace nor restore an imported file.
#[test]
fn old_upload_urls_stay_used() {
    let site = external_plan()
        .set("file_share_secret", format!("'{KEY}'"))
        .start();
    let dir = site.dir.path().to_owned();
    let files = dir.join("filer");
    seed(&files, "uuid1/a.txt", b"hello");
    import(&dir, &["prosody-filer", text(&files), "--owner", ROMEO], 0);
    let mut share = Share::new(&dir);
    share.add("slot1", ROMEO, "a.txt", "text/plain", b"hello");
    share.write();
    share.import(&dir, &[], 0);
    let claims = Claims::new("slot1");
    let bearer = format!("Bearer {}", claims.token());
    let signed = |folder: &str| {
        let path = format!("{folder}/a.txt");
        format!("/files/{path}?{}", put_query("v", &path, 5, ""))
    };
    let authorization = [("Authorization", &*bearer)];
    site.put_at(&signed("uuid1"), &[], b"other").is(409);
    site.put_at(&claims.target, &authorization, b"other")
        .is(409);
    assert_eq!(site.get("/files/uuid1/a.txt").is(200).body, b"hello");
    let (code, said) = run(&["remove", ROMEO], &dir);
    assert_eq!(code, Some(0), "{said}");
    site.get("/files/uuid1/a.txt").is(404);
    site.put_at(&signed("uuid1"), &[], b"other").is(409);
    site.put_at(&signed("uuid2"), &[], b"other").is(201);
}

#[test]
fn a_folder_that_is_no_store_is_refused() {
    let site = Plan::alone().start();
    let dir = site.dir.path().to_owned();
    let store = site.store();
    for (words, code, part) in [
        (
            &["prosody-file-share", "absent"][..],
            1,
            "cannot open absent",
        ),
        (&["prosody-file-share", "."], 1, "lie within each other"),
        (&["ejabberd", text(&store)], 1, "lie within each other"),
        (&["ejabberd"], 2, "takes a program and a folder"),
        (
            &["openfire", "x"],
            2,
            "unknown program \"openfire\"; the programs are prosody-file-share,",
        ),
        (&["share.php", "x"], 2, "add --owner JID"),
        (
            &["hmac-file-server", "x", "--owner", "@a.b"],
            2,
            "add --owner JID",
        ),
        (
            &["hmac-file-server", "x", "--owner", "a b"],
            2,
            "not an address",
        ),
        (&["hmac-file-server", "x", "--owner"], 2, "owner"),
        (&["django", "x"], 2, "add --index FILE"),
        (&["ejabberd", "x", "--all"], 2, "--all is an option of list"),
    ] {
        let said = import(&dir, words, code);
        assert!(said.contains(part), "{words:?}: {said}");
    }
    let (code, said) = run(&["list", ROMEO, "--owner", ROMEO], &dir);
    assert_eq!(code, Some(2));
    assert_says(&said, &["--owner is an option of import, not of list"]);
    let empty = dir.join("empty");
    fs::create_dir(&empty).unwrap();
    let said = import(&dir, &["prosody-file-share", text(&empty)], 1);
    assert_says(&said, &["uploads.list: No such file"]);
    assert!(site.files().is_empty());
    let other = dir.join("other");
    fs::create_dir(&other).unwrap();
    minimal_config(&other, "");
    let said = import(&other, &["ejabberd", text(&empty)], 1);
    assert_says(&said, &["does not exist; start upslot once"]);
}

/// The other programs; and copies where a hard link is not safe.
#[test]
fn links_of_other_programs_are_kept() {
    let site = Plan::alone().start();
    let dir = site.dir.path().to_owned();
    let docroot = dir.join("docroot");
    let shared = seed(
        &docroot,
        &format!("{ROMEO_SHA1}/a1B2c3/très_cool.jpg"),
        b"jpeg",
    );
    fs::set_permissions(&shared, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    seed(&docroot, "juliet/a1B2c4/b.png", b"png");
    seed(&docroot, "stray", b"stray");
    seed(&docroot, &format!("{ROMEO_SHA1}/a1B2c5/.hidden"), b"stray");
    let words = ["ejabberd", text(&docroot), "--owner", "@capulet.tld"];
    let said = import(&dir, &words, 0);
    assert_says(
        &said,
        &[
            "2 files were imported, 7 B: 1 by hard links, 1 copied.",
            "the path is not of the expected form. Such as \"stray\"",
            "its name begins with a dot",
        ],
    );
    let old = format!("/upload/{ROMEO_SHA1}/a1B2c3/tr%C3%A8s_cool.jpg");
    let got = site.get(&old).is(200);
    assert_eq!(
        (got.expect("Content-Type"), &*got.body),
        ("image/jpeg", &b"jpeg"[..])
    );
    // What others may change is copied.
    fs::write(&shared, b"changed").unwrap();
    assert_eq!(site.get(&old).is(200).body, b"jpeg");
    assert_eq!(site.get("/upload/juliet/a1B2c4/b.png").is(200).body, b"png");
    let (_, listed) = run(&["list", JULIET], &dir);
    assert_says(&listed, &["1 file of juliet@capulet.tld"]);

    let files = dir.join("filer");
    seed(&files, "uuid1/a b.txt", b"filer");
    seed(&files, "x/y/z/deep.txt", b"deep");
    symlink("/etc/passwd", files.join("uuid1/passwd")).unwrap();
    let said = import(
        &dir,
        &["hmac-file-server", text(&files), "--owner", ROMEO],
        0,
    );
    assert_says(
        &said,
        &[
            "2 files were imported",
            "it is not a regular file. Such as \"uuid1/passwd\"",
        ],
    );
    assert_eq!(site.get("/upload/uuid1/a%20b.txt").is(200).body, b"filer");
    assert_eq!(site.get("/x/y/z/deep.txt").is(200).body, b"deep");
    site.get("/upload/uuid1/passwd").is(404);

    let php = dir.join("php");
    let digest = |path: &str| {
        HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, path.as_bytes()).as_ref())
    };
    let name = format!("store-{}", digest("uuid2/c d.mp4"));
    seed(&php, &name, b"video");
    seed(&php, &format!("{name}-type"), b"video/mp4");
    seed(&php, &format!("store-{}", digest("uuid3/e")), b"plain");
    seed(&php, "store-x", b"x");
    let said = import(&dir, &["share.php", text(&php), "--owner", ROMEO], 0);
    assert_says(
        &said,
        &[
            "2 files were imported",
            "expected form. Such as \"store-x\"",
        ],
    );
    let got = site.get("/path/to/share.php/uuid2/c%20d.mp4").is(200);
    assert_eq!(
        (got.expect("Content-Type"), &*got.body),
        ("video/mp4", &b"video"[..])
    );
    assert_eq!(site.get("/share.php/uuid3/e").is(200).body, b"plain");

    let media = dir.join("media");
    seed(&media, "http_upload/H1/a_x.jpg", b"django");
    seed(&media, "http_upload/H3/.jpg", b"django");
    let table = seed(
        &dir,
        "uploads.json",
        br#"[{"jid":"juliet@capulet.tld","name":"a.jpg","size":6,"type":"image/jpeg","hash":"H1","file":"http_upload/H1/a_x.jpg"},
{"jid":"juliet@capulet.tld","name":".jpg","size":6,"type":null,"hash":"H3","file":"http_upload/H3/.jpg"},
{"jid":"juliet@capulet.tld","name":"b.jpg","size":6,"type":null,"hash":"H2","file":""}]
"#,
    );
    let said = import(&dir, &["django", text(&media), "--index", text(&table)], 0);
    assert_says(
        &said,
        &[
            "1 file was imported",
            "the upload slot was never used",
            "1 file left out: its name begins with a dot. Such as \"http_upload/H3/.jpg\"",
        ],
    );
    for target in ["/media/http_upload/H1/a.jpg", "/share/H1/a.jpg"] {
        let got = site.get(target).is(200);
        assert_eq!(
            (got.expect("Content-Type"), &*got.body),
            ("image/jpeg", &b"django"[..])
        );
    }

    let data = dir.join("data");
    seed(&data, "http_upload/Xy/a.txt", b"old");
    seed(&data, "http_upload/Zz/unlisted.txt", b"unlisted");
    seed(&data, "http_upload/Dd/.bashrc", b"old");
    seed(
        &data,
        "montague%2etld/http_upload/romeo.list",
        ["Xy/a.txt", "Dd/.bashrc"]
            .map(|path| {
                let (folder, name) = path.split_once('/').unwrap();
                let now = unix_now();
                format!("item({{ filename = \"{name}\"; dir = \"{folder}\"; size = 3; time = {now}; }});\n")
            })
            .concat()
            .as_bytes(),
    );
    let folder = data.join("http_upload");
    let said = import(&dir, &["metronome", text(&folder)], 0);
    assert_says(
        &said,
        &[
            "1 file was imported",
            "the owner is not known; see --owner. Such as \"Zz/unlisted.txt\"",
            "1 file left out: its name begins with a dot. Such as \"Dd/.bashrc\"",
        ],
    );
    assert_eq!(site.get("/share/Xy/a.txt").is(200).body, b"old");
    assert_eq!(old_links(&site.store()), 8);
}

fn large_share(dir: &Path, files: usize) -> Share {
    let mut share = Share::new(dir);
    for number in 0..files {
        let owner = format!("user{}@montague.tld", number % 100);
        let slot = format!("slot_{number}");
        share.add(
            &slot,
            &owner,
            &format!("{number}.txt"),
            "text/plain",
            number.to_string().as_bytes(),
        );
    }
    share.write();
    share
}

#[test]
fn ten_thousand_files_take_seconds() {
    let site = Plan::alone().start();
    let dir = site.dir.path().to_owned();
    let share = large_share(&dir, 10_000);
    // Processor time, because other tests keep the disk busy.
    let timed = "TIMEFORMAT='%U %S'; time \"$@\"";
    let output = Command::new("bash")
        .args(["-c", timed, "bash"])
        .args(command_line())
        .args(["import", "prosody-file-share"])
        .arg(&share.folder)
        .current_dir(&dir)
        .output()
        .unwrap();
    let [said, times] = [output.stdout, output.stderr].map(|o| String::from_utf8(o).unwrap());
    assert_says(&said, &["10000 files were imported"]);
    let seconds = times
        .split_whitespace()
        .map(|time| time.parse::<f64>().unwrap());
    assert!(seconds.sum::<f64>() < 30.0, "{times}");
    let mut client = site.client();
    for number in (0..10_000).step_by(37) {
        let got = client
            .get(&format!("/file_share/slot_{number}/{number}.txt"))
            .is(200);
        assert_eq!(got.body, number.to_string().as_bytes());
    }
    assert_eq!(old_links(&site.store()), 10_000);
    let (_, listed) = run(&["list", "--all"], &dir);
    assert_says(&listed, &["10000 files of 100 owners"]);
}

/// Killed at random moments and repeated, also while upslot is running: every file is imported once.
#[test]
fn an_import_that_is_killed_can_be_repeated() {
    let site = Plan::alone().set("global_quota", "1 GiB").start();
    let dir = site.dir.path().to_owned();
    let share = large_share(&dir, 1500);
    // Some are copied.
    for number in (0..1500).step_by(3) {
        let file = share
            .folder
            .join(format!("http_file_share/slot%5f{number}.bin"));
        fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    }
    let mut kills = 0;
    for round in 0..20 {
        let mut child = command()
            .args(["import", "prosody-file-share", text(&share.folder)])
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(20 + round * 17 % 90));
        child.kill().unwrap();
        kills += usize::from(!child.wait().unwrap().success());
        // Nothing partial is ever visible.
        let target = format!("/file_share/slot_{}/x", round * 71);
        let got = site.get(&target);
        if got.status == 200 {
            assert_eq!(got.body, (round * 71).to_string().as_bytes());
        }
    }
    assert!(kills > 5, "{kills}");
    let said = share.import(&dir, &[], 0);
    assert!(!said.contains("left out"), "{said}");
    let files = site.files();
    assert_eq!(files.len(), 1500);
    assert_eq!(old_links(&site.store()), 1500);
    let mut client = site.client();
    for number in 0..1500 {
        let got = client.get(&format!("/file_share/slot_{number}/x")).is(200);
        assert_eq!(got.body, number.to_string().as_bytes());
    }
    let leftovers = fs::read_dir(site.store().join(".upslot")).unwrap();
    for entry in leftovers {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            !name.starts_with("upload-") && !name.ends_with(".new"),
            "{name}"
        );
    }
}

/// Run by the superuser, the command leaves nothing that the user of upslot cannot read or delete.
#[test]
fn an_import_by_the_superuser_belongs_to_the_user_of_the_store() {
    const USER: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT TESTED: only root can become other users");
        return;
    }
    let plan = Plan::alone();
    let dir = plan.dir().to_owned();
    minimal_config(&dir, "file_mode: '0640'\ndir_mode: '0750'\n");
    let store = plan.store();
    chown(&store, Some(USER), Some(USER)).unwrap();
    let mut share = Share::new(&dir);
    share.add("copied", ROMEO, "a.txt", "text/plain", b"hello");
    let own = share.add("linked", JULIET, "a.txt", "text/plain", b"hello");
    chown(&own, Some(USER), Some(USER)).unwrap();
    share.write();
    let said = share.import(&dir, &[], 0);
    assert_says(
        &said,
        &["2 files were imported, 10 B: 1 by hard links, 1 copied."],
    );
    let mut folders = vec![store];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let stat = entry.metadata().unwrap();
            if !stat.is_symlink() {
                assert_eq!((stat.uid(), stat.gid()), (USER, USER), "{entry:?}");
            }
            if stat.is_dir() {
                folders.push(entry.path());
            }
        }
    }
}
