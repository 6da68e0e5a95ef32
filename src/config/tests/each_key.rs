//! Tables of valid and invalid values of every key, and of combinations of keys.

use std::fmt::Debug;

use super::*;

type Field<T> = fn(&Config) -> T;

/// Checks valid values with the field that they set, without a warning, and invalid values, with one error about this
/// key and its line.
#[track_caller]
fn check<T: Debug + PartialEq>(
    key: &str,
    field: impl Fn(&Config) -> T,
    good: &[(&str, T)],
    bad: &[&str],
) {
    for (value, expected) in good {
        let text = with(&[key], &format!("{key}: {value}"));
        let reading = read(&text).unwrap_or_else(|errors| panic!("{key}: {value}\n{errors}"));
        assert_eq!(field(&reading.config), *expected, "{key}: {value}");
        assert_eq!(reading.warnings, [], "{key}: {value}");
    }
    for value in bad {
        let text = with(&[key], &format!("{key}: {value}"));
        let line = text.lines().count();
        let errors = read(&text).expect_err(value);
        assert_eq!(errors.errors.len(), 1, "{key}: {value}\n{errors}");
        let error = &errors.errors[0];
        assert_eq!(
            (error.key.as_str(), error.line),
            (key, Some(line)),
            "{key}: {value}\n{errors}"
        );
        assert!(error.to_string().ends_with('.'), "{error}");
    }
}

/// `check` for a switch.
#[track_caller]
fn check_switch(key: &str, field: impl Fn(&Config) -> bool) {
    let good = [
        ("yes", true),
        ("Off", false),
        ("'true'", true),
        ("FALSE", false),
    ];
    check(key, field, &good, &["maybe", "[true]", "{}", "2"]);
}

#[test]
fn reads_each_key() {
    let uses = |read: fn(&Component) -> String| move |c: &Config| c.component.as_ref().map(read);
    let some = |text: &str| Some(text.to_owned());
    check(
        "component_jid",
        uses(|c| c.jid.clone()),
        &[
            ("Upload.Example.org", some("upload.example.org")),
            ("localhost", some("localhost")),
        ],
        &["a@b.example", "a b", "[a.example]", "a/b"],
    );
    check(
        "component_secret",
        uses(|c| {
            format!(
                "{:?} {}",
                c.secret,
                c.secret == SecretSource::Inline(Secret::new("0123"))
            )
        }),
        &[
            ("0123", some("Inline(Secret(..)) true")),
            ("yes", some("Inline(Secret(..)) false")),
        ],
        &["[hunter2]", "{}"],
    );
    check(
        "component_host",
        uses(|c| c.host.clone()),
        &[
            ("xmpp.example", some("xmpp.example")),
            ("'::1'", some("::1")),
            ("'[::1]'", some("::1")),
            ("", some("localhost")),
        ],
        &["a b", "host:5347", "[::1, ::2]"],
    );
    check(
        "component_port",
        uses(|c| c.port.to_string()),
        &[
            ("5347", some("5347")),
            ("'1'", some("1")),
            ("~", some("5347")),
        ],
        &["0", "65536", "-1", "xmpp", "05347"],
    );
    let path = PathBuf::from;
    check(
        "storage_path",
        |c| c.storage_path.clone(),
        &[("/srv/a b", path("/srv/a b")), ("./files", path("./files"))],
        &["/", "//", "/..", "[a]", "\"a\\0b\""],
    );
    check(
        "file_mode",
        |c| c.file_mode,
        &[("0644", 0o644), ("640", 0o640), ("0o600", 0o600)],
        &["0o200", "9", "rw", "01777"],
    );
    check(
        "dir_mode",
        |c| c.dir_mode,
        &[("'0755'", 0o755), ("700", 0o700)],
        &["0640", "x", "2750"],
    );
    check_switch("fsync", |c| c.fsync);
    check_switch("allow_web_clients", |c| c.allow_web_clients);
    check_switch("serve_downloads", |c| c.serve_downloads);
    check(
        "max_file_size",
        |c| c.max_file_size,
        &[("1 B", 1), ("'5 GiB'", 5 << 30), ("", 20 << 20)],
        &["0", "-1", "20M", "lots"],
    );
    let sizes: [(&str, Field<u64>); 3] = [
        ("user_quota_hard", |c| c.user_quota_hard),
        ("global_quota", |c| c.global_quota),
        ("min_free_space", |c| c.min_free_space),
    ];
    for (key, field) in sizes {
        check(
            key,
            field,
            &[("0", 0), ("1 GB", 1_000_000_000)],
            &["-1", "1.5", "x", "9223372036854775808"],
        );
    }
    check(
        "put_timeout",
        |c| c.put_timeout,
        &[("300", secs(300)), ("1 h", secs(3600))],
        &["0", "1.5", "366 d", "x"],
    );
    let timeouts: [(&str, Field<Duration>); 4] = [
        ("header_timeout", |c| c.header_timeout),
        ("body_timeout", |c| c.body_timeout),
        ("idle_timeout", |c| c.idle_timeout),
        ("shutdown_timeout", |c| c.shutdown_timeout),
    ];
    for (key, field) in timeouts {
        let good = [
            ("1", secs(1)),
            ("2.5", Duration::from_millis(2500)),
            ("86400", secs(86_400)),
        ];
        check(key, field, &good, &["0", "0.5", "86401", "-1", "x"]);
    }
    check(
        "max_connections",
        |c| c.max_connections,
        &[("1", Some(1)), ("65000", Some(65_000)), ("", None)],
        &["0", "65001", "x"],
    );
    check(
        "max_connections_per_address",
        |c| c.max_connections_per_address,
        &[("0", 0), ("20", 20)],
        &["-1", "65001"],
    );
    check(
        "log_level",
        |c| c.log_level,
        &[("DEBUG", LevelFilter::Debug)],
        &["off", "loud", "[info]"],
    );
    check(
        "slot_secret",
        |c| c.slot_secret.as_ref().map(|s| s.expose().to_owned()),
        &[("0123456789abcdef", some("0123456789abcdef")), ("''", None)],
        &["0123456789abcde", "[0123456789abcdef]"],
    );
    check(
        "slot_secret_file",
        |c| c.slot_secret_file.clone(),
        &[("/k", Some(path("/k"))), ("", None)],
        &["[/k]", "\"a\\nb\""],
    );
}

#[test]
fn reads_keys_that_take_lists() {
    let strings = |list: &[&str]| Some(list.iter().map(|&s| s.to_owned()).collect::<Vec<_>>());
    check(
        "whitelist",
        |c| {
            c.whitelist
                .as_ref()
                .map(|list| list.iter().map(BareJid::to_string).collect())
        },
        &[
            ("example.org", strings(&["example.org"])),
            ("'Romeo@Montague.TLD'", strings(&["romeo@montague.tld"])),
            ("a.example b.example", strings(&["a.example", "b.example"])),
            ("a.example, b.example", strings(&["a.example", "b.example"])),
            (
                "[a.example, 'u@b.example']",
                strings(&["a.example", "u@b.example"]),
            ),
        ],
        &[
            "",
            "''",
            "~",
            "'*.example.org'",
            "'*@example.org'",
            "u@b.example/home",
            "a b@",
            "[a, [b]]",
            "[a, ~]",
            "{a: b}",
            "'@'",
            "a,b",
        ],
    );
    check(
        "admins",
        |c| Some(c.admins.iter().map(BareJid::to_string).collect()),
        &[
            ("'Romeo@Montague.TLD'", strings(&["romeo@montague.tld"])),
            (
                "[a@b.example, c@d.example]",
                strings(&["a@b.example", "c@d.example"]),
            ),
            ("[]", strings(&[])),
        ],
        &[
            "",
            "b.example",
            "'@b.example'",
            "a@b.example/home",
            "[a@b.example, c]",
            "true",
        ],
    );
    let types: [(&str, Field<Option<Vec<String>>>); 2] = [
        ("allowed_file_types", |c| c.allowed_file_types.clone()),
        ("safe_file_types", |c| c.safe_file_types.clone()),
    ];
    for (key, field) in types {
        let good = [
            ("image/*", strings(&["image/*"])),
            ("[Image/PNG, '*/*']", strings(&["image/png", "*/*"])),
            ("image/png video/mp4", strings(&["image/png", "video/mp4"])),
        ];
        check(
            key,
            field,
            &good,
            &["", "''", "image", "[image/png; q=1]", "{}", "'*'"],
        );
    }
    let listening = |c: &Config| c.listen.iter().map(Listen::to_string).collect::<Vec<_>>();
    check(
        "http_address",
        |c| Some(listening(c)),
        &[
            ("", strings(&["127.0.0.1:8080"])),
            ("'::'", strings(&["[::]:8080"])),
            ("localhost", strings(&["127.0.0.1:8080", "[::1]:8080"])),
            (
                "[127.0.0.1, '[::1]:8081', 'unix:/run/u']",
                strings(&["127.0.0.1:8080", "[::1]:8081", "unix:/run/u"]),
            ),
            (
                "[127.0.0.1:0, 127.0.0.1:0]",
                strings(&["127.0.0.1:0", "127.0.0.1:0"]),
            ),
        ],
        &[
            "[]",
            "upload.example.org",
            "'*'",
            "[127.0.0.1, ~]",
            "{}",
            "unix:here",
        ],
    );
    check(
        "http_port",
        |c| Some(listening(c)),
        &[
            ("0", strings(&["127.0.0.1:0"])),
            ("'8443'", strings(&["127.0.0.1:8443"])),
        ],
        &["65536", "-1", "http", "[80]"],
    );
    check(
        "trusted_proxies",
        |c| Some(c.trusted_proxies.iter().map(IpNet::to_string).collect()),
        &[
            ("[]", strings(&[])),
            ("", strings(&[])),
            ("localhost", strings(&["127.0.0.0/8", "::1/128"])),
            (
                "[10.1.2.3/8, '::ffff:192.0.2.1']",
                strings(&["10.0.0.0/8", "192.0.2.1/32"]),
            ),
            ("10.0.0.0/8 fd00::/8", strings(&["10.0.0.0/8", "fd00::/8"])),
        ],
        &["unix", "proxy.example", "[10.0.0.0/33]", "{}"],
    );
}

#[test]
fn reads_urls() {
    for key in ["get_url", "put_url"] {
        check(
            key,
            |c| {
                [&c.get_url, &c.put_url]
                    .map(|url| url.prefix.len())
                    .iter()
                    .sum::<usize>()
            },
            &[
                ("https://up.example/a", 19 + 21),
                ("http://localhost:80", 19 + 20),
            ],
            &[
                "up.example",
                "https://up.example/?a",
                "https://münchen.example/",
                "[a]",
                "ftp://a/",
            ],
        );
    }
    let text = with(&["get_url"], "get_url: https://romeo:hunter3@up.example/");
    assert!(
        !read(&text)
            .expect_err("a password")
            .to_string()
            .contains("hunter3")
    );
}

#[test]
fn reads_custom_headers() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    check(
        "custom_headers",
        |c| c.custom_headers.clone(),
        &[
            ("{}", vec![]),
            ("", vec![]),
            (
                "{X-A: 1, Cache-Control: 'no-store'}",
                vec![pair("X-A", "1"), pair("Cache-Control", "no-store")],
            ),
        ],
        &[
            "[X-A]",
            "X-A",
            "{Content-Length: 1}",
            "{Access-Control-Allow-Origin: '*'}",
            "{X-A: [1]}",
            "{X-A: }",
            "{X-A: ''}",
            "{X-A: é}",
            "{X-A: \"a\\r\\nb: c\"}",
            "{'X A': 1}",
            "{X-A: 1, x-a: 2}",
        ],
    );
    let own_cors = "allow_web_clients: no\ncustom_headers:\n  Access-Control-Allow-Origin: https://a.example\n";
    assert_eq!(good(&with(&[], own_cors)).config.custom_headers.len(), 1);
    let lines: String = (0..65).map(|n| format!("  X-{n}: a\n")).collect();
    assert_eq!(
        errors(&with(&[], &format!("custom_headers:\n{lines}"))),
        ["custom_headers@7"]
    );
    let text = with(
        &[],
        "custom_headers:\n  X-A: a\n  Date: b\n  X-B: a\n  X-a: c\n",
    );
    assert_eq!(errors(&text), ["custom_headers@9", "custom_headers@11"]);
}

#[test]
fn checks_keys_that_depend_on_each_other() {
    let component = &["component_jid", "component_secret"][..];
    assert_eq!(
        errors(&with(&["component_secret"], "")),
        ["component_secret"]
    );
    assert_eq!(errors(&with(&["component_jid"], "")), ["component_jid"]);
    assert_eq!(
        errors(&with(component, "component_secret_file: /s")),
        ["component_jid"]
    );
    assert_eq!(
        errors(&with(&[], "component_secret_file: /s")),
        ["component_secret_file@7"]
    );
    let from_file = good(&with(&["component_secret"], "component_secret_file: /s"))
        .config
        .component;
    assert_eq!(
        from_file.map(|c| c.secret),
        Some(SecretSource::File("/s".into()))
    );
    assert_eq!(good(&with(component, "")).config.component, None);

    assert_eq!(errors(&with(&[], "http_certfile: /c")), ["http_keyfile"]);
    assert_eq!(
        errors(&with(&[], "http_certfile: ''\nhttp_keyfile: /k")),
        ["http_certfile@7"]
    );
    let tls = good(&with(&[], "http_certfile: /c\nhttp_keyfile: /k"))
        .config
        .tls;
    let (certfile, keyfile) = ("/c".into(), "/k".into());
    assert_eq!(tls, Some(TlsFiles { certfile, keyfile }));

    let both = "slot_secret: 0123456789abcdef\nslot_secret_file: /k";
    assert_eq!(errors(&with(&[], both)), ["slot_secret_file@8"]);
}

#[test]
fn the_sandbox_is_automatic_or_off() {
    for (value, on) in [
        ("auto", true),
        ("Auto", true),
        ("off", false),
        ("false", false),
    ] {
        let config = good(&with(&[], &format!("sandbox: {value}"))).config;
        assert_eq!(config.sandbox, on, "{value}");
    }
    for value in ["on", "true", "strict", "1", "[]"] {
        assert_eq!(
            errors(&with(&[], &format!("sandbox: {value}"))),
            ["sandbox@7"],
            "{value}"
        );
    }
}

#[test]
fn warns_about_probable_mistakes() {
    let cases: [(&[&str], &str, &[&str]); 17] = [
        (&["whitelist"], "", &["whitelist: is absent"]),
        (
            &["whitelist"],
            "whitelist: []",
            &["whitelist (line 6): is an empty list"],
        ),
        (
            &["component_jid", "component_secret"],
            "",
            &["component_jid: is absent"],
        ),
        (
            &[],
            "max_filesize: 1",
            &["max_filesize (line 7): unknown key, ignored (did you mean max_file_size?)."],
        ),
        (
            &[],
            "colour: blue",
            &["colour (line 7): unknown key, ignored."],
        ),
        (
            &[],
            "\"a\\e[1m\": x",
            &["\"a\\u{1b}[1m\" (line 7): unknown key, ignored"],
        ),
        (
            &["get_url"],
            "get_url: http://up.example/",
            &["get_url (line 6): is not https"],
        ),
        (&[], "file_mode: 0666", &["file_mode (line 7): is 0666"]),
        (
            &[],
            "expire_maxage: 9 d\nuser_quota_soft: 9 kB",
            &[
                "expire_maxage (line 7): has no effect",
                "user_quota_soft (line 8): has no effect",
            ],
        ),
        (
            &[],
            "expire_interval: 9",
            &["expire_interval (line 7): has no effect"],
        ),
        (&[], "expire_interval: 9\nuser_quota_soft: 9 kB", &[]),
        (&[], "expire_interval: 9\nexpire_maxage: 9 d", &[]),
        (
            &[],
            "expire_interval: 9\nuser_quota_soft: 3 GB\nuser_quota_hard: 2 GB",
            &["user_quota_soft (line 8): is above user_quota_hard"],
        ),
        (
            &[],
            "user_quota_hard: 1 MB",
            &["max_file_size: is above user_quota_hard"],
        ),
        (
            &[],
            "evict_on_quota: yes",
            &["evict_on_quota (line 7): has no effect"],
        ),
        (
            &[],
            "trusted_proxies: [0.0.0.0/0]",
            &["trusted_proxies (line 7): has a network of all addresses"],
        ),
        (
            &[],
            "allowed_file_types: []",
            &["allowed_file_types (line 7): is an empty list"],
        ),
    ];
    for (without, lines, expected) in cases {
        let said = warnings(&with(without, lines));
        assert_eq!(said.len(), expected.len(), "{lines}\n{said:?}");
        for (said, expected) in said.iter().zip(expected) {
            assert!(
                said.starts_with(expected) && said.ends_with('.'),
                "{lines}\n{said}"
            );
        }
    }
}

#[test]
fn leaves_out_covered_listeners() {
    let cases = [
        ("['0.0.0.0', '::']", &["[::]:8080"][..], 1),
        (
            "['::', 127.0.0.1, '127.0.0.1:81']",
            &["[::]:8080", "127.0.0.1:81"],
            1,
        ),
        (
            "[127.0.0.1, localhost, '::1']",
            &["127.0.0.1:8080", "[::1]:8080"],
            2,
        ),
        ("['unix:/a', 'unix:/a']", &["unix:/a"], 1),
        ("''", &["0.0.0.0:8080"], 1),
    ];
    for (value, listening, count) in cases {
        let reading = good(&with(&[], &format!("http_address: {value}")));
        let places: Vec<String> = reading
            .config
            .listen
            .iter()
            .map(Listen::to_string)
            .collect();
        assert_eq!(places, listening, "{value}");
        assert_eq!(
            reading.warnings.len(),
            count,
            "{value}: {:?}",
            reading.warnings
        );
    }
}

/// All errors of a text with these lines, or else its warnings.
#[track_caller]
fn said(without: &[&str], lines: &str) -> Vec<String> {
    match read(&with(without, lines)) {
        Ok(reading) => reading.warnings.iter().map(Warning::to_string).collect(),
        Err(errors) => errors.errors.iter().map(ConfigError::to_string).collect(),
    }
}

/// Checks that these lines give one error or warning, with all these parts and without the secret.
#[track_caller]
fn says(without: &[&str], lines: &str, parts: &[&str]) {
    let said = said(without, lines);
    assert_eq!(said.len(), 1, "{lines}: {said:#?}");
    for part in parts {
        assert!(
            said[0].contains(part),
            "{lines}: {part:?} is not in {said:?}"
        );
    }
    assert!(!said[0].contains("hunter"), "{said:?}");
}

/// The keys that hold secrets, with the key that names a file instead.
const SECRETS: [(&str, Option<&str>); 6] = [
    ("component_secret", Some("component_secret_file")),
    ("slot_secret", Some("slot_secret_file")),
    ("external_secret", None),
    ("external_delete_secret", None),
    ("file_share_secret", None),
    ("token", None),
];

#[test]
fn placeholders_are_errors_for_every_secret() {
    for (key, file) in SECRETS {
        for value in [
            "change me",
            "changeme-0123456789",
            "${UPSLOT_SECRET_0123}",
            "'$(upslot_secret_0123)'",
            "'{{ upslot_secret_0123 }}'",
            "'<your-secret-goes-here>'",
            "a long secret word",
            "xxxxxxxxxxxxxxxxxxxx",
        ] {
            let lines = match key {
                "token" => format!("api:\n  port: 1\n  token: {value}"),
                _ => format!("{key}: {value}"),
            };
            let line = if key == "token" {
                9
            } else {
                7 - usize::from(key == "component_secret")
            };
            let begin = format!("{key} (line {line}): found ");
            let expected = match file {
                Some(file) => {
                    format!(
                        ", or the path of its file in {file}; environment variables are not expanded."
                    )
                }
                None => {
                    "expected the secret itself; environment variables are not expanded.".to_owned()
                }
            };
            says(&[key], &lines, &[&begin, &expected]);
        }
    }
}

#[test]
fn secrets_that_are_probably_mangled_are_reported() {
    for (value, part) in [
        ("hunter2-0123456789 #1", "ends where a comment begins"),
        (
            "hunter2-0123456789\t# from Prosody",
            "ends where a comment begins",
        ),
        ("' hunter2-0123456789'", "begins or ends with a space"),
        ("\"hunter2-0123456789 \"", "begins or ends with a space"),
        (
            "\u{201c}hunter2-0123456789\u{201d}",
            "found typographic quotes",
        ),
        (
            "\u{2018}hunter2-0123456789\u{2019}",
            "found typographic quotes",
        ),
        ("\u{ab}hunter2-0123456789\u{bb}", "found typographic quotes"),
        (
            "hunter2-0123456789\u{a0}",
            "an invisible character or a special space",
        ),
        (
            "\u{200b}hunter2-0123456789",
            "an invisible character or a special space",
        ),
        ("\"hunter2\\t0123456789\"", "a control character"),
        ("\"hunter2\\n0123456789\"", "more than one line"),
        (
            "|\n  hunter2-0123456789\n",
            "a control character or a line end",
        ),
        ("|\n  hunter2\n  0123456789", "more than one line"),
        ("/etc/hunter2-0123456789", "looks like a path"),
        ("/run/secrets/hunter2", "looks like a path"),
    ] {
        for (key, _) in &SECRETS[..5] {
            says(&[key], &format!("{key}: {value}"), &[key, part]);
        }
    }
    let quoted = "component_secret: '\u{201c}hunter2\u{201d} #1' # a comment";
    assert_eq!(said(&["component_secret"], quoted), [""; 0]);
    let unquoted = "component_secret: hunter2#1";
    assert_eq!(said(&["component_secret"], unquoted), [""; 0]);
    // PyYAML would make numbers or booleans of these.
    for (value, secret) in [
        ("0123", "0123"),
        ("1_0", "1_0"),
        ("yes", "yes"),
        ("1e3", "1e3"),
        ("0x1f", "0x1f"),
    ] {
        let text = with(&["component_secret"], &format!("component_secret: {value}"));
        let component = good(&text).config.component.map(|c| c.secret);
        assert_eq!(component, Some(SecretSource::Inline(Secret::new(secret))));
    }
}

#[test]
fn invalid_whitelist_entries_are_errors() {
    for (value, part) in [
        ("5", "found \"5\", expected a domain such as example.org"),
        ("[5]", "found \"5\""),
        ("192.168.1", "found \"192.168.1\""),
        (
            "true",
            "remove the key to let all users upload, or write [] for none",
        ),
        ("yes", "remove the key to let all users upload"),
        ("All", "remove the key to let all users upload"),
        ("everyone", "remove the key to let all users upload"),
        ("'*'", "a domain means all its users"),
        ("'*.example.org'", "a domain means all its users"),
        ("'@example.org'", "a domain means all its users"),
        (".example.org", "a domain means all its users"),
        ("romeo@example.org/orchard", "without a resource"),
        ("https://example.org/", "without a resource or URL scheme"),
        ("xmpp:romeo@example.org", "found \"xmpp:romeo@example.org\""),
        (
            "mailto:romeo@example.org",
            "found \"mailto:romeo@example.org\"",
        ),
        ("['example.org,']", "found \"example.org,\""),
        ("['example.org;']", "found \"example.org;\""),
        ("\u{201c}example.org\u{201d}", "found typographic quotes"),
        ("[\u{201e}example.org\u{201c}]", "found typographic quotes"),
        ("'\u{201c}example.org\u{201d}'", "expected a domain"),
        ("\n  \u{2013} example.org", "a dash or bullet"),
        ("[\u{2022} example.org]", "a dash or bullet"),
        (
            "exam\u{200b}ple.org",
            "an invisible character or a special space",
        ),
    ] {
        says(
            &["whitelist"],
            &format!("whitelist: {value}"),
            &["whitelist (line ", part],
        );
    }
    let good = [
        "127.0.0.1",
        "romeo@[::1]",
        "EXAMPLE.org",
        "example.org.",
        "localhost",
        "münchen.example",
        "l·l.example",
        "[example.org,]",
    ];
    for value in good {
        let value = if value.contains("::") {
            "'romeo@::1'"
        } else {
            value
        };
        assert_eq!(
            said(&["whitelist"], &format!("whitelist: {value}")),
            [""; 0],
            "{value}"
        );
    }
}

#[test]
fn punycode_in_jids_is_warned_about() {
    for value in [
        "xn--mnchen-3ya.example",
        "[example.org, romeo@chat.XN--MNCHEN-3ya.example]",
    ] {
        let lines = format!("whitelist: {value}");
        says(
            &["whitelist"],
            &lines,
            &[
                "whitelist (line 6)",
                "xn--mnchen-3ya.example",
                "Unicode names",
            ],
        );
    }
    for pattern in ["'@xn--mnchen-3ya\\.example$'", "['^a', '@.*\\.XN--mnchen']"] {
        let lines = format!("access: [{{jid: {pattern}}}]");
        says(&[], &lines, &["access.1.jid (line 7)", "Unicode names"]);
    }
    let lines = "component_jid: upload.xn--mnchen-3ya.example";
    says(
        &["component_jid"],
        lines,
        &["component_jid (line 6)", "Unicode name"],
    );
    let url = "put_url: https://xn--mnchen-3ya.example/";
    assert_eq!(said(&["put_url"], url), [""; 0]);
    assert_eq!(said(&["whitelist"], "whitelist: [axn--b.example]"), [""; 0]);
}

#[test]
fn patterns_in_double_quotes_are_explained() {
    let single = "'@example\\.org$'";
    says(
        &[],
        r#"access: [{jid: "@example\.org$"}]"#,
        &["line 7", "single quotes", single],
    );
    says(
        &[],
        "access:\n  - jid: \"\\d+@\"\n",
        &["line 8", "single quotes", single],
    );
    // YAML reads a backspace, without an error.
    says(
        &[],
        r#"access: [{jid: "\bromeo"}]"#,
        &["access.1.jid (line 7)", "YAML makes of a \\", single],
    );
    says(&[], "access: [{jid: '('}]", &["single quotes", single]);
    says(
        &[],
        "access: [{jid: \u{2018}@a$\u{2019}}]",
        &["found typographic quotes"],
    );
    says(
        &[],
        r"access: [{jid: '^romeo@example\.org/home$'}]",
        &["access.1.jid (line 7)", "matches nothing"],
    );
    assert_eq!(said(&[], r#"access: [{jid: "@example\\.org$"}]"#), [""; 0]);
}

#[test]
fn paths_are_not_expanded() {
    for key in ["storage_path", "http_certfile", "slot_secret_file"] {
        let other = if key == "http_certfile" {
            "http_keyfile: /k"
        } else {
            ""
        };
        for (value, part) in [
            (
                "${CREDENTIALS_DIRECTORY}/x",
                "environment variables are not expanded",
            ),
            ("$(pwd)/x", "are not expanded"),
            ("'{{ folder }}/x'", "are not expanded"),
            ("~/x", "without ~"),
            ("file:///srv/x", "without the prefix file:"),
            ("/srv/x,", "does not end with a comma"),
            ("'/srv/x '", "does not end with"),
            ("\u{201c}/srv/x\u{201d}", "found typographic quotes"),
        ] {
            says(&[key], &format!("{key}: {value}\n{other}"), &[key, part]);
        }
    }
    for folder in ["/etc", "/var/", "/home", "/usr"] {
        says(
            &["storage_path"],
            &format!("storage_path: {folder}"),
            &["not a system directory"],
        );
    }
    assert_eq!(
        said(&["storage_path"], "storage_path: /var/lib/a,b~$c"),
        [""; 0]
    );
}

#[test]
fn numbers_in_another_unit_are_warned_about() {
    for (lines, key) in [
        ("max_file_size: 20", "max_file_size"),
        (
            "user_quota_hard: 100\nmax_file_size: 100 B",
            "user_quota_hard",
        ),
        ("global_quota: 500", "global_quota"),
        ("min_free_space: 1", "min_free_space"),
        ("expire_maxage: 30\nexpire_interval: 3600", "expire_maxage"),
    ] {
        says(&[], lines, &[key, "has no unit"]);
    }
    let good = "max_file_size: 20 B\nmin_free_space: 0\nexpire_maxage: 30 s\nexpire_interval: 1";
    assert_eq!(said(&[], good), [""; 0]);
    says(
        &[],
        "component_port: 5222",
        &["component_port (line 7)", "client port"],
    );
    says(&[], "component_port: 5269", &["server-to-server port"]);
}
