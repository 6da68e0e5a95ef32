//! The manual pages: upslot(1) from the commands and options, upslot.yml(5) from the registry of keys.

use std::fmt::Write;

use upslot::config::keys::{KEYS, KeyInfo, Reload};

use super::read;
use crate::COMMANDS;
use crate::arguments::{ABOUT, Command, CommonOption, OPTIONS, SIGNALS, call_of};

/// The length of text lines, before they are escaped.
const WIDTH: usize = 75;

const INTRODUCTION: &str = "\
Without a command, upslot runs the service in the foreground, connected to an XMPP server as an external component
(XEP-0114). The other commands read the same configuration and work beside a running service.";

const EXIT_STATUS: [(&str, &str); 3] = [
    ("0", "success, or an orderly end of the service"),
    (
        "1",
        "an error in the configuration or at the start, or the negative result of a command",
    ),
    ("2", "an error in the arguments"),
];

const FILES: [(&str, &str); 3] = [
    (
        "config.yml",
        "the configuration, if it is in the working directory and -c is not given",
    ),
    ("/etc/upslot/config.yml", "otherwise the configuration"),
    (
        "/var/lib/upslot",
        "the stored files, with the configuration of the packages",
    ),
];

const FORMAT: [&str; 6] = [
    "The configuration is a YAML file. upslot --check-config reports every error in it, with its key and line. A running \
     upslot reads it again at SIGHUP (systemctl reload upslot); keys that need a restart are marked, and the log names \
     them.",
    "Sizes are in bytes, or have a unit: KiB, MiB, GiB, TiB, kB, MB, GB, TB.",
    "Durations are in seconds, or have a unit: s, m, h, d.",
    "Booleans are true or false; yes, no, on and off are accepted as well.",
    "Lists are written as [a, b], or as one \"- a\" per line. A list with one entry may be written as a single value.",
    "Keys below a map are written with a dot here, such as api.port for the entry port of the map api.",
];

/// upslot(1).
pub fn program() -> String {
    let mut page = Page::new("UPSLOT", 1, "User Commands");
    page.section("NAME");
    page.line("upslot \\- HTTP File Upload service for XMPP servers");
    page.section("SYNOPSIS");
    page.line(".B upslot");
    page.line("[\\fB\\-c\\fR \\fIFILE\\fR] [\\fB\\-l\\fR \\fIFILE\\fR]");
    page.line(".br");
    page.line(".B upslot");
    page.line("[\\fB\\-c\\fR \\fIFILE\\fR] \\fICOMMAND\\fR ...");
    page.section("DESCRIPTION");
    page.text(ABOUT);
    page.line(".PP");
    page.text(INTRODUCTION);
    page.section("COMMANDS");
    for command in &COMMANDS {
        page.command(command);
    }
    page.section("OPTIONS");
    for option in &OPTIONS {
        page.option(option);
    }
    page.section("SIGNALS");
    page.text(SIGNALS);
    page.section("EXIT STATUS");
    page.definitions(&EXIT_STATUS);
    page.section("FILES");
    page.definitions(&FILES);
    page.section("ENVIRONMENT");
    page.definitions(&[("RUST_LOG", "takes precedence over the key log_level")]);
    page.section("SEE ALSO");
    page.line(".BR upslot.yml (5)");
    page.text
}

/// upslot.yml(5).
pub fn config() -> String {
    let mut page = Page::new("UPSLOT.YML", 5, "File Formats");
    page.section("NAME");
    page.line("upslot.yml \\- configuration of upslot, /etc/upslot/config.yml");
    page.section("DESCRIPTION");
    for (index, paragraph) in FORMAT.iter().enumerate() {
        if index > 0 {
            page.line(".PP");
        }
        page.text(paragraph);
    }
    page.section("KEYS");
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            page.line(&format!(".SS {}", escaped(section)));
        }
        page.key("", key);
    }
    page.section("EXAMPLE");
    page.line("The configuration that the packages install:");
    page.line(".PP");
    page.line(".EX");
    for line in read("contrib/debian/config.yml").lines() {
        page.line(&escaped(line));
    }
    page.line(".EE");
    page.section("SEE ALSO");
    page.line(".BR upslot (1)");
    page.text
}

/// A page in the language of man(7).
struct Page {
    text: String,
}

impl Page {
    fn new(name: &str, section: u8, volume: &str) -> Page {
        let version = env!("CARGO_PKG_VERSION");
        let date = release_date();
        Page {
            text: format!(
                ".\\\" Generated from the sources of upslot.\n\
                 .TH {name} {section} {date} \"upslot {version}\" \"{volume}\"\n"
            ),
        }
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn section(&mut self, title: &str) {
        self.line(&format!(".SH {title}"));
    }

    /// A paragraph; the program that displays it chooses where lines end.
    fn text(&mut self, text: &str) {
        let mut line = String::new();
        for word in text.split_whitespace() {
            if !line.is_empty() && line.len() + 1 + word.len() > WIDTH {
                self.line(&escaped(&line));
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        self.line(&escaped(&line));
    }

    fn definitions(&mut self, definitions: &[(&str, &str)]) {
        for (term, meaning) in definitions {
            self.line(".TP");
            self.line(&format!(".B {}", escaped(term)));
            self.text(meaning);
        }
    }

    fn command(&mut self, command: &Command) {
        self.line(".TP");
        self.line(&format!(".B {}", escaped(&call_of(command))));
        self.text(&sentence(command.summary));
        if !command.details.is_empty() {
            self.line(".IP");
            self.text(command.details);
        }
    }

    fn option(&mut self, option: &CommonOption) {
        let mut term = String::new();
        if let Some(short) = option.short {
            let _ = write!(term, "\\fB\\-{short}\\fR, ");
        }
        let _ = write!(term, "\\fB\\-\\-{}\\fR", escaped(option.name));
        if !option.value.is_empty() {
            let _ = write!(term, " \\fI{}\\fR", option.value);
        }
        self.line(".TP");
        self.line(&term);
        self.text(&sentence(option.summary));
    }

    /// A key, and below it the entries of its map.
    fn key(&mut self, path: &str, key: &KeyInfo) {
        let name = format!("{path}{}", key.name);
        let default = key.default_in_words();
        let restart = match key.reload {
            Reload::Applied => "",
            Reload::Restart(_) => "; a change needs a restart",
        };
        self.line(".TP");
        let kind = format!("({}; {default}{restart})", key.kind);
        self.line(&format!("\\fB{}\\fR {}", escaped(&name), escaped(&kind)));
        self.text(key.doc);
        for entry in key.entries {
            self.key(&format!("{name}."), entry);
        }
    }
}

/// A summary of the help as a sentence.
fn sentence(summary: &str) -> String {
    let mut letters = summary.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    let text: String = first.chain(letters).collect();
    format!("{text}.")
}

/// A line of text for man(7).
fn escaped(line: &str) -> String {
    assert!(
        line.is_ascii(),
        "only ASCII is portable in manual pages: {line}"
    );
    let line = line.replace('\\', "\\e").replace('-', "\\-");
    match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}"),
        false => line,
    }
}

/// The date of the newest entry in the changelog of the package, such as 2026-11-28.
fn release_date() -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let changelog = read("contrib/debian/changelog");
    let trailer = changelog.lines().find(|line| line.starts_with(" -- "));
    let (_, date) = trailer.unwrap().split_once(">  ").unwrap();
    let [_, day, month, year, ..] = date.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("{date}");
    };
    let month = MONTHS.iter().position(|name| *name == month).unwrap() + 1;
    format!("{year}-{month:02}-{day}")
}

#[test]
fn lines_are_escaped() {
    assert_eq!(escaped(".a -b 'c"), "\\&.a \\-b 'c");
    assert_eq!(escaped("'\\n'"), "\\&'\\en'");
}
