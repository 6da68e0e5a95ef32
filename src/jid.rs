//! XMPP addresses (RFC 7622), as far as a component needs them.
//!
//! The XMPP server has already prepared and validated the addresses that it stamps on stanzas; this module only splits
//! them and folds them to lower case. Case is folded because configuration files and the stores of predecessors may
//! hold addresses that were never prepared.

use std::fmt;

/// Maximum length of one part of an address, in bytes (RFC 7622 §3.1).
const MAX_PART: usize = 1023;

/// A bare JID, `local@domain` or `domain`, in lower case. Never empty; no white space or control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BareJid(String);

impl BareJid {
    /// Parses a bare or full JID and keeps the bare part. `None` if the text is not a JID.
    pub fn parse(text: &str) -> Option<BareJid> {
        let bare = text.split('/').next().unwrap_or_default();
        let (local, domain) = match bare.split_once('@') {
            Some((local, domain)) => (Some(local), domain),
            None => (None, bare),
        };
        let domain = domain.strip_suffix('.').unwrap_or(domain);
        let is_valid = |part: &str| {
            !part.is_empty()
                && part.len() <= MAX_PART
                && !part.chars().any(|c| c.is_whitespace() || c.is_control())
        };
        // One trailing dot (the DNS root) was stripped above; a second one means an empty label.
        let has_empty_label = domain.ends_with('.');
        if !is_valid(domain)
            || has_empty_label
            || domain.contains('@')
            || !local.is_none_or(is_valid)
        {
            return None;
        }
        let bare = bare.strip_suffix('.').unwrap_or(bare);
        Some(BareJid(bare.to_lowercase()))
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The domain part: everything after the `@`, or the whole address if there is none.
    pub fn domain(&self) -> &str {
        self.0.rsplit('@').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for BareJid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, bare: Option<&str>) {
        let parsed = BareJid::parse(text);
        assert_eq!(parsed.as_ref().map(BareJid::as_str), bare, "{text:?}");
    }

    #[test]
    fn bare_and_full_jids_and_domains_parse() {
        check("romeo@montague.tld", Some("romeo@montague.tld"));
        check("Romeo@Montague.TLD/orchard", Some("romeo@montague.tld"));
        check("montague.tld", Some("montague.tld"));
        check("montague.tld./x@y/z", Some("montague.tld"));
        check("jürgen@münchen.example", Some("jürgen@münchen.example"));
        assert_eq!(BareJid::parse("a@b.c").unwrap().domain(), "b.c");
        assert_eq!(BareJid::parse("b.c").unwrap().domain(), "b.c");
    }

    #[test]
    fn malformed_addresses_are_rejected() {
        for text in [
            "", "@", "@b", "a@", "/r", "a@b@c", "a b@c", "a@b\n", "a\u{0}@b", ".", "..", "a@b..",
        ] {
            check(text, None);
        }
        check(&format!("a@{}", "b".repeat(1024)), None);
    }
}
