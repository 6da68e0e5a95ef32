//! Commands over XMPP (XEP-0050): users see and delete their uploads, administrators those of all users.

use std::fs;
use std::io::{Read, Write};
use std::time::Duration;

use crate::harness::files::{age, seed};
#[cfg(feature = "s3")]
use crate::harness::s3::S3;
use crate::harness::server::{COMPONENT, Link, error_of};
use crate::harness::site::{JULIET, ROMEO, ROMEO_FOLDER, assert_alive, owner_folder};
use crate::harness::xml::{self, Element};
use crate::harness::{Plan, Site, eventually};

const COMMANDS: &str = "http://jabber.org/protocol/commands";
const DATA: &str = "jabber:x:data";
const INFO: &str = "http://jabber.org/protocol/disco#info";
const ITEMS: &str = "http://jabber.org/protocol/disco#items";

const ADMIN: &str = "admin@montague.tld";
const STRANGER: &str = "stranger@elsewhere.tld";

/// A `<command/>` with these attributes.
fn command(attributes: &str, form: &str) -> String {
    format!("<command xmlns='{COMMANDS}' {attributes}>{form}</command>")
}

/// A form that is submitted, with fields and their values.
fn submit(fields: &[(&str, &[&str])]) -> String {
    let fields: String = fields
        .iter()
        .map(|(var, values)| {
            let values: String = values
                .iter()
                .map(|value| format!("<value>{}</value>", xml::escape(value)))
                .collect();
            format!("<field var='{var}'>{values}</field>")
        })
        .collect();
    format!("<x xmlns='{DATA}' type='submit'>{fields}</x>")
}

/// An answer to a command.
#[derive(Debug)]
struct Answer {
    session: String,
    status: String,
    element: Element,
}

impl Answer {
    #[track_caller]
    fn of(reply: &Element) -> Answer {
        assert_eq!(reply.attribute("type"), Some("result"), "{reply:?}");
        let element = reply.expect("command", COMMANDS).clone();
        let attribute = |name: &str| element.attribute(name).unwrap().to_owned();
        Answer {
            session: attribute("sessionid"),
            status: attribute("status"),
            element,
        }
    }

    fn form(&self) -> &Element {
        self.element.expect("x", DATA)
    }

    fn text(&self, name: &str) -> String {
        self.form().expect(name, DATA).text.clone()
    }

    fn fields(&self) -> Vec<&Element> {
        let children = self.form().children.iter();
        children.filter(|child| child.name == "field").collect()
    }

    /// Label and value of the field.
    #[track_caller]
    fn field(&self, var: &str) -> (&str, &str) {
        let field = self
            .fields()
            .into_iter()
            .find(|f| f.attribute("var") == Some(var));
        let field = field.unwrap_or_else(|| panic!("no {var} in {self:?}"));
        let value = field.child("value").map_or("", |value| &value.text);
        (field.attribute("label").unwrap_or_default(), value)
    }

    fn has(&self, var: &str) -> bool {
        self.fields()
            .iter()
            .any(|f| f.attribute("var") == Some(var))
    }

    /// Labels and values of the files to choose from.
    fn options(&self) -> Vec<(String, String)> {
        let files = self
            .fields()
            .into_iter()
            .find(|f| f.attribute("var") == Some("files"));
        let options = files
            .unwrap()
            .children
            .iter()
            .filter(|child| child.name == "option");
        options
            .map(|option| {
                let value = option.child("value").unwrap().text.clone();
                (option.attribute("label").unwrap().to_owned(), value)
            })
            .collect()
    }

    fn fixed(&self) -> Vec<&str> {
        let fields = self.fields();
        let fixed = fields
            .iter()
            .filter(|f| f.attribute("type") == Some("fixed"));
        fixed
            .map(|f| f.child("value").unwrap().text.as_str())
            .collect()
    }

    /// The default action, and all.
    fn actions(&self) -> (String, Vec<&str>) {
        let actions = self.element.expect("actions", COMMANDS);
        let names = actions.children.iter().map(|action| action.name.as_str());
        (
            actions.attribute("execute").unwrap().to_owned(),
            names.collect(),
        )
    }

    /// Kind and text of the only note of a completed command without a form.
    #[track_caller]
    fn note(&self) -> (&str, &str) {
        assert_eq!(self.status, "completed", "{self:?}");
        let [note] = &self.element.children[..] else {
            panic!("not one note: {self:?}");
        };
        assert_eq!(
            (note.name.as_str(), note.space.as_str()),
            ("note", COMMANDS)
        );
        (note.attribute("type").unwrap(), &note.text)
    }
}

/// Commands of one user, who has a resource.
struct User<'a> {
    link: &'a mut Link,
    jid: String,
}

impl User<'_> {
    #[track_caller]
    fn send(&mut self, attributes: &str, form: &str) -> Element {
        self.link.iq("set", &self.jid, &command(attributes, form))
    }

    #[track_caller]
    fn run(&mut self, node: &str) -> Answer {
        Answer::of(&self.send(&format!("node='{node}' action='execute'"), ""))
    }

    #[track_caller]
    fn go_on(&mut self, node: &str, session: &str, action: &str, form: &str) -> Element {
        let attributes = format!("node='{node}' sessionid='{session}' action='{action}'");
        self.send(&attributes, form)
    }

    #[track_caller]
    fn act(&mut self, node: &str, session: &str, action: &str, form: &str) -> Answer {
        Answer::of(&self.go_on(node, session, action, form))
    }

    /// Asserts that the action is refused.
    #[track_caller]
    fn refused(&mut self, node: &str, session: &str, action: &str, form: &str, error: &str) {
        let reply = self.go_on(node, session, action, form);
        assert_eq!(specific(&reply), error, "{reply:?}");
    }

    /// Names of the commands, by service discovery.
    #[track_caller]
    fn commands(&mut self) -> Vec<String> {
        let query = format!("<query xmlns='{ITEMS}' node='{COMMANDS}'/>");
        let reply = self.link.iq("get", &self.jid, &query);
        let query = reply.expect("query", ITEMS);
        assert_eq!(query.attribute("node"), Some(COMMANDS));
        let items = query.children.iter();
        items
            .map(|item| {
                assert_eq!(item.attribute("jid"), Some(COMPONENT));
                item.attribute("node").unwrap().to_owned()
            })
            .collect()
    }
}

fn user<'a>(site: &'a mut Site, jid: &str) -> User<'a> {
    User {
        link: site.link(),
        jid: format!("{jid}/phone"),
    }
}

/// The condition of an error reply: that of the commands, or else the general one.
#[track_caller]
fn specific(reply: &Element) -> String {
    let (_, condition, _) = error_of(reply);
    let error = reply.child("error").unwrap();
    let specific = error.children.iter().find(|child| child.space == COMMANDS);
    specific.map_or(condition, |specific| specific.name.clone())
}

const OWN: [&str; 3] = ["uploads", "delete", "delete-all"];
const ADMINS: [&str; 3] = ["usage", "delete-user", "explain"];

#[test]
fn users_find_only_the_commands_that_they_may_execute() {
    let mut site = Plan::new()
        .set("admins", "[admin@elsewhere.tld, admin@montague.tld]")
        .seed(
            &format!("{}/r/old.txt", owner_folder("left@elsewhere.tld")),
            b"old",
        )
        .start();
    let query = format!("<query xmlns='{INFO}'/>");
    let info = site.link().iq("get", ROMEO, &query);
    let features: Vec<&str> = info
        .expect("query", INFO)
        .children
        .iter()
        .filter_map(|f| f.attribute("var"))
        .collect();
    assert!(
        features.contains(&COMMANDS) && features.contains(&DATA),
        "{features:?}"
    );
    let all = [OWN, ADMINS].concat();
    for (jid, nodes) in [
        (ROMEO, &OWN[..]),
        ("left@elsewhere.tld", &OWN),
        (STRANGER, &[]),
        (ADMIN, &all),
        ("Admin@Elsewhere.TLD", &ADMINS),
    ] {
        assert_eq!(user(&mut site, jid).commands(), nodes, "{jid}");
        for node in &all {
            let query = format!("<query xmlns='{INFO}' node='{node}'/>");
            let info = site.link().iq("get", jid, &query);
            let executed = user(&mut site, jid).send(&format!("node='{node}'"), "");
            if !nodes.contains(node) {
                assert_eq!(specific(&info), "forbidden", "{jid} {node}");
                assert_eq!(specific(&executed), "forbidden", "{jid} {node}");
                continue;
            }
            let identity = info.expect("query", INFO).child("identity").unwrap();
            assert_eq!(identity.attribute("category"), Some("automation"));
            assert_eq!(identity.attribute("type"), Some("command-node"));
            Answer::of(&executed);
        }
    }
    let query = format!("<query xmlns='{INFO}' node='{COMMANDS}'/>");
    let info = site.link().iq("get", STRANGER, &query);
    let identity = info.expect("query", INFO).child("identity").unwrap();
    assert_eq!(identity.attribute("type"), Some("command-list"));
    for node in ["", "balcony", "uploads/", "Uploads"] {
        let reply = user(&mut site, ROMEO).send(&format!("node='{node}'"), "");
        assert_eq!(specific(&reply), "item-not-found", "{node}");
    }
    // The list of administrators is reloaded.
    site.rewrite("admins", "[]");
    site.program.signal(rustix::process::Signal::HUP);
    site.program.wait_line(&["config reloaded"]);
    assert_eq!(user(&mut site, ADMIN).commands(), OWN);
    let reply = user(&mut site, ADMIN).send("node='usage'", "");
    assert_eq!(specific(&reply), "forbidden");
}

#[test]
fn my_uploads_are_listed_with_limits_and_links() {
    let mut site = Plan::new()
        .set("user_quota_hard", "10 MiB")
        .set("expire_maxage", "30 d")
        .set("expire_interval", "1 d")
        .set("max_file_size", "2 MiB")
        .set(
            "access",
            "[{jid: '.*', uploads_per_timedelta: {delta: 3600, uploads: 5}}]",
        )
        .seed(&format!("{}/r/hers.txt", owner_folder(JULIET)), &[0; 999])
        .start();
    let empty = user(&mut site, ROMEO).run("uploads");
    assert_eq!(empty.status, "completed");
    assert_eq!(empty.field("files"), ("Uploads", "0 files"));
    assert_eq!(empty.field("window-1"), ("Uploads within 1 h", "0 of 5"));
    assert!(!empty.has("upload-1"));
    let names = ["a <b> & 'c' \"d\".txt", "ü\u{202e}😀.bin", &"x".repeat(200)];
    let mut links = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let slot = site.upload(name, None, &[b'x'; 1500]);
        age(&site.store().join(slot.stored_at()), 3000 - number as u64);
        links.push(format!("https://upload.localhost{}", slot.get));
    }
    let answer = user(&mut site, ROMEO).run("uploads");
    assert_eq!(answer.form().attribute("type"), Some("result"));
    assert_eq!(answer.field("FORM_TYPE").1, "urn:upslot:uploads");
    assert_eq!(answer.field("files").1, "3 files");
    assert_eq!(answer.field("used").1, "4.4 KiB of 10.0 MiB");
    assert_eq!(answer.field("max-file-size").1, "2.0 MiB");
    assert_eq!(answer.field("expire").1, "after 30 d");
    assert_eq!(answer.field("window-1").1, "3 of 5");
    for (number, link) in links.iter().enumerate() {
        let (label, value) = answer.field(&format!("upload-{}", number + 1));
        assert_eq!(value, link);
        let name: String = names[number].chars().take(80).collect();
        let start = format!("{}. {name}", number + 1);
        assert!(label.starts_with(&start), "{label} {start}");
        assert!(
            label.contains(", 1.5 KiB, 20") && label.contains(", expires 20"),
            "{label}"
        );
        site.get(&link["https://upload.localhost".len()..]).is(200);
    }
    assert!(
        !answer.has("upload-4"),
        "the files of others are not listed"
    );
    // Of many files, the oldest are shown.
    for number in 0..120 {
        seed(
            &site.store(),
            &format!("{ROMEO_FOLDER}/r{number:03}/f.txt"),
            b"12345",
        );
        age(
            &site
                .store()
                .join(format!("{ROMEO_FOLDER}/r{number:03}/f.txt")),
            9000 - number,
        );
    }
    let answer = user(&mut site, ROMEO).run("uploads");
    assert_eq!(answer.field("files").1, "123 files");
    assert_eq!(
        answer.fixed(),
        ["The oldest 50 of 123 uploads, with their links:"]
    );
    assert!(answer.field("upload-1").1.ends_with("/r000/f.txt"));
    assert!(answer.field("upload-50").1.ends_with("/r049/f.txt"));
    assert!(!answer.has("upload-51"));
}

#[test]
fn uploads_are_chosen_and_deleted() {
    let mut site = Plan::new()
        .set("user_quota_hard", 10_000)
        .set("max_file_size", 10_000)
        .start();
    let slots: Vec<_> = ["one.txt", "two & more.txt", "three.txt", "four.txt"]
        .iter()
        .enumerate()
        .map(|(number, name)| {
            let slot = site.upload(name, None, &[b'x'; 2000]);
            age(
                &site.store().join(slot.stored_at()),
                1000 - 60 * number as u64,
            );
            slot
        })
        .collect();
    let hers = site.fill(JULIET, 100);
    let mut romeo = user(&mut site, ROMEO);
    let offer = romeo.run("delete");
    assert_eq!(offer.status, "executing");
    assert_eq!(offer.actions(), ("next".to_owned(), vec!["next"]));
    let options = offer.options();
    let names = [
        "1. four.txt, 2.0 KiB, ",
        "2. three.txt, ",
        "3. two & more.txt, ",
        "4. one.txt, ",
    ];
    assert_eq!(options.len(), 4, "the files of others are not offered");
    for ((label, _), name) in options.iter().zip(names) {
        assert!(label.starts_with(name), "{label}");
    }
    // One from the list, one by its link; the form type may be missing.
    let link = format!("https://upload.localhost{}", slots[3].get);
    let id = options[2].1.as_str();
    let form = submit(&[("files", &[id]), ("link", &[&link])]);
    let confirm = romeo.act("delete", &offer.session, "next", &form);
    assert_eq!(confirm.session, offer.session);
    assert_eq!(
        confirm.actions(),
        ("complete".to_owned(), vec!["prev", "complete"])
    );
    assert!(
        confirm
            .text("instructions")
            .starts_with("Delete 2 files, 3.9 KiB?")
    );
    assert_eq!(confirm.fixed().len(), 2);
    // Back, and another choice.
    let again = romeo.act("delete", &offer.session, "prev", "");
    assert_eq!(again.options(), options);
    let form = submit(&[("FORM_TYPE", &["urn:upslot:delete"]), ("files", &[id, id])]);
    let confirm = romeo.act("delete", &offer.session, "execute", &form);
    assert!(confirm.text("instructions").starts_with("Delete 1 file, "));
    let done = romeo.act("delete", &offer.session, "complete", &submit(&[]));
    assert_eq!(done.note(), ("info", "Deleted 1 file, 2.0 KiB."));
    romeo.refused("delete", &offer.session, "complete", "", "session-expired");
    site.program.wait_line(&[
        "INFO",
        "uploads deleted",
        &format!("owner={ROMEO}"),
        &format!("by={ROMEO}"),
        "files=1",
        "bytes=2000",
        "complete=true",
    ]);
    site.get(&slots[1].get).is(404);
    for slot in [&slots[0], &slots[2], &slots[3], &hers] {
        site.get(&slot.get).is(200);
    }
    // The slot of a deleted file is not valid any more, and its bytes are free.
    assert!(site.put(&slots[1], &[b'x'; 2000]).status >= 400);
    site.upload("new.txt", None, &[b'x'; 4000]);
    assert!(site.ask(ROMEO, "more.txt", 1, None, "").is_err());
}

#[test]
fn all_uploads_are_deleted_after_consent() {
    let mut site = Plan::new()
        .set("user_quota_hard", 2_000_000)
        .set("max_file_size", 2_000_000)
        .start();
    for number in 0..300 {
        seed(
            &site.store(),
            &format!("{ROMEO_FOLDER}/r{number}/f.txt"),
            &[0; 1000],
        );
    }
    seed(&site.store(), &format!("{ROMEO_FOLDER}/flat.txt"), &[0; 24]);
    let slot = site.upload("own.txt", None, b"12345");
    let hers = site.fill(JULIET, 100);
    let mut romeo = user(&mut site, ROMEO);
    let confirm = romeo.run("delete-all");
    assert_eq!(confirm.actions(), ("complete".to_owned(), vec!["complete"]));
    assert_eq!(confirm.fixed(), ["302 files, 293.0 KiB"]);
    assert!(
        confirm
            .text("instructions")
            .contains("302 files, 293.0 KiB")
    );
    let canceled = romeo.act("delete-all", &confirm.session, "cancel", "");
    assert_eq!(canceled.status, "canceled");
    romeo.refused(
        "delete-all",
        &confirm.session,
        "complete",
        "",
        "session-expired",
    );
    let confirm = romeo.run("delete-all");
    let done = romeo.act("delete-all", &confirm.session, "complete", "");
    assert_eq!(done.note(), ("info", "Deleted 302 files, 293.0 KiB."));
    assert_eq!(
        romeo.run("delete-all").note(),
        ("info", "You have no uploads.")
    );
    assert_eq!(romeo.run("delete").note(), ("info", "You have no uploads."));
    site.assert_all_files_in(&owner_folder(JULIET));
    assert!(!site.store().join(ROMEO_FOLDER).exists());
    site.get(&hers.get).is(200);
    site.get(&slot.get).is(404);
    assert!(site.put(&slot, b"12345").status >= 400);
}

#[test]
fn administrators_see_usage_delete_and_explain() {
    let mut site = Plan::new()
        .set("admins", ADMIN)
        .set("user_quota_hard", 100_000)
        .set("max_file_size", 100_000)
        .start();
    for owner in [ROMEO, JULIET] {
        site.fill(owner, 1000);
    }
    site.fill(ROMEO, 1000);
    let mut admin = user(&mut site, ADMIN);
    let usage = admin.run("usage");
    assert_eq!(usage.field("owners").1, "2");
    assert_eq!(usage.field("files").1, "3");
    assert_eq!(usage.field("bytes").1, "2.9 KiB");
    assert_eq!(usage.field("owner-1"), (ROMEO_FOLDER, "2.0 KiB, 2 files"));
    assert_eq!(
        usage.field("owner-2"),
        (owner_folder(JULIET).as_str(), "1000 B, 1 file")
    );
    // The same answer as that of the command line.
    let ask = admin.run("explain");
    assert_eq!(ask.actions(), ("complete".to_owned(), vec!["complete"]));
    for (fields, error) in [
        (vec![("user", "a b")], "bad-payload"),
        (vec![("user", ROMEO), ("size", "many")], "bad-payload"),
        (vec![("size", "1")], "bad-payload"),
    ] {
        let fields: Vec<(&str, Vec<&str>)> =
            fields.into_iter().map(|(k, v)| (k, vec![v])).collect();
        let fields: Vec<(&str, &[&str])> = fields.iter().map(|(k, v)| (*k, &v[..])).collect();
        admin.refused("explain", &ask.session, "complete", &submit(&fields), error);
    }
    let form = submit(&[
        ("user", &[ROMEO]),
        ("size", &["97 KiB"]),
        ("type", &["image/png"]),
    ]);
    let explained = admin.act("explain", &ask.session, "complete", &form);
    let field = explained.fields()[1];
    let lines: Vec<String> = field
        .children
        .iter()
        .map(|value| value.text.clone() + "\n")
        .collect();
    let (code, said) =
        crate::harness::program::run(&["explain", ROMEO, "97 KiB", "image/png"], site.dir.path());
    assert_eq!(code, Some(1), "{said}");
    // The free space changes.
    let stable = |text: &str| {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("free disk space"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(stable(&lines.concat()), stable(&said));
    assert!(said.contains("(owner_quota)"), "{said}");
    // Deletion of another user's files, who then has the full quota; unused slots are revoked.
    let unused = site.slot(ROMEO, "late.txt", 5, None);
    let mut admin = user(&mut site, ADMIN);
    let ask = admin.run("delete-user");
    for (value, error) in [("", "bad-payload"), ("a b", "bad-payload")] {
        let form = submit(&[("user", &[value])]);
        admin.refused("delete-user", &ask.session, "next", &form, error);
    }
    let form = submit(&[("user", &["Romeo@Montague.tld/garden"])]);
    let confirm = admin.act("delete-user", &ask.session, "next", &form);
    assert_eq!(confirm.fixed(), ["romeo@montague.tld: 2 files, 2.0 KiB"]);
    let back = admin.act("delete-user", &ask.session, "prev", "");
    assert!(back.has("user"));
    let form = submit(&[("user", &[ROMEO_FOLDER])]);
    admin.act("delete-user", &ask.session, "next", &form);
    let done = admin.act("delete-user", &ask.session, "complete", "");
    assert_eq!(done.note(), ("info", "Deleted 2 files, 2.0 KiB."));
    site.program.wait_line(&[
        "uploads deleted",
        &format!("owner folder {ROMEO_FOLDER}"),
        &format!("by={ADMIN}"),
        "files=2",
    ]);
    site.assert_all_files_in(&owner_folder(JULIET));
    assert_eq!(site.put(&unused, b"12345").status, 403);
    site.fill(ROMEO, 100_000);
    let mut admin = user(&mut site, ADMIN);
    let ask = admin.run("delete-user");
    let form = submit(&[("user", &["absent@montague.tld"])]);
    let done = admin.act("delete-user", &ask.session, "next", &form);
    assert_eq!(
        done.note(),
        ("info", "Nothing is stored of absent@montague.tld.")
    );
    admin.refused(
        "delete-user",
        &ask.session,
        "next",
        &form,
        "session-expired",
    );
}

#[test]
fn foreign_and_forged_values_are_refused() {
    let mut site = Plan::new().set("admins", ADMIN).start();
    let his = site.upload("his.txt", None, b"12345");
    let hers = site.fill(JULIET, 100);
    let her_offer = user(&mut site, JULIET).run("delete");
    let her_id = her_offer.options()[0].1.clone();
    let mut romeo = user(&mut site, ROMEO);
    let offer = romeo.run("delete");
    let session = offer.session.clone();
    let her_link = format!("https://upload.localhost{}", hers.get);
    let many: Vec<String> = (0..60u32).map(|n| format!("{n:0>16}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for form in [
        submit(&[("files", &[&her_id])]),
        submit(&[("link", &[&her_link])]),
        submit(&[("link", &["https://elsewhere.tld/files/a/b"])]),
        submit(&[("link", &["../../etc/passwd"])]),
        submit(&[("files", &["../../etc/passwd"])]),
        submit(&[("files", &[&format!("{ROMEO_FOLDER}/r/his.txt")])]),
        submit(&[("files", &[""])]),
        submit(&[("files", &many)]),
        submit(&[("files", &[])]),
        submit(&[
            ("FORM_TYPE", &["urn:upslot:delete-all"]),
            ("files", &[&offer.options()[0].1]),
        ]),
        submit(&[]).replace("submit", "result"),
        String::new(),
    ] {
        romeo.refused("delete", &session, "next", &form, "bad-payload");
    }
    // With a file of one's own, only that one is deleted.
    let form = submit(&[("files", &[&her_id, &offer.options()[0].1])]);
    let confirm = romeo.act("delete", &session, "next", &form);
    assert_eq!(confirm.fixed().len(), 1);
    assert_eq!(
        confirm.element.child("note").unwrap().attribute("type"),
        Some("warn")
    );
    // Actions that are not possible, and sessions of others, of other commands, and made-up ones.
    romeo.refused("delete", &session, "next", "", "bad-action");
    romeo.refused("delete", &session, "jump", "", "malformed-action");
    romeo.refused("delete-all", &session, "complete", "", "bad-sessionid");
    for forged in [
        "x",
        "AAAA",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        &her_offer.session,
    ] {
        romeo.refused("delete", forged, "complete", "", "bad-sessionid");
    }
    for action in ["prev", "next", "complete"] {
        let reply = romeo.send(&format!("node='delete' action='{action}'"), "");
        assert_eq!(specific(&reply), "bad-action", "{action}");
    }
    let reply = romeo.send("node='delete' action='cancel'", "");
    assert_eq!(specific(&reply), "bad-sessionid");
    let reply = romeo.send("node='delete' xml:lang='no language'", "");
    assert_eq!(specific(&reply), "bad-locale");
    // In any language that there is, the answer is in English.
    let reply = romeo.send("node='delete' xml:lang='de'", "");
    assert_eq!(Answer::of(&reply).element.attribute("xml:lang"), Some("en"));
    let mut juliet = user(&mut site, JULIET);
    juliet.refused("delete", &session, "complete", "", "bad-sessionid");
    let reply = site.link().iq("get", ROMEO, &command("node='uploads'", ""));
    assert_eq!(specific(&reply), "service-unavailable");
    // Nothing was deleted; the session still works from another resource of the same user.
    for slot in [&his, &hers] {
        site.get(&slot.get).is(200);
    }
    let mut tablet = user(&mut site, ROMEO);
    tablet.jid = format!("{ROMEO}/tablet");
    let done = tablet.act("delete", &session, "complete", "");
    assert_eq!(done.note(), ("info", "Deleted 1 file, 5 B."));
    site.get(&hers.get).is(200);
}

#[test]
fn sessions_are_bounded_and_end_with_the_process() {
    let mut site = Plan::new().without("whitelist").start();
    site.program.allow("whitelist");
    for number in 0..3 {
        site.fill(&format!("{number}@montague.tld"), 10);
    }
    site.fill(ROMEO, 10);
    assert_alive(&mut site);
    let before = site.program.memory("VmHWM");
    // One user begins many sessions: the oldest end.
    let mut romeo = user(&mut site, ROMEO);
    let sessions: Vec<String> = (0..50).map(|_| romeo.run("delete-all").session).collect();
    romeo.refused(
        "delete-all",
        &sessions[0],
        "complete",
        "",
        "session-expired",
    );
    romeo.refused(
        "delete-all",
        &sessions[45],
        "complete",
        "",
        "session-expired",
    );
    let canceled = romeo.act("delete-all", &sessions[46], "cancel", "");
    assert_eq!(canceled.status, "canceled");
    // Thousands of users do so, with long names.
    let mut writer = site.link().writer();
    let count = 3000;
    let sender = std::thread::spawn(move || {
        for number in 0..count {
            let name = format!("{number}{}", "x".repeat(900));
            let stanza = format!(
                "<iq type='set' id='{number}' from='{name}@montague.tld/r' to='{COMPONENT}'>{}</iq>",
                command("node='delete'", "")
            );
            writer.write_all(stanza.as_bytes()).unwrap();
        }
    });
    for _ in 0..count {
        let reply = site.link().stanza();
        // Some wait for the store longer than there are places.
        if reply.attribute("type") == Some("error") {
            assert_eq!(specific(&reply), "resource-constraint");
        }
    }
    sender.join().unwrap();
    assert_alive(&mut site);
    let grown = site.program.memory("VmHWM") - before;
    assert!(grown < 16 * 1024, "{grown} KiB more");
    // After a restart, the sessions are over; their IDs are still known as such.
    let last = user(&mut site, ROMEO).run("delete-all").session;
    site.restart();
    site.program.allow("whitelist");
    let mut romeo = user(&mut site, ROMEO);
    romeo.refused("delete-all", &last, "complete", "", "session-expired");
}

#[test]
fn large_forms_are_bounded() {
    let mut site = Plan::new().start();
    site.upload("a.txt", None, b"12345");
    let mut romeo = user(&mut site, ROMEO);
    let offer = romeo.run("delete");
    let id = offer.options()[0].1.clone();
    // Unknown fields are ignored.
    let fields: String = (0..1000)
        .map(|n| format!("<field var='f{n}'><value>v</value></field>"))
        .collect();
    let form = submit(&[("files", &[&id])]).replace("</x>", &format!("{fields}</x>"));
    let confirm = romeo.act("delete", &offer.session, "next", &form);
    assert_eq!(confirm.fixed().len(), 1);
    // Ten thousand do not fit into a stanza.
    let fields: String = (0..10_000)
        .map(|n| format!("<field var='f{n}'><value>v</value></field>"))
        .collect();
    let form = submit(&[]).replace("</x>", &format!("{fields}</x>"));
    let reply = romeo.go_on("delete", &offer.session, "next", &form);
    assert_eq!(error_of(&reply).1, "not-acceptable");
    let done = romeo.act("delete", &offer.session, "complete", "");
    assert_eq!(done.note().0, "info");
    assert_alive(&mut site);
}

/// A form with the longest names is not too large for a stanza, even when a client returns all of it.
#[test]
fn forms_with_long_names_fit_into_a_stanza() {
    let mut site = Plan::new().start();
    let name = "&".repeat(255);
    for number in 0..60 {
        seed(
            &site.store(),
            &format!("{ROMEO_FOLDER}/r{number}/{name}"),
            b"1",
        );
    }
    let mut romeo = user(&mut site, ROMEO);
    let list = romeo.run("uploads");
    assert!(list.field("upload-50").0.contains(&"&".repeat(80)));
    let offer = romeo.run("delete");
    assert_eq!(offer.options().len(), 50);
    assert!(
        offer
            .text("instructions")
            .contains("there are 10 older ones")
    );
    let options: String = offer
        .options()
        .iter()
        .map(|(label, value)| {
            format!(
                "<option label='{}'><value>{value}</value></option>",
                xml::escape(label)
            )
        })
        .collect();
    let ids: Vec<String> = offer.options().into_iter().map(|(_, id)| id).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let form = submit(&[("files", &ids)]).replace("</field>", &format!("{options}</field>"));
    let confirm = romeo.act("delete", &offer.session, "next", &form);
    assert_eq!(confirm.fixed().len(), 50);
    let done = romeo.act("delete", &offer.session, "complete", "");
    assert_eq!(done.note(), ("info", "Deleted 50 files, 50 B."));
}

/// Commands on a large folder do not delay other requests.
#[test]
fn a_large_folder_does_not_delay_others() {
    let mut site = Plan::new().set("fsync", "false").start();
    let files = if crate::harness::wait::long() {
        100_000
    } else {
        3_000
    };
    let folder = site.store().join(ROMEO_FOLDER);
    fs::create_dir_all(&folder).unwrap();
    for number in 0..files {
        fs::write(folder.join(format!("f{number}")), b"1").unwrap();
    }
    site.fill(JULIET, 10);
    let link = site.link();
    let ask = |id: &str, from: &str, node: &str| {
        let payload = command(&format!("node='{node}'"), "");
        format!("<iq type='set' id='{id}' from='{from}' to='{COMPONENT}'>{payload}</iq>")
    };
    link.send(&ask("large", ROMEO, "uploads"));
    link.send(&ask("small", JULIET, "uploads"));
    // The short list and other stanzas come first.
    let ping = format!(
        "<iq type='get' id='ping' from='{JULIET}' to='{COMPONENT}'><ping xmlns='urn:xmpp:ping'/></iq>"
    );
    link.send(&ping);
    let mut order = Vec::new();
    for _ in 0..3 {
        let reply = link.stanza();
        order.push(reply.attribute("id").unwrap().to_owned());
        if order.last().is_some_and(|id| id == "large") {
            assert_eq!(
                Answer::of(&reply).field("files").1,
                format!("{files} files")
            );
        }
    }
    assert_eq!(order.last().unwrap(), "large", "{order:?}");
    // Deleting all of them neither.
    link.set_patience(Duration::from_secs(120));
    let mut romeo = user(&mut site, ROMEO);
    let confirm = romeo.run("delete-all");
    let session = format!("node='delete-all' sessionid='{}'", confirm.session);
    let link = site.link();
    let payload = command(&session, "");
    link.send(&format!(
        "<iq type='set' id='all' from='{ROMEO}/phone' to='{COMPONENT}'>{payload}</iq>"
    ));
    link.send(&ping);
    assert_eq!(link.stanza().attribute("id"), Some("ping"));
    let done = Answer::of(&link.stanza());
    assert!(
        done.note().1.starts_with(&format!("Deleted {files} files")),
        "{done:?}"
    );
    assert!(!folder.exists());
}

/// Replies of up to 70 KB each are made only as fast as the server reads them.
#[test]
fn replies_wait_for_a_server_that_does_not_read() {
    let mut site = Plan::new().start();
    let (owners, name) = (32, "&".repeat(250));
    for owner in 0..owners {
        let folder = owner_folder(&format!("{owner}@montague.tld"));
        for number in 0..50 {
            seed(&site.store(), &format!("{folder}/r{number}/{name}"), b"1");
        }
    }
    assert_alive(&mut site);
    let before = site.program.memory("VmHWM");
    let stanzas: String = (0..4 * owners)
        .map(|number| {
            let from = format!("{}@montague.tld/r", number % owners);
            let payload = command("node='uploads'", "");
            format!("<iq type='set' id='{number}' from='{from}' to='{COMPONENT}'>{payload}</iq>")
        })
        .collect();
    site.link().send(&stanzas);
    // All replies are made, or as many as the server has room for.
    let idle = |site: &Site| {
        let ticks = || site.program.cpu_ticks();
        let before = ticks();
        std::thread::sleep(Duration::from_millis(300));
        ticks() == before
    };
    eventually("the program is idle", || idle(&site));
    let grown = site.program.memory("VmHWM") - before;
    assert!(grown < 3 * 1024, "{grown} KiB more");
    // All of them arrive. They are not parsed, which would take most of the test's time.
    let (mut stream, mut replies) = (site.link().writer(), Vec::new());
    let (end, mut found, mut counted) = (b"</iq>", 0, 0);
    while found < 4 * owners {
        let start = replies.len();
        replies.resize(start + (1 << 20), 0);
        let read = stream.read(&mut replies[start..]).unwrap();
        assert_ne!(read, 0, "the link ended");
        replies.truncate(start + read);
        while let Some(at) = replies[counted..].iter().position(|b| *b == b'/') {
            if replies.len() < counted + at - 1 + end.len() {
                break;
            }
            found += usize::from(replies[counted + at - 1..].starts_with(end));
            counted += at + 1;
        }
    }
    assert!(replies.len() > 6 << 20, "{}", replies.len());
}

#[cfg(feature = "s3")]
#[test]
fn uploads_in_an_object_store_are_deleted_until_none_is_left() {
    let store = S3::new();
    let mut site = store
        .keep(Plan::new().without("storage_path"), "")
        .set("slot_secret", "00112233445566778899aabbccddeeff")
        .start();
    site.program.allow("config warning");
    let key = |number: u32| format!("{ROMEO_FOLDER}/{number:020}~a~m/f.bin");
    for number in 0..3 {
        store.seed(&key(number), b"ten bytes.", 1000);
    }
    let mut romeo = user(&mut site, ROMEO);
    let confirm = romeo.run("delete-all");
    let lists = store.requests("LIST").len();
    let done = romeo.act("delete-all", &confirm.session, "complete", "");
    assert_eq!(done.note(), ("info", "Deleted 3 files, 30 B."));
    // The second pass finds nothing: no upload was stored meanwhile.
    assert_eq!(store.requests("LIST").len(), lists + 2);
    assert!((0..3).all(|number| store.object(&key(number)).is_none()));
}
