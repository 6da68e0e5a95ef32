//! The page for people who open the service's address in a browser: what it is, its limits, and a contact.
//!
//! It is built once from the configuration, in HTML without script; its one style sheet is allowed by its digest. All
//! values are escaped.

use std::fmt::Write;

use data_encoding::BASE64;
use ring::digest;

/// The whole style sheet.
const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font-family:system-ui,sans-serif;line-height:1.5;max-width:40rem;margin:2rem auto;padding:0 1rem}\
h1,dd{overflow-wrap:anywhere}\
dt{font-weight:bold}\
dd{margin:0 0 .5rem}";

/// The contents of the page, as text.
#[derive(Clone, Copy, Debug)]
pub struct LandingFacts<'a> {
    /// Host and port of the links to files.
    pub host: &'a str,
    /// Names and values of limits.
    pub limits: &'a [(&'a str, String)],
    /// Whether some users or files have other limits.
    pub has_exceptions: bool,
    /// URIs at which people can reach the operator.
    pub contact: &'a [String],
    /// The URL of the terms of use.
    pub terms: Option<&'a str>,
}

/// The finished page.
#[derive(Clone, Debug)]
pub struct LandingPage {
    /// The document.
    pub html: String,
    /// The value of `Content-Security-Policy`: nothing but the style sheet is loaded or run.
    pub policy: String,
}

impl LandingPage {
    pub fn new(facts: &LandingFacts<'_>) -> LandingPage {
        let digest = digest::digest(&digest::SHA256, STYLE.as_bytes());
        LandingPage {
            html: document(facts),
            policy: format!(
                "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
                BASE64.encode(digest.as_ref())
            ),
        }
    }
}

fn document(facts: &LandingFacts<'_>) -> String {
    let host = escaped(facts.host);
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{host}: XMPP file upload</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{host}</h1>\n\
         <p>This server stores the files that people send to each other with chat programs for \
         <a href=\"https://xmpp.org/\">XMPP</a> (HTTP File Upload, XEP-0363). To upload a file, send it in your chat \
         program. A file can be opened only with its link.</p>\n<h2>Limits</h2>\n<dl>\n"
    );
    // Writing to a string cannot fail.
    for (name, value) in facts.limits {
        let _ = writeln!(html, "<dt>{name}</dt><dd>{}</dd>", escaped(value));
    }
    html.push_str("</dl>\n");
    if facts.has_exceptions {
        html.push_str("<p>Some users and some kinds of files have other limits.</p>\n");
    }
    if !facts.contact.is_empty() {
        html.push_str("<h2>Contact</h2>\n<ul>\n");
        for uri in facts.contact {
            let uri = escaped(uri);
            let _ = writeln!(html, "<li><a href=\"{uri}\">{uri}</a></li>");
        }
        html.push_str("</ul>\n");
    }
    if let Some(terms) = facts.terms {
        let terms = escaped(terms);
        let _ = writeln!(html, "<p><a href=\"{terms}\">Terms of use</a></p>");
    }
    html.push_str("</body>\n</html>\n");
    html
}

/// Text for use in HTML, in attribute values too.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: LandingFacts<'_> = LandingFacts {
        host: "up.example:8443",
        limits: &[],
        has_exceptions: false,
        contact: &[],
        terms: None,
    };

    #[test]
    fn the_page_shows_all_facts() {
        let page = LandingPage::new(&LandingFacts {
            limits: &[("Largest file", "20 MiB".to_owned())],
            has_exceptions: true,
            contact: &["mailto:admin@example.org".to_owned()],
            terms: Some("https://example.org/terms"),
            ..EMPTY
        });
        for part in [
            "<title>up.example:8443: XMPP file upload</title>",
            "<h1>up.example:8443</h1>",
            "<dt>Largest file</dt><dd>20 MiB</dd>",
            "<p>Some users and some kinds of files have other limits.</p>",
            "<li><a href=\"mailto:admin@example.org\">mailto:admin@example.org</a></li>",
            "<a href=\"https://example.org/terms\">Terms of use</a>",
        ] {
            assert_eq!(page.html.matches(part).count(), 1, "{part}\n{}", page.html);
        }
        assert!(page.html.len() < 4096);
    }

    #[test]
    fn absent_facts_leave_no_trace() {
        let page = LandingPage::new(&EMPTY);
        for part in ["Contact", "Terms", "other limits", "<script", "None"] {
            assert!(!page.html.contains(part), "{part}\n{}", page.html);
        }
    }

    /// The digest is the one that `openssl dgst -sha256 -binary | base64` prints of the text between the tags.
    #[test]
    fn the_policy_allows_the_style_sheet_alone() {
        let page = LandingPage::new(&EMPTY);
        let (_, rest) = page.html.split_once("<style>").unwrap();
        let (style, _) = rest.split_once("</style>").unwrap();
        let digest = BASE64.encode(digest::digest(&digest::SHA256, style.as_bytes()).as_ref());
        assert!(page.policy.contains(&format!("'sha256-{digest}'")));
        assert!(!page.policy.contains("unsafe"));
        assert_eq!(page.html.matches("<style").count(), 1);
        assert!(!page.html.contains(" style="));
    }

    #[test]
    fn values_are_escaped() {
        let evil = "\"><script>alert('1')</script>&";
        let page = LandingPage::new(&LandingFacts {
            host: evil,
            limits: &[("File types", evil.to_owned())],
            contact: &[evil.to_owned()],
            terms: Some(evil),
            ..EMPTY
        });
        assert!(!page.html.contains("<script"));
        assert!(!page.html.contains("alert('"));
        let shown = "&quot;&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;";
        assert_eq!(page.html.matches(shown).count(), 6, "{}", page.html);
    }
}
