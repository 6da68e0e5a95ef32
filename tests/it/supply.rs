//! Dependencies: only from crates.io with a checksum, with allowed licences, none banned, none in two versions. The lists
//! are those of cargo-deny in `.cargo/deny.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Manifests of this tree; the second is that of the fuzzer.
const OURS: [&str; 2] = ["upslot", "upslot-fuzz"];

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The words in quotes of one list of `deny.toml`, without comments.
fn list(text: &str, section: &str, key: &str) -> Vec<String> {
    let from = text.find(&format!("\n[{section}]\n")).unwrap();
    let section = &text[from + 1..];
    let section = &section[..section.find("\n[").unwrap_or(section.len())];
    let from = section.find(&format!("\n{key} = [")).unwrap();
    let list = &section[from..];
    let list = &list[..list.find(']').unwrap()];
    let lines = list
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let words = lines.flat_map(|line| line.split('"').skip(1).step_by(2));
    let words: Vec<String> = words.map(str::to_owned).collect();
    assert!(!words.is_empty(), "no {key} in deny.toml");
    words
}

/// The packages of a lock file, key by key.
fn packages(lock: &str) -> Vec<BTreeMap<&str, &str>> {
    let packages = lock.split("[[package]]\n").skip(1).map(|package| {
        let lines = package.lines().filter_map(|line| line.split_once(" = "));
        lines
            .map(|(key, value)| (key, value.trim_matches('"')))
            .collect()
    });
    packages.collect()
}

/// The errors in a lock file.
fn violations_of_lock(lock: &str, deny: &str) -> Vec<String> {
    let banned = list(deny, "bans", "deny");
    let skipped = list(deny, "bans", "skip");
    let mut violations = Vec::new();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages(lock) {
        let (name, version) = (package["name"], package["version"]);
        let is_sum = |sum: &&str| sum.len() == 64 && sum.bytes().all(|b| b.is_ascii_hexdigit());
        if !OURS.contains(&name) {
            if package.get("source") != Some(&REGISTRY) {
                violations.push(format!(
                    "{name} {version} comes from {:?}",
                    package.get("source")
                ));
            }
            if package.get("checksum").filter(|sum| is_sum(sum)).is_none() {
                violations.push(format!("{name} {version} has no checksum"));
            }
        }
        if banned.iter().any(|banned| banned == name) {
            violations.push(format!("{name} is banned"));
        }
        let skipped = skipped.iter().any(|skip| {
            let (of, most) = skip.split_once('@').unwrap_or((skip, ""));
            of == name && (most.is_empty() || version.split('.').next() == Some(most))
        });
        if !skipped {
            versions.entry(name).or_default().push(version);
        }
    }
    let doubled = versions.iter().filter(|(_, versions)| versions.len() > 1);
    violations.extend(
        doubled.map(|(name, versions)| format!("{name} is there as {}", versions.join(" and "))),
    );
    violations
}

/// Whether an SPDX expression can be satisfied by allowed licences.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let text = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut rest = &words[..];
    let met = either(&mut rest, allowed);
    met && rest.is_empty()
}

fn either(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut met = both(words, allowed);
    while words.first() == Some(&"OR") {
        *words = &words[1..];
        // Both sides must be parsed.
        met |= both(words, allowed);
    }
    met
}

fn both(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut met = one(words, allowed);
    while words.first() == Some(&"AND") {
        *words = &words[1..];
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let Some((first, rest)) = words.split_first() else {
        return false;
    };
    *words = rest;
    if *first == "(" {
        let met = either(words, allowed);
        let closed = words.first() == Some(&")");
        *words = words.get(1..).unwrap_or_default();
        return met && closed;
    }
    let mut licence = (*first).to_owned();
    if words.first() == Some(&"WITH") {
        licence = format!("{licence} WITH {}", words.get(1).unwrap_or(&""));
        *words = words.get(2..).unwrap_or_default();
    }
    allowed.contains(&licence)
}

#[test]
fn one_registry_nothing_banned_nothing_doubled() {
    let deny = read(".cargo/deny.toml");
    for name in ["Cargo.lock", "tests/fuzz/libfuzzer/Cargo.lock"] {
        let lock = read(name);
        assert!(packages(&lock).len() > 20, "{name} was not understood");
        let mut violations = violations_of_lock(&lock, &deny);
        // Duplicate versions do not matter in the fuzzer.
        violations.retain(|violation| name == "Cargo.lock" || !violation.contains(" is there as "));
        assert!(violations.is_empty(), "{name}: {}", violations.join("\n"));
    }
}

#[test]
fn the_manifest_names_no_other_source() {
    let manifest = read("Cargo.toml");
    let mut section = "";
    let mut dependencies = 0;
    let mut reason = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.ends_with("dependencies]")
            && line.contains(" = ")
            && !line.starts_with('#')
        {
            dependencies += 1;
            assert!(line.contains("default-features = false"), "{line}");
            for word in ["git =", "path =", "registry =", "\"*\""] {
                assert!(!line.contains(word), "{line}");
            }
            assert!(reason, "no reason is given for {line}");
        }
        reason = line.starts_with('#') || (reason && line.contains(" = "));
    }
    assert!(dependencies > 10, "the manifest was not understood");
    assert!(
        !manifest.contains("[patch") && !manifest.contains("[replace"),
        "a source is replaced"
    );
}

/// The crates that `cargo tree` finds along these edges, a line each in this format.
fn cargo_tree(format: &str, edges: &str) -> String {
    let ran = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--prefix", "none"])
        .args(["--format", format, "-e", edges])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn licences_are_allowed() {
    let allowed: BTreeSet<String> = list(&read(".cargo/deny.toml"), "licenses", "allow")
        .into_iter()
        .collect();
    let tree = cargo_tree("{p}|{l}", "normal,build,dev");
    let lines: BTreeSet<&str> = tree
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .collect();
    let crates: Vec<(&str, &str)> = lines
        .iter()
        .filter_map(|line| line.split_once('|'))
        .collect();
    assert!(crates.len() > 20, "{tree}");
    for (name, licence) in crates {
        assert!(is_allowed(licence, &allowed), "{name} is under {licence:?}");
    }
}

/// The copyright file of the Debian package names every crate that is in the program.
#[test]
fn the_package_names_the_copyright_of_each_crate() {
    let tree = cargo_tree("{p}", "normal,no-proc-macro");
    let crates = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let crates: BTreeSet<&str> = crates.filter(|name| !OURS.contains(name)).collect();
    assert!(crates.len() > 20, "{tree}");
    let copyright = read("contrib/debian/copyright");
    let named = copyright.split("\nFiles: crates/").skip(1);
    let named: BTreeSet<&str> = named.filter_map(|rest| rest.split('/').next()).collect();
    assert_eq!(
        crates, named,
        "crates, and what contrib/debian/copyright names"
    );
}

/// The checks find errors.
#[test]
fn the_checks_find_faults() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "ISC".to_owned()]);
    for (expression, met) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT OR GPL-3.0", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("MIT AND ISC", true),
        ("(MIT OR GPL-3.0) AND ISC", true),
        ("(MIT OR ISC) AND GPL-3.0", false),
        ("MIT WITH exception", false),
        ("", false),
        ("MIT ISC", false),
    ] {
        assert_eq!(is_allowed(expression, &allowed), met, "{expression:?}");
    }
    let (lock, deny) = (read("Cargo.lock"), read(".cargo/deny.toml"));
    let sum = "0".repeat(64);
    let good = format!("source = \"{REGISTRY}\"\nchecksum = \"{sum}\"");
    for (more, violation) in [
        (format!("name = \"new\"\nversion = \"1.0.0\"\n{good}"), None),
        (
            "name = \"new\"\nversion = \"1.0.0\"".to_owned(),
            Some("new 1.0.0 comes from None"),
        ),
        (
            format!(
                "name = \"new\"\nversion = \"1.0.0\"\nsource = \"git+https://a/b#1\"\nchecksum = \"{sum}\""
            ),
            Some("new 1.0.0 comes from Some(\"git+https://a/b#1\")"),
        ),
        (
            format!("name = \"new\"\nversion = \"1.0.0\"\nsource = \"{REGISTRY}\""),
            Some("new 1.0.0 has no checksum"),
        ),
        (
            format!("name = \"tokio\"\nversion = \"1.0.0\"\n{good}"),
            Some("tokio is banned"),
        ),
        (
            format!("name = \"mio\"\nversion = \"0.1.0\"\n{good}"),
            Some("mio is there as"),
        ),
        (
            format!("name = \"syn\"\nversion = \"9.0.0\"\n{good}"),
            Some("syn is there as"),
        ),
    ] {
        let violations = violations_of_lock(&format!("{lock}\n[[package]]\n{more}\n"), &deny);
        let found = violation
            .is_none_or(|violation| violations.iter().any(|found| found.starts_with(violation)));
        assert!(
            found && (violation.is_none() == violations.is_empty()),
            "{more}: {violations:?}"
        );
    }
}
