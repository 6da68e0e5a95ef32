//! The operator's contact addresses and terms of use (RFC 6068, RFC 5122, RFC 3986).
//!
//! Each is a URI that others show and open: browsers on the page for people, clients from service discovery (XEP-0157).

use crate::config::error::InvalidValue;
use crate::config::url;

/// Most addresses; service discovery sends all of them three times.
pub const MAX_ADDRESSES: usize = 10;

/// Longest address, in bytes.
const MAX_URI: usize = 256;

const EXPECTED: &str =
    "mailto:admin@example.org, xmpp:admin@example.org or https://example.org/contact";
const EXPECTED_PAGE: &str = "a URL such as https://example.org/terms";

/// A `mailto:`, `xmpp:` or `https:` URI.
pub fn address(text: &str) -> Result<String, InvalidValue> {
    let is_valid = is_uri(text)
        && match text.split_once(':') {
            // "mailto:" takes a list of addresses, of which one is enough here.
            Some(("mailto", rest)) => has_two_parts(before_query(rest)),
            // An address without a user is one of a server.
            Some(("xmpp", rest)) => {
                let jid = before_query(rest);
                !jid.is_empty()
                    && !jid.starts_with('/')
                    && (!jid.contains('@') || has_two_parts(jid))
            }
            _ => is_web_page(text),
        };
    is_valid.then(|| text.to_owned()).ok_or_else(|| {
        match has_two_parts(text) && !text.contains(':') {
            true => format!("mailto:{text} or xmpp:{text}").into(),
            false => EXPECTED.into(),
        }
    })
}

/// The `https:` URL of a page.
pub fn web_page(text: &str) -> Result<String, InvalidValue> {
    let is_valid = is_uri(text) && is_web_page(text);
    is_valid
        .then(|| text.to_owned())
        .ok_or_else(|| EXPECTED_PAGE.into())
}

/// The characters and length of a URI (RFC 3986 §2).
fn is_uri(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&b);
    text.len() <= MAX_URI && text.bytes().all(allowed)
}

fn is_web_page(text: &str) -> bool {
    text.strip_prefix("https://").is_some_and(|rest| {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        url::host(&rest[..end]).is_some()
    })
}

fn before_query(text: &str) -> &str {
    text.split(['?', '#']).next().unwrap_or_default()
}

/// Whether there is one `@` with something on each side.
fn has_two_parts(text: &str) -> bool {
    text.split_once('@')
        .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_addresses() {
        for text in [
            "mailto:admin@example.org",
            "mailto:admin+abuse@example.org?subject=Upload%20abuse",
            "xmpp:admin@example.org",
            "xmpp:admins@muc.example.org?join",
            "xmpp:example.org",
            "https://example.org",
            "https://example.org:8443/contact?a=b#c",
            "https://[2001:db8::1]/",
            "https://example.org/@admin",
        ] {
            assert_eq!(address(text).as_deref(), Ok(text));
        }
        assert_eq!(
            web_page("https://example.org/terms").as_deref(),
            Ok("https://example.org/terms")
        );
    }

    #[test]
    fn refuses_everything_else() {
        let long = format!("https://example.org/{}", "x".repeat(MAX_URI));
        for text in [
            "",
            "admin",
            "http://example.org/",
            "javascript:alert(1)",
            "data:text/html,x",
            "MAILTO:admin@example.org",
            "mailto:admin",
            "mailto:@example.org",
            "mailto:admin@",
            "mailto:a@b@c",
            "mailto:a b@example.org",
            "mailto:\"a\"@example.org",
            "mailto:admin@exämple.org",
            "xmpp:",
            "xmpp:?join",
            "xmpp:@example.org",
            "xmpp://admin@example.org",
            "https:",
            "https://",
            "https:///x",
            "https://a..b/",
            "https://user@example.org/",
            "https://example.org/<script>",
            "https://example.org:0/",
            "https://example.org/\n",
            &long,
        ] {
            assert_eq!(address(text), Err(EXPECTED.into()), "{text:?}");
            assert_eq!(web_page(text), Err(EXPECTED_PAGE.into()), "{text:?}");
        }
        assert!(web_page("mailto:admin@example.org").is_err());
    }

    #[test]
    fn an_address_without_a_scheme_is_completed_in_the_error() {
        let error = address("admin@example.org").expect_err("no scheme");
        assert_eq!(
            error.expected,
            "mailto:admin@example.org or xmpp:admin@example.org"
        );
    }
}
