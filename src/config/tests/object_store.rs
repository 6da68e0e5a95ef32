//! The section `s3`: its entries, their errors and warnings, and its effect on other keys.

use super::*;
use crate::config::object_store;

/// A complete section, on one line.
const STORE: &str =
    "endpoint: https://s3.example.org, bucket: uploads, access_key: upslot, secret_key: hunter2";

/// A configuration with the section; more entries, and more lines after it. The section is in line 6.
fn with_store(entries: &str, lines: &str) -> String {
    let secret = "slot_secret: 0123456789abcdef";
    with(
        &["storage_path"],
        &format!("s3: {{{STORE}{entries}}}\n{secret}\n{lines}"),
    )
}

/// [`STORE`] without the entries of these names.
fn without(names: &[&str]) -> String {
    let stays = |entry: &&str| !names.iter().any(|name| entry.starts_with(name));
    let entries: Vec<&str> = STORE.split(", ").filter(stays).collect();
    entries.join(", ")
}

#[track_caller]
fn store(text: &str) -> ObjectStore {
    *good(text).config.s3.expect("an object store")
}

/// The errors of a text, or else its warnings.
#[track_caller]
fn said(text: &str) -> Vec<String> {
    match read(text) {
        Ok(reading) => reading.warnings.iter().map(Warning::to_string).collect(),
        Err(errors) => errors.errors.iter().map(ConfigError::to_string).collect(),
    }
}

/// Checks that a text gives exactly one error or warning, which begins like this and has this part.
#[track_caller]
fn says(text: &str, begin: &str, part: &str) {
    let said = said(text);
    assert_eq!(said.len(), 1, "{text}: {said:#?}");
    assert!(
        said[0].starts_with(begin) && said[0].contains(part) && said[0].ends_with('.'),
        "{text}: {said:?}"
    );
    assert!(!said[0].contains("hunter2"), "{said:?}");
}

#[test]
fn a_minimal_store_has_the_documented_defaults() {
    let Reading {
        config, warnings, ..
    } = good(&with_store("", ""));
    assert_eq!(warnings, []);
    let endpoint = object_store::endpoint("https://s3.example.org").unwrap();
    let expected = ObjectStore {
        internal_endpoint: endpoint.clone(),
        endpoint,
        bucket: "uploads".into(),
        region: "us-east-1".into(),
        prefix: String::new(),
        path_style: true,
        access_key: "upslot".into(),
        secret_key: SecretKey::new("hunter2"),
        secret_key_file: None,
        ca_file: None,
        put: PutMode::Relay,
        get: GetMode::Redirect,
        public_url: None,
        sign_content_type: true,
    };
    assert_eq!(config.s3.as_deref(), Some(&expected));
    assert_eq!(config.storage_path, Path::new(""));
    assert_eq!(config.min_free_space, 0);
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn every_entry_is_read() {
    let text = with(
        &["storage_path"],
        "slot_secret_file: /run/secrets/slot
s3:
  endpoint: https://s3.example.org:8443
  internal_endpoint: https://10.0.0.7
  bucket: up.loads_2
  region: garage
  prefix: /a/b
  path_style: yes
  access_key: GK31
  secret_key_file: /run/secrets/s3
  ca_file: /etc/upslot/ca.pem
  put: direct
  get: public
  public_url: https://cdn.example/files
  sign_content_type: false
",
    );
    let Reading {
        config,
        warnings,
        lines,
    } = good(&text);
    assert_eq!(warnings, []);
    assert_eq!(lines.named("s3.ca_file"), "s3.ca_file (line 16)");
    let expected = ObjectStore {
        endpoint: object_store::endpoint("https://s3.example.org:8443").unwrap(),
        internal_endpoint: object_store::endpoint("https://10.0.0.7").unwrap(),
        bucket: "up.loads_2".into(),
        region: "garage".into(),
        prefix: "a/b/".into(),
        path_style: true,
        access_key: "GK31".into(),
        secret_key: SecretKey::new(""),
        secret_key_file: Some("/run/secrets/s3".into()),
        ca_file: Some("/etc/upslot/ca.pem".into()),
        put: PutMode::Direct,
        get: GetMode::Public,
        public_url: Some("https://cdn.example/files/".into()),
        sign_content_type: false,
    };
    assert_eq!(config.s3.as_deref(), Some(&expected));
}

#[test]
fn an_empty_section_is_none() {
    for value in ["", "~", "''"] {
        let reading = good(&with(&[], &format!("s3: {value}")));
        assert_eq!((reading.config.s3, reading.warnings), (None, vec![]));
    }
}

#[test]
fn all_errors_are_reported_at_once() {
    let text = with(
        &["storage_path"],
        "s3:
  endpoint: https://s3.example.org/uploads
  internal_endpoint: here
  bucket: a/b
  region: a b
  prefix: ../x
  path_style: perhaps
  access_key: change me
  secret_key: [hunter2]
  ca_file: ~/ca.pem
  put: redirect
  get: direct
  public_url: /files
  sign_content_type: 7
  acess_key: x
  bucket: twice
",
    );
    let mut found = errors(&text);
    let mut wanted = [
        "s3.endpoint@7",
        "s3.internal_endpoint@8",
        "s3.bucket@9",
        "s3.region@10",
        "s3.prefix@11",
        "s3.path_style@12",
        "s3.access_key@13",
        "s3.secret_key@14",
        "s3.ca_file@15",
        "s3.put@16",
        "s3.get@17",
        "s3.public_url@18",
        "s3.sign_content_type@19",
        "s3.acess_key@20",
        "s3.bucket@21",
        "slot_secret",
    ]
    .map(str::to_owned)
    .to_vec();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
    assert!(!read(&text).unwrap_err().to_string().contains("hunter2"));
    for value in ["uploads", "[uploads]"] {
        let text = with(&["storage_path"], &format!("s3: {value}"));
        assert_eq!(errors(&text), ["s3@6", "slot_secret"]);
    }
}

#[test]
fn required_entries() {
    let text = with(&["storage_path"], "s3: {}\nslot_secret: 0123456789abcdef");
    let mut found = errors(&text);
    found.sort();
    let required = [
        "s3.access_key@6",
        "s3.bucket@6",
        "s3.endpoint@6",
        "s3.secret_key@6",
    ];
    assert_eq!(found, required);
    let text = |entries: &str| {
        with(
            &["storage_path"],
            &format!("s3: {{{entries}}}\nslot_secret: 0123456789abcdef"),
        )
    };
    says(
        &text(&without(&["secret_key"])),
        "s3.secret_key (line 6): found nothing, ",
        "the secret of access_key, or secret_key_file",
    );
    says(
        &with_store(", secret_key_file: /s", ""),
        "s3.secret_key_file (line 6): ",
        "only one of the two",
    );
    let file = format!("{}, secret_key_file: /s", without(&["secret_key"]));
    assert_eq!(store(&text(&file)).secret_key_file, Some("/s".into()));
}

#[test]
fn placeholders_are_not_keys() {
    for value in ["change me", "'${S3_SECRET}'", "xxxx", "'<your-secret>'"] {
        let entries = format!("{}, secret_key: {value}", without(&["secret_key"]));
        let text = with(
            &["storage_path"],
            &format!("slot_secret: 0123456789abcdef\ns3: {{ {entries} }}"),
        );
        says(
            &text,
            "s3.secret_key (line 7): found ",
            "or the path of its file in secret_key_file; environment variables are not expanded",
        );
    }
    let path = format!(
        "{}, secret_key: /run/secrets/hunter2",
        without(&["secret_key"])
    );
    let text = with(
        &["storage_path"],
        &format!("slot_secret: 0123456789abcdef\ns3: {{{path}}}"),
    );
    says(
        &text,
        "s3.secret_key (line 7): looks like a path",
        "use secret_key_file",
    );
}

#[test]
fn a_slot_secret_is_required() {
    let text = with(&["storage_path"], &format!("s3: {{{STORE}}}"));
    says(
        &text,
        "slot_secret: found nothing, expected a key of at least 16 bytes, or slot_secret_file, ",
        "no folder in which upslot could keep its own",
    );
    let text = with(
        &["storage_path"],
        &format!("s3: {{{STORE}}}\nslot_secret_file: /s"),
    );
    assert_eq!(said(&text), [""; 0]);
    // An invalid one is reported once.
    let text = with(
        &["storage_path"],
        &format!("s3: {{{STORE}}}\nslot_secret: x"),
    );
    says(&text, "slot_secret (line 7): ", "at least 16");
}

#[test]
fn keys_about_a_folder_are_not_used() {
    for (line, begin) in [
        (
            "storage_path: /srv/files",
            "storage_path (line 8): is not used",
        ),
        ("storage_path: /", "storage_path (line 8): is not used"),
        ("file_mode: 0600", "file_mode (line 8): is not used"),
        ("dir_mode: 0700", "dir_mode (line 8): is not used"),
        (
            "min_free_space: 1 GiB",
            "min_free_space (line 8): is not used",
        ),
        ("fsync: no", "fsync (line 8): has no effect"),
        (
            "serve_downloads: no",
            "serve_downloads (line 8): has no effect",
        ),
    ] {
        let text = with_store("", line);
        says(&text, begin, "s3");
        let config = good(&text).config;
        assert_eq!(config.storage_path, Path::new(""));
        assert!(config.fsync && config.serve_downloads && config.min_free_space == 0);
    }
    for line in [
        "min_free_space: 0",
        "fsync: yes",
        "serve_downloads: yes",
        "storage_path:",
    ] {
        assert_eq!(said(&with_store("", line)), [""; 0], "{line}");
    }
    let expiry =
        "expire_interval: 1 d\nexpire_maxage: 30 d\nuser_quota_hard: 1 GiB\nglobal_quota: 1 TiB";
    assert_eq!(said(&with_store("", expiry)), [""; 0]);
}

#[test]
fn limits_of_stores_are_reported() {
    let direct = ", put: direct";
    says(
        &with_store(direct, "put_timeout: 8 d"),
        "put_timeout (line 8): found 691200 s, expected at most 7 d",
        "put: direct",
    );
    assert_eq!(said(&with_store(direct, "put_timeout: 7 d")), [""; 0]);
    assert_eq!(said(&with_store("", "put_timeout: 8 d")), [""; 0]);
    says(
        &with_store("", "max_file_size: 6 GiB"),
        "max_file_size (line 8): is above 5 GiB",
        "one upload",
    );
    assert_eq!(said(&with_store("", "max_file_size: 5 GiB")), [""; 0]);
}

#[test]
fn public_links_need_a_url() {
    says(
        &with_store(", get: public", ""),
        "s3.public_url (line 6): found nothing, ",
        "because get is public",
    );
    for more in ["", ", get: relay"] {
        let text = with_store(&format!("{more}, public_url: https://cdn.example"), "");
        says(
            &text,
            "s3.public_url (line 6): has no effect",
            "get is not public",
        );
        assert_eq!(store(&text).public_url, None);
    }
    let public = ", get: public, public_url: https://cdn.example";
    let shown = store(&with_store(public, "")).public_url;
    assert_eq!(shown.as_deref(), Some("https://cdn.example/"));
    says(
        &with_store(", get: public, public_url: http://cdn.example", ""),
        "s3.public_url (line 6): is not https",
        "refuse",
    );
    says(
        &with_store(public, "safe_file_types: image/*"),
        "safe_file_types (line 8): has no effect",
        "get: public",
    );
}

#[test]
fn entries_without_effect_are_warned_about() {
    says(
        &with_store(", sign_content_type: false", ""),
        "s3.sign_content_type (line 6): has no effect",
        "put is relay",
    );
    let direct = ", put: direct, sign_content_type: false";
    assert!(!store(&with_store(direct, "")).sign_content_type);
    says(
        &with_store(", internal_endpoint: http://10.0.0.7, ca_file: /ca.pem", ""),
        "s3.ca_file (line 6): has no effect",
        "https",
    );
    assert_eq!(said(&with_store(direct, "")), [""; 0]);
    assert_eq!(said(&with_store(", ca_file: /ca.pem", "")), [""; 0]);
}

#[test]
fn virtual_hosts_need_a_name_and_a_label() {
    let style = ", path_style: false";
    assert!(!store(&with_store(style, "")).path_style);
    for (entry, key) in [
        (", internal_endpoint: https://10.0.0.7", "internal_endpoint"),
        (
            ", internal_endpoint: 'https://[fd00::7]'",
            "internal_endpoint",
        ),
    ] {
        let begin = format!("s3.path_style (line 6): found false, although {key} is an IP address");
        says(
            &with_store(&format!("{style}{entry}"), ""),
            &begin,
            "first label",
        );
    }
    let section = |entries: String| {
        with(
            &["storage_path"],
            &format!("s3: {{{entries}{style}}}\nslot_secret: 0123456789abcdef"),
        )
    };
    says(
        &section(format!(
            "{}, endpoint: https://192.0.2.1",
            without(&["endpoint"])
        )),
        "s3.path_style (line 6): found false, although endpoint is an IP address",
        "first label",
    );
    says(
        &section(format!("{}, bucket: Uploads", without(&["bucket"]))),
        "s3.bucket (line 6): found \"Uploads\", which cannot be part of a host name",
        "path_style: true",
    );
    says(
        &section(format!("{}, bucket: up.loads", without(&["bucket"]))),
        "s3.path_style (line 6): is false",
        "no wildcard certificate",
    );
}

#[test]
fn endpoints_that_clients_cannot_use_are_warned_about() {
    let section = |endpoint: &str, more: &str| {
        let entries = format!("{}, endpoint: '{endpoint}'{more}", without(&["endpoint"]));
        with(
            &["storage_path"],
            &format!("s3: {{{entries}}}\nslot_secret: 0123456789abcdef"),
        )
    };
    let begin = "s3.endpoint (line 6): ";
    for more in ["", ", get: relay, put: direct"] {
        says(
            &section("http://127.0.0.1:3900", more),
            begin,
            "is this machine, but clients are sent there",
        );
        for endpoint in ["http://s3.example.org", "http://10.0.0.7:3900"] {
            says(
                &section(endpoint, more),
                begin,
                "many clients refuse such links",
            );
        }
    }
    // Relayed, the address need not suit clients; the files are in the clear on the way to the store.
    let relay = ", get: relay";
    for endpoint in [
        "http://127.0.0.1:3900",
        "http://[fd00::7]",
        "http://garage:3900",
    ] {
        assert_eq!(said(&section(endpoint, relay)), [""; 0], "{endpoint}");
    }
    says(
        &section("http://s3.example.org", relay),
        begin,
        "unencrypted between upslot and the store",
    );
    says(
        &with_store(", internal_endpoint: http://s3.example.org", ""),
        "s3.internal_endpoint (line 6): ",
        "unencrypted between upslot and the store",
    );
    assert_eq!(
        said(&with_store(", internal_endpoint: http://10.0.0.7:3900", "")),
        [""; 0]
    );
    // On one machine everything may be local.
    let local = section("http://127.0.0.1:3900", "")
        .replace("https://up.example/", "http://localhost:8080/");
    assert_eq!(said(&local), [""; 0]);
}

#[test]
fn only_another_place_needs_a_restart() {
    let old = good(&with_store("", "")).config;
    for (entries, keys) in [
        ("", &[][..]),
        (", put: direct", &[]),
        (", get: relay", &[]),
        (", get: public, public_url: https://cdn.example", &[]),
        (", ca_file: /ca.pem", &[]),
        (", put: direct, sign_content_type: no", &[]),
        (", internal_endpoint: https://s3.example.org", &[]),
        (", internal_endpoint: https://store.example.org", &["s3"]),
        (", region: garage", &["s3"]),
        (", prefix: a", &["s3"]),
        (", path_style: no", &["s3"]),
    ] {
        let new = good(&with_store(entries, "")).config;
        assert_eq!(restart_keys(&old, &new), keys, "{entries}");
        assert_eq!(restart_keys(&new, &old), keys, "{entries}");
    }
    for (key, keys) in [
        ("endpoint", &["s3"][..]),
        ("bucket", &["s3"]),
        ("secret_key", &[]),
    ] {
        let value = match key {
            "endpoint" => "https://other.example.org",
            _ => "other-0123456789",
        };
        let entries = format!("{}, {key}: {value}", without(&[key]));
        let text = with(
            &["storage_path"],
            &format!("s3: {{{entries}}}\nslot_secret: 0123456789abcdef"),
        );
        assert_eq!(restart_keys(&old, &good(&text).config), keys, "{key}");
    }
    let folder = good(&with(&[], "slot_secret: 0123456789abcdef")).config;
    assert_eq!(restart_keys(&folder, &old), ["storage_path", "s3"]);
    assert_eq!(restart_keys(&old, &folder), ["storage_path", "s3"]);
}
