//! The source tree keeps its layers: a module imports from lower layers, and in its own layer only from files listed
//! before it. The pure layers know no file, no socket and no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

mod docs;

/// Every file below `src/`, without its `.rs`, by layer and in import order.
const LAYERS: [&[&str]; 7] = [
    // 0: values.
    &[
        "now",
        "decimal",
        "units",
        "jid",
        "purpose",
        "refusal",
        "metrics",
        "log_limiter",
    ],
    // 1: decisions.
    &[
        "layout",
        "policy/pool",
        "policy/rules",
        "policy/rates",
        "policy/mod",
        "slot/mod",
        "slot/name",
        "slot/grant",
        "slot/own",
        "slot/external",
        "slot/jwt",
        "slot/presign",
        "slot/revoked",
        "slot/used",
        "clock",
        "expiry",
        "listing",
        "certificate",
    ],
    // 2: protocols.
    &[
        "xmpp/mod",
        "xmpp/syntax",
        "xmpp/element",
        "xmpp/scanner",
        "xmpp/xml",
        "xmpp/ended",
        "xmpp/stream",
        "xmpp/backoff",
        "xmpp/upload",
        "xmpp/form",
        "xmpp/adhoc",
        "xmpp/iq",
        "http/mod",
        "http/syntax",
        "http/origin",
        "http/head/error",
        "http/head/span",
        "http/head/line",
        "http/head/scan",
        "http/head",
        "http/body",
        "http/client",
        "http/range",
        "http/condition",
        "http/forwarded",
        "http/mime",
        "http/charset",
        "http/disposition",
        "http/cors",
        "http/accept",
        "http/landing",
        "http/response",
        "http/route",
        "http/query",
        "http/api",
        "http/exchange/want",
        "http/exchange/state",
        "http/exchange",
        // These continue what `exchange` begins.
        "http/exchange/receiving",
        "http/exchange/answering",
        "import/lua",
        "import/record",
    ],
    // 3: program.
    &[
        "config/error",
        "config/raw",
        "config/secret",
        "config/scalar",
        "config/address",
        "config/url",
        "config/contact",
        "config/headers",
        "config/stray",
        "config/object_store",
        "config/values",
        "config/keys",
        "config/nearest",
        "config/reader",
        "config/secrets",
        "config/access",
        "config/network",
        "config/api",
        "config/s3",
        "config/mod",
        "s3/mod",
        "s3/bucket",
        // It continues what `bucket` begins.
        "s3/bucket/requests",
        "s3/xml",
        "s3/error",
        "s3/listing",
        "s3/tasks/mod",
        "s3/tasks/pages",
        "s3/tasks/removals",
        "s3/tasks/sought",
        "s3/tasks/work",
        "s3/tasks/trim",
        "s3/tasks/aliases",
        "s3/tasks/sweep",
        "service/refusal",
        "service/limits",
        "service/announced",
        "service",
        // These continue what `service` begins.
        "service/target",
        "service/grants",
        "service/objects",
        "service/slots",
        "service/explain",
        "service/sessions",
        "service/commands",
        "service/commands/replies",
        "doctor/report",
        "doctor/proxy",
        "doctor/judge",
        "doctor/slots",
        "doctor/engine",
    ],
    // 4: system.
    &[
        "sys/errors",
        "sys/disk",
        "sys/clock",
        "sys",
        // These use the function of `sys` that repeats interrupted calls.
        "sys/sockets",
        "sys/files",
        "sys/process",
        "sys/folders",
        "tls",
        "setup",
        "sandbox",
        "transport/tls",
        "transport",
        "store/mod",
        "store/upload",
        "store/walk",
        "store/journal",
        "store/tombstones",
        "store/removal",
        "store/open",
        "store/aliases",
        "store/records",
        "store/usage/count",
        "store/usage",
        "store/usage/granted",
        "store/trim",
        "store/jobs",
        "store/sweep/owner",
        "store/sweep",
        "syncer",
        "resolve",
        "signals",
        "activation",
        "notify",
    ],
    // 5: loop.
    &[
        "reactor/table",
        "reactor/listener",
        "reactor/open_files",
        "reactor/random",
        "reactor/run_queue",
        "reactor/sync_token",
        "reactor/upstream/report",
        "reactor/upstream/addresses",
        "reactor/upstream/buffers",
        "reactor/upstream/exchange",
        "reactor/upstream/call",
        "reactor/upstream/connection",
        "reactor/upstream/pool",
        "reactor/upstream/mod",
        // These continue what `mod` begins.
        "reactor/upstream/timing",
        "reactor/upstream/work",
        "reactor/upstream/streams",
        "reactor/waiting",
        "reactor/path_claims",
        "reactor/note_lists",
        "reactor/conditional_puts",
        "reactor/revocations",
        "reactor/object_facts",
        "reactor/executions",
        "reactor/bucket_tasks",
        "reactor/bucket_store",
        "reactor/admission",
        "reactor/connection_limits",
        "reactor/store_monitor",
        "reactor/storage",
        "reactor/shared",
        // These continue what `shared` begins.
        "reactor/shared/health",
        "reactor/shared/object_store",
        "reactor/shared/slots",
        "reactor/timekeeper",
        "reactor/client",
        // These continue what `client` begins.
        "reactor/client/address",
        "reactor/client/get",
        "reactor/client/put",
        "reactor/client/object_relay",
        "reactor/client/object_get",
        "reactor/client/object_put",
        "reactor/client/object_put/checks",
        "reactor/client/object_put/relay",
        "reactor/client/object_put/outcome",
        "reactor/client/object_delete",
        "reactor/client/delete",
        "reactor/client/api",
        "reactor/client/decide",
        "reactor/client/activity",
        "reactor/connections",
        "reactor/component",
        "reactor/mod",
        // These continue what `mod` begins.
        "reactor/lifecycle",
        "reactor/bucket",
        "reactor/commands",
        "reactor/slots",
        "reactor/accept",
    ],
    // Top.
    &[
        "client",
        "list",
        "explain",
        "remove",
        "objects/client",
        "objects/commands",
        "objects/mod",
        "import/report",
        "import/place",
        "import/sources",
        "import/mod",
        "demo",
        "health",
        "doctor/network",
        "doctor/certificates",
        "doctor/session",
        "doctor/uploads",
        "doctor/bodies",
        "doctor/downloads",
        "doctor/service",
        "doctor/component",
        "doctor/storage",
        "doctor/object_store",
        // This continues what `object_store` begins.
        "doctor/object_store/clients",
        "doctor/mod",
        "logger",
        "lib",
        "arguments",
        "main",
    ],
];

/// Layers below this one are pure.
const FIRST_IMPURE: usize = 4;

/// What a pure layer does not say.
const IMPURE: [&str; 10] = [
    "std::fs",
    "std::env",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os::unix::net",
    "std::thread",
    "mio",
    "rustix",
    "Instant::now",
    "SystemTime::now",
];

/// Paths of a particular machine; written so that this file does not contain them.
const PLACES: [&str; 4] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/tmp/bash", "_jobs"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below a folder with that extension.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(String, String)> {
    let src = root().join("src");
    let mut paths = Vec::new();
    files(&src, &mut paths);
    let mut sources: Vec<(String, String)> = paths
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            let name = path.strip_prefix(&src).unwrap().with_extension("");
            (
                name.to_string_lossy().replace('\\', "/"),
                fs::read_to_string(path).unwrap(),
            )
        })
        .collect();
    // Tests beside the code are not checked, like blocks of `cfg(test)`.
    sources.retain(|(name, _)| !name.split('/').any(|part| part == "tests"));
    sources.sort();
    sources
}

/// Layer and place of a file.
fn rank(file: &str) -> Option<(usize, usize)> {
    LAYERS
        .iter()
        .enumerate()
        .find_map(|(layer, files)| Some((layer, files.iter().position(|name| *name == file)?)))
}

/// The file that holds `path`, such as `slot::grant::Grant`: the longest beginning of it that is a file.
fn file_of(path: &[&str]) -> Option<String> {
    (1..=path.len()).rev().find_map(|length| {
        let name = path[..length].join("/");
        [name.clone(), format!("{name}/mod")]
            .into_iter()
            .find(|name| rank(name).is_some())
    })
}

/// The code alone: comments and literals become blanks, so that what they say counts for nothing.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut i = 0;
    while i < chars.len() {
        let start = i;
        let name_before = i > 0 && (at(i - 1).is_alphanumeric() || at(i - 1) == '_');
        if at(i) == '/' && at(i + 1) == '/' {
            while i < chars.len() && at(i) != '\n' {
                i += 1;
            }
        } else if at(i) == '/' && at(i + 1) == '*' {
            let mut depth = 0;
            while i < chars.len() {
                match (at(i), at(i + 1)) {
                    ('/', '*') => (depth, i) = (depth + 1, i + 2),
                    ('*', '/') => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 {
                    break;
                }
            }
        } else if at(i) == 'r' && !name_before && raw_hashes(&chars, i + 1).is_some() {
            let hashes = raw_hashes(&chars, i + 1).unwrap();
            i += 2 + hashes;
            while i < chars.len() && !(at(i) == '"' && (1..=hashes).all(|n| at(i + n) == '#')) {
                i += 1;
            }
            i += 1 + hashes;
        } else if at(i) == '"' {
            i += 1;
            while i < chars.len() && at(i) != '"' {
                i += if at(i) == '\\' { 2 } else { 1 };
            }
            i += 1;
        } else if at(i) == '\'' && at(i + 1) == '\\' {
            i += 3;
            while i < chars.len() && at(i) != '\'' {
                i += 1;
            }
            i += 1;
        } else if at(i) == '\'' && at(i + 2) == '\'' {
            i += 3;
        } else {
            code.push(at(i));
            i += 1;
            continue;
        }
        for c in &chars[start..i.min(chars.len())] {
            code.push(if *c == '\n' { '\n' } else { ' ' });
        }
    }
    code
}

/// How many `#` stand before the quote of a raw string that begins here.
fn raw_hashes(chars: &[char], from: usize) -> Option<usize> {
    let hashes = chars[from..].iter().take_while(|c| **c == '#').count();
    (chars.get(from + hashes) == Some(&'"')).then_some(hashes)
}

/// Blanks every item that is only there for tests.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept += &rest[..at];
        let item = &rest[at..];
        let mut depth = 0_usize;
        let mut end = item.len();
        for (i, c) in item.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 && matches!(c, '}' | ';') {
                end = i + 1;
                break;
            }
        }
        kept.extend(item[..end].chars().filter(|c| *c == '\n'));
        rest = &item[end..];
    }
    kept + rest
}

/// Every path behind `crate::`, groups in braces taken apart.
fn crate_paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = code[from..].find("crate::") {
        let start = from + at;
        let line = code[..start].matches('\n').count() + 1;
        let inside_name =
            code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        from = start + "crate::".len();
        if !inside_name {
            let mut paths = Vec::new();
            branches(&code[from..], &mut Vec::new(), &mut paths);
            found.extend(paths.into_iter().map(|path| (line, path)));
        }
    }
    found
}

/// Reads one use tree, whose beginning is `prefix`; returns how many bytes it took.
fn branches(text: &str, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let depth = prefix.len();
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        if text[at..].starts_with('{') {
            at += 1;
            loop {
                at += branches(&text[at..], prefix, found);
                at += text[at..].len() - text[at..].trim_start().len();
                match text[at..].chars().next() {
                    Some(',') => at += 1,
                    _ => break,
                }
                at += text[at..].len() - text[at..].trim_start().len();
                if text[at..].starts_with('}') {
                    break;
                }
            }
            at += 1;
            prefix.truncate(depth);
            return at;
        }
        let name: String = text[at..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        at += name.len();
        let star = text[at..].starts_with('*');
        if star {
            at += 1;
        } else {
            prefix.push(name);
        }
        if !star && text[at..].starts_with("::") {
            at += 2;
            continue;
        }
        found.push(prefix.clone());
        prefix.truncate(depth);
        // A rename, `path as name`.
        if let Some(rest) = text[at..].trim_start().strip_prefix("as ") {
            let blank = text[at..].len() - text[at..].trim_start().len();
            let new = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .count();
            at += blank + 3 + new;
        }
        return at;
    }
}

/// What one file violates.
fn violations_of(name: &str, text: &str) -> Vec<String> {
    let mut violations = Vec::new();
    let Some((layer, place)) = rank(name) else {
        return vec![format!(
            "src/{name}.rs: not in the table of layers; put it where it belongs"
        )];
    };
    let code = without_tests(&code_of(text));
    for (line, path) in crate_paths(&code) {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        let said = names.join("::");
        match file_of(&names) {
            None => violations.push(format!(
                "src/{name}.rs:{line}: crate::{said} is in no file of the table"
            )),
            Some(file) if file == name => {}
            Some(file) => {
                let (other_layer, other_place) = rank(&file).unwrap();
                if (other_layer, other_place) > (layer, place) {
                    violations.push(format!(
                        "src/{name}.rs:{line}: crate::{said} is in {file}, layer {other_layer}, which comes later"
                    ));
                }
            }
        }
    }
    for (number, line) in code.lines().enumerate() {
        if line.contains("super::super") {
            violations.push(format!(
                "src/{name}.rs:{}: super::super; say crate::",
                number + 1
            ));
        }
        if let Some(at) = line.find("super::") {
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            let rest: String = line[at + 7..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let parent: Vec<&str> = folder
                .split('/')
                .chain([rest.as_str()])
                .filter(|part| !part.is_empty())
                .collect();
            let later = file_of(&parent)
                .and_then(|file| rank(&file))
                .is_some_and(|other| other > (layer, place));
            if later && !name.ends_with("/mod") {
                violations.push(format!(
                    "src/{name}.rs:{}: super::{rest} comes later",
                    number + 1
                ));
            }
        }
        if layer < FIRST_IMPURE {
            for word in IMPURE {
                if says(line, word) {
                    violations.push(format!(
                        "src/{name}.rs:{}: {word} in a pure layer",
                        number + 1
                    ));
                }
            }
        }
    }
    violations
}

/// Whether a line says a word that is not the end or the beginning of another one.
fn says(line: &str, word: &str) -> bool {
    let inner = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let open_end = word.ends_with("Tcp") || word.ends_with("Udp");
        !line[..at].ends_with(inner) && (open_end || !line[at + word.len()..].starts_with(inner))
    })
}

/// The first circle among these imports between folders, if there is one.
fn circle(imports: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        at: &str,
        imports: &BTreeMap<String, BTreeSet<String>>,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|folder| folder == at) {
            return Some(path[start..].to_vec());
        }
        if !done.insert(at.to_owned()) {
            return None;
        }
        path.push(at.to_owned());
        let found = imports.get(at).into_iter().flatten();
        let found = found
            .into_iter()
            .find_map(|next| visit(next, imports, path, done));
        path.pop();
        found
    }
    let mut done = BTreeSet::new();
    imports
        .keys()
        .find_map(|folder| visit(folder, imports, &mut Vec::new(), &mut done))
}

/// The folder below `src/` that holds a file, or the file itself at the top.
fn top_of(file: &str) -> &str {
    file.split('/').next().unwrap_or(file)
}

#[test]
fn folders_import_without_circles() {
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, text) in sources() {
        let from = imports.entry(top_of(&name).to_owned()).or_default();
        for (_, path) in crate_paths(&without_tests(&code_of(&text))) {
            let names: Vec<&str> = path.iter().map(String::as_str).collect();
            if let Some(file) = file_of(&names).filter(|file| top_of(file) != top_of(&name)) {
                from.insert(top_of(&file).to_owned());
            }
        }
    }
    assert!(imports["service"].contains("slot"), "imports are found");
    assert_eq!(circle(&imports), None);
    // The check itself works.
    imports.get_mut("layout").unwrap().insert("service".into());
    assert!(circle(&imports).is_some_and(|found| found.contains(&"layout".to_owned())));
}

#[test]
fn modules_import_from_lower_layers_only() {
    let sources = sources();
    assert!(!sources.is_empty(), "no sources found");
    let violations: Vec<String> = sources
        .iter()
        .flat_map(|(name, text)| violations_of(name, text))
        .collect();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn the_table_names_no_file_that_is_not_there() {
    let sources = sources();
    for name in LAYERS.iter().copied().flatten() {
        assert!(
            sources.iter().any(|(file, _)| file == name),
            "src/{name}.rs is in the table only"
        );
    }
}

/// Files that handle credentials, or the secrets that they are verified with.
const CREDENTIAL_FILES: [&str; 18] = [
    "config/api",
    "config/secret",
    "config/secrets",
    "http/api",
    "http/syntax",
    "reactor/client",
    "reactor/client/api",
    "reactor/client/decide",
    "reactor/client/put",
    "service",
    "service/grants",
    "service/sessions",
    "setup",
    "slot/external",
    "slot/grant",
    "slot/jwt",
    "slot/own",
    "slot/presign",
];

/// Comparisons in these files that tell nothing of a secret's bytes.
const HARMLESS_COMPARISONS: [&str; 9] = [
    // Lengths and forms, before anything is compared.
    "hex.len() != TAG * 2",
    "token.is_empty()",
    "token.len() > MAX_TOKEN",
    "length < GOOD_SECRET",
    "!TOKEN.contains(&text.len())",
    "secret.len() < MIN_SLOT_SECRET",
    // Whether there is one at all; dots and the scheme's name in what was shown.
    "delete_secret.is_some()",
    "token.split(|b|",
    "scheme.eq_ignore_ascii_case(",
];

/// Lines that compare a secret, a signature or a token otherwise than `hmac::verify` does, which takes the same time
/// wherever two of them differ.
fn hasty_comparisons(name: &str, text: &str) -> Vec<String> {
    const WORDS: [&str; 12] = [
        "secret",
        "signature",
        "tag",
        "token",
        "shown",
        "mac",
        "hmac",
        "digest",
        "password",
        "key",
        "credential",
        "expose",
    ];
    const COMPARISONS: [&str; 12] = [
        "==",
        "!=",
        " < ",
        " > ",
        ".eq(",
        ".ne(",
        ".cmp(",
        ".eq_ignore_ascii_case(",
        "starts_with(",
        "ends_with(",
        ".contains(",
        "strip_prefix(",
    ];
    let code = without_tests(&code_of(text));
    code.lines()
        .enumerate()
        .filter(|(_, line)| {
            let compares = COMPARISONS
                .iter()
                .any(|comparison| line.contains(comparison));
            let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            let secret = words
                .flat_map(|word| word.split('_'))
                .any(|word| WORDS.contains(&word.to_ascii_lowercase().as_str()));
            let harmless = HARMLESS_COMPARISONS
                .iter()
                .any(|harmless| line.contains(harmless));
            compares && secret && !harmless
        })
        .map(|(number, line)| format!("src/{name}.rs:{}: {}", number + 1, line.trim()))
        .collect()
}

#[test]
fn secrets_are_compared_in_constant_time() {
    let sources = sources();
    let text_of = |wanted: &str| {
        let found = sources.iter().find(|(name, _)| name == wanted);
        &found.unwrap_or_else(|| panic!("no src/{wanted}.rs")).1
    };
    let violations: Vec<String> = CREDENTIAL_FILES
        .iter()
        .flat_map(|name| hasty_comparisons(name, text_of(name)))
        .collect();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    for harmless in HARMLESS_COMPARISONS {
        let said = CREDENTIAL_FILES
            .iter()
            .any(|name| text_of(name).contains(harmless));
        assert!(said, "{harmless} is in no file");
    }
    // Each scheme asks the one function that does, and no other file has a say.
    for (name, text) in &sources {
        let code = without_tests(&code_of(text));
        let expected = match name.as_str() {
            "slot/own" | "slot/external" | "slot/jwt" | "http/api" | "service/sessions" => 1,
            _ => 0,
        };
        assert_eq!(
            code.matches("hmac::verify(").count(),
            expected,
            "src/{name}.rs"
        );
        assert_eq!(
            code.contains("hmac::sign("),
            matches!(
                name.as_str(),
                "slot/own" | "slot/presign" | "http/api" | "service/sessions"
            ),
            "src/{name}.rs"
        );
    }
    // The check works.
    for line in [
        "if tag.as_ref() == signature { }",
        "if shown != token.as_bytes() { }",
        "if secret.expose().starts_with(shown) { }",
        "let good = delete_secret.eq(other);",
    ] {
        let text = format!("fn f() {{\n    {line}\n}}\n");
        assert_eq!(hasty_comparisons("slot/own", &text).len(), 1, "{line}");
    }
    assert!(hasty_comparisons("slot/own", "// tag == signature\nlet a = size == 5;\n").is_empty());
}

#[test]
fn nothing_tells_where_it_was_written() {
    let mut paths = Vec::new();
    for folder in ["src", "tests", "benches", "contrib"] {
        files(&root().join(folder), &mut paths);
    }
    for file in [
        "README.md",
        "CHANGELOG.md",
        "Cargo.toml",
        "config.yml.sample",
    ] {
        paths.push(root().join(file));
    }
    let mut violations = Vec::new();
    for path in paths {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            for place in PLACES {
                if line.contains(place) {
                    violations.push(format!("{}:{}: {place}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

/// What a row of the table of threats names that is no test: in backquotes `module::test` and `module::` for black-box
/// tests, `subject.test` and `subject.` for end-to-end tests; behind `fuzz` the fuzzed targets.
fn tests_that_are_not_there(row: &str) -> Vec<String> {
    let has = |file: PathBuf, start: &str| {
        fs::read_to_string(file).is_ok_and(|text| text.contains(start))
    };
    let mut missing = Vec::new();
    let mut pieces = row.split('`');
    // Words in backquotes are every second piece.
    while let (Some(_), Some(word)) = (pieces.next(), pieces.next()) {
        let there = if let Some((module, test)) = word.split_once("::") {
            let file = module.split("::").next().unwrap_or_default();
            let file = root().join(format!("tests/it/{file}.rs"));
            match test.strip_suffix("::") {
                Some(inner) => has(file, &format!("mod {inner}")),
                None => has(file, &format!("fn {test}")),
            }
        } else if let Some((subject, test)) = word.split_once('.') {
            let file = root().join(format!("tests/e2e/test_{subject}.py"));
            has(file, &format!("async def {test}"))
        } else if word == "fuzz" {
            let targets = pieces.clone().next().unwrap_or_default();
            let targets = targets.trim_end_matches(['|', ' ', ',']).split(',');
            targets.into_iter().all(|target| {
                let file = format!("tests/fuzz/targets/{}.rs", target.trim());
                root().join(file).is_file()
            })
        } else {
            false
        };
        if !there {
            missing.push(word.to_owned());
        }
    }
    missing
}

#[test]
fn the_threats_in_the_documentation_have_their_tests() {
    let page = fs::read_to_string(root().join("contrib/docs/security.md")).unwrap();
    let (_, table) = page.split_once("| tests |\n").unwrap();
    let rows: Vec<&str> = table.lines().take_while(|l| l.starts_with('|')).collect();
    assert!(rows.len() > 15, "{rows:?}");
    for row in &rows[1..] {
        let shown = row.trim_end_matches(['|', ' ']).rsplit('|').next();
        let shown = shown.unwrap_or_default();
        assert!(shown.contains('`'), "no test: {row}");
        assert_eq!(tests_that_are_not_there(shown), [""; 0], "{row}");
    }
    for (row, missing) in [
        ("`attack::no_such_test`", "attack::no_such_test"),
        ("`network::nothing::`", "network::nothing::"),
        ("`no_module::`", "no_module::"),
        ("`tls.no_such_test`", "tls.no_such_test"),
        ("`no_subject.`", "no_subject."),
        ("`fuzz` head, nothing", "fuzz"),
        ("`tls::`, `a word`", "a word"),
    ] {
        assert_eq!(tests_that_are_not_there(row), [missing]);
    }
}

#[test]
fn nothing_is_unsafe() {
    for manifest in ["Cargo.toml", "tests/fuzz/libfuzzer/Cargo.toml"] {
        let text = fs::read_to_string(root().join(manifest)).unwrap();
        let lints = text.split("\n[lints.rust]\n").nth(1).unwrap_or_default();
        let lints = lints.split("\n[").next().unwrap_or_default();
        assert!(
            lints.lines().any(|line| line == "unsafe_code = \"forbid\""),
            "{manifest}: {lints}"
        );
    }
    // Nor does anybody allow it where no lint looks.
    let mut paths = Vec::new();
    for folder in ["src", "tests", "benches"] {
        files(&root().join(folder), &mut paths);
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    assert!(paths.len() > 50, "the sources were not found");
    for path in paths {
        let code = code_of(&fs::read_to_string(&path).unwrap());
        for (number, line) in code.lines().enumerate() {
            assert!(
                !says(line, "unsafe") && !says(line, "unsafe_code"),
                "{}:{}: {line}",
                path.display(),
                number + 1
            );
        }
    }
}

/// The test itself finds what it looks for, and only that.
#[test]
fn the_check_of_layers_works() {
    #[track_caller]
    fn check(name: &str, text: &str, expected: &[&str]) {
        let violations = violations_of(name, text);
        assert_eq!(violations.len(), expected.len(), "{violations:?}");
        for (violation, part) in violations.iter().zip(expected) {
            assert!(violation.contains(part), "{violation:?}, expected {part:?}");
        }
    }
    check(
        "service",
        "use crate::jid::BareJid;\nuse crate::slot::{Slot, grant::Grant};",
        &[],
    );
    check(
        "jid",
        "use crate::service::Service;",
        &["crate::service::Service is in service"],
    );
    check("jid", "fn f() { crate::sys::open() }", &["layer 4"]);
    check(
        "now",
        "use crate::{now::Now, jid::BareJid};",
        &["crate::jid::BareJid"],
    );
    check(
        "now",
        "use crate::{\n    now::{Now, *},\n    jid::BareJid as Jid, http,\n};",
        &["jid", "http"],
    );
    check("now", "use crate::Nothing;", &["no file of the table"]);
    check(
        "now",
        "// use crate::jid::X;\nconst S: &str = \"crate::jid\";\nconst C: char = '\"'; // crate::jid",
        &[],
    );
    check(
        "now",
        "const R: &str = r#\"crate::jid \" std::fs\"#; /* crate::jid /* */ mio */ use mio::Poll;",
        &["mio"],
    );
    check(
        "now",
        "#[cfg(test)]\nmod tests {\n    use crate::service::X;\n    fn f() { Instant::now(); }\n}",
        &[],
    );
    check(
        "now",
        "#[cfg(test)]\nuse crate::service::X;\nuse std::fs;",
        &["now.rs:3: std::fs"],
    );
    check(
        "layout",
        "let x = Instant::now();\nlet audiomio = 1;",
        &["layout.rs:1: Instant::now"],
    );
    check("layout", "use std::net::TcpStream;", &["std::net::Tcp"]);
    check(
        "slot/name",
        "use super::own::X;",
        &["super::own comes later"],
    );
    check("slot/own", "use super::super::jid;", &["super::super"]);
    check("xmpp/odd", "", &["not in the table"]);
    check("sys", "use rustix::fs; use std::fs::File;", &[]);
}
