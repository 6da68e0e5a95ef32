//! The documentation stays short, connected and in standard terms: README.md is an overview with an index of the pages
//! in contrib/docs, every link leads somewhere, and the prose uses the terms of the field.

use std::fs;
use std::path::{Path, PathBuf};

use super::{files, root};

/// The longest README.md, in lines.
const MAX_README: usize = 200;

/// Files whose prose is checked for [`DISCOURAGED`] terms, besides the pages in contrib/docs.
const PROSE: [&str; 4] = [
    "README.md",
    "CHANGELOG.md",
    "config.yml.sample",
    "tests/README.md",
];

/// Terms that readers have to guess. Code and code spans are exempt: a metric, a log line or a test has one name.
const DISCOURAGED: [&str; 18] = [
    "grave",
    "graves",
    "bury",
    "buries",
    "buried",
    "anew",
    "for ever",
    "over and over",
    "nobody",
    "somebody",
    "whoever",
    "turned away",
    "hurried",
    "lapse",
    "lapses",
    "lapsed",
    "lapsing",
    "of other making",
];

/// Markdown files of the documentation.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    files(&root().join("contrib/docs"), &mut pages);
    pages.sort();
    pages
}

/// Every Markdown file that is shipped.
fn markdown() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["contrib", "tests"] {
        files(&root().join(folder), &mut found);
    }
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    found.push(root().join("README.md"));
    found.push(root().join("CHANGELOG.md"));
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The lines of a Markdown text; those of code blocks become empty.
fn without_code_blocks(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().map(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        let is_code = fenced || is_fence || line.starts_with("    ");
        fenced ^= is_fence;
        if is_code { "" } else { line }
    })
}

/// Markdown without its code: blocks become empty, and each code span becomes the word `code`.
fn prose(text: &str) -> String {
    let mut prose = String::with_capacity(text.len());
    for line in without_code_blocks(text) {
        let mut pieces = line.split('`');
        prose.push_str(pieces.next().unwrap_or_default());
        while pieces.next().is_some() {
            prose.push_str("code");
            let after = pieces.next();
            prose.push_str(after.unwrap_or_else(|| panic!("an open code span: {line}")));
        }
        prose.push('\n');
    }
    prose
}

/// The anchors of a page, as GitHub derives them from headings.
fn anchors(text: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    let headings = without_code_blocks(text).filter_map(|line| {
        let title = line.trim_start_matches('#');
        (title.len() < line.len()).then_some(title.strip_prefix(' ')?)
    });
    for title in headings {
        let anchor: String = title
            .trim()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .flat_map(char::to_lowercase)
            .collect();
        let mut unique = anchor.clone();
        let mut number = 0;
        while anchors.contains(&unique) {
            number += 1;
            unique = format!("{anchor}-{number}");
        }
        anchors.push(unique);
    }
    anchors
}

/// The targets of all links in a Markdown text.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let targets = prose.split("](").skip(1);
    targets
        .map(|rest| rest.split(')').next().unwrap_or_default().to_owned())
        .collect()
}

fn is_external(link: &str) -> bool {
    link.starts_with("https://") || link.starts_with("http://")
}

/// Why a link in `page` leads nowhere; `None` if it leads to a file of the source tree, and to a heading there.
fn broken(page: &Path, text: &str, link: &str) -> Option<String> {
    let (path, anchor) = match link.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (link, None),
    };
    let known = if path.is_empty() {
        anchors(text)
    } else {
        let Ok(file) = page.parent()?.join(path).canonicalize() else {
            return Some(format!("{link}: there is no such file"));
        };
        if !file.starts_with(root().canonicalize().unwrap()) {
            return Some(format!("{link}: outside the source tree"));
        }
        match anchor {
            Some(_) => anchors(&read(&file)),
            None => return None,
        }
    };
    let anchor = anchor?;
    (!known.iter().any(|known| known == anchor)).then(|| format!("{link}: no such heading"))
}

/// The discouraged terms in a text, in any case, also across the end of a line.
fn discouraged(text: &str) -> Vec<&'static str> {
    let words: Vec<String> = text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let words = format!(" {} ", words.join(" "));
    let found = |term: &&str| words.contains(&format!(" {term} "));
    DISCOURAGED.into_iter().filter(found).collect()
}

#[test]
fn the_readme_is_short() {
    let lines = read(&root().join("README.md")).lines().count();
    assert!(lines <= MAX_README, "README.md has {lines} lines");
}

#[test]
fn every_page_is_in_the_index() {
    let readme = root().join("README.md");
    let linked: Vec<PathBuf> = links(&read(&readme))
        .iter()
        .filter(|link| !is_external(link))
        .map(|link| root().join(link.split('#').next().unwrap_or_default()))
        .collect();
    let pages = pages();
    assert!(pages.len() >= 8, "{pages:?}");
    for page in pages {
        assert!(
            linked.contains(&page),
            "README.md has no link to {}",
            page.display()
        );
    }
}

#[test]
fn links_lead_somewhere() {
    let mut violations = Vec::new();
    let mut count = 0;
    for page in markdown() {
        let text = read(&page);
        for link in links(&text).iter().filter(|link| !is_external(link)) {
            count += 1;
            violations
                .extend(broken(&page, &text, link).map(|why| format!("{}: {why}", page.display())));
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    assert!(count > 50, "only {count} links were found");
}

/// Comments of the example files name pages by their path in the source tree.
#[test]
fn comments_name_pages_that_exist() {
    let mut paths = vec![root().join("config.yml.sample")];
    files(&root().join("contrib"), &mut paths);
    let mut count = 0;
    for path in paths {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        for rest in text.split("contrib/docs/").skip(1) {
            let Some((page, _)) = rest.split_once(".md") else {
                continue;
            };
            count += 1;
            let file = root().join(format!("contrib/docs/{page}.md"));
            assert!(file.is_file(), "{}: {page}.md", path.display());
        }
    }
    assert!(count > 5, "only {count} pages are named");
}

#[test]
fn prose_uses_standard_terms() {
    let mut paths = pages();
    paths.extend(PROSE.map(|name| root().join(name)));
    let mut violations = Vec::new();
    for path in paths {
        let mut text = read(&path);
        if path.extension().is_some_and(|extension| extension == "md") {
            text = prose(&text);
        }
        for term in discouraged(&text) {
            violations.push(format!("{}: {term:?}", path.display()));
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

/// The same for the code with its comments. "nobody" is the name of a user of the system there.
#[test]
fn code_uses_standard_terms() {
    let mut paths = Vec::new();
    for folder in ["src", "tests", "benches"] {
        files(&root().join(folder), &mut paths);
    }
    let is_code = |path: &Path| {
        let extension = path.extension().and_then(std::ffi::OsStr::to_str);
        matches!(extension, Some("rs" | "py")) && !path.ends_with("tidy/docs.rs")
    };
    paths.retain(|path| is_code(path));
    assert!(paths.len() > 200, "only {} files", paths.len());
    let mut violations = Vec::new();
    for path in paths {
        let terms = discouraged(&read(&path));
        let terms = terms.into_iter().filter(|term| *term != "nobody");
        violations.extend(terms.map(|term| format!("{}: {term:?}", path.display())));
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

/// The checks find what they look for.
#[test]
fn the_checks_of_documents_work() {
    let page = root().join("contrib/docs/page.md");
    let text = "# A page\n\n## `one_key`: the *first*\n\n## Twice\n\n## Twice\n\n```\n# no heading [a](b)\n```\n\n    \
                # nor here [a](b)\n\nSee [`one_key`](#one_key-the-first), `[no](link)`, [two](x.md#y).\n";
    assert_eq!(
        anchors(text),
        ["a-page", "one_key-the-first", "twice", "twice-1"]
    );
    assert_eq!(links(text), ["#one_key-the-first", "x.md#y"]);
    for link in [
        "#twice-1",
        "../../README.md",
        "../../README.md#documentation",
        "..",
    ] {
        assert_eq!(broken(&page, text, link), None, "{link}");
    }
    for link in [
        "#three",
        "no-such-page.md",
        "../../README.md#no-such-heading",
        "../../../..",
    ] {
        assert!(broken(&page, text, link).is_some(), "{link}");
    }
    assert_eq!(
        discouraged("Kept for\never: Nobody's `x`. forever, gravel"),
        ["for ever", "nobody"]
    );
    let spans = prose("It is `turned_away`, and\n\n    buried\n");
    assert_eq!(spans, "It is code, and\n\n\n");
    assert_eq!(discouraged(&spans), [""; 0]);
}
