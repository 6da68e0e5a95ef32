//! What the service says about itself: in service discovery, and on the page for people.

use std::time::Duration;

use crate::config::{Config, Purposes};
use crate::http::landing::{LandingFacts, LandingPage};
use crate::policy::pool::QuotaClass;
use crate::purpose::Purpose;
use crate::service::limits::{lifetime, policy};
use crate::units::{duration_in_words, exact_size};

/// Built once from a configuration.
#[derive(Debug)]
pub(super) struct Announced {
    /// Names of the purposes.
    pub(super) purposes: Vec<&'static str>,
    /// URIs of the operator's contact addresses.
    pub(super) contact: Vec<String>,
    /// The response to GET `/` for browsers.
    pub(super) page: LandingPage,
}

impl Announced {
    pub(super) fn new(config: &Config) -> Announced {
        let url = &config.get_url.prefix;
        let host = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        Announced {
            purposes: config.purposes.announced(),
            contact: config.contact.clone(),
            page: LandingPage::new(&LandingFacts {
                host: host.split('/').next().unwrap_or_default(),
                limits: &limits(config),
                has_exceptions: has_exceptions(config),
                contact: &config.contact,
                terms: config.terms_url.as_deref(),
            }),
        }
    }
}

/// The limits of users without an access rule, for files sent in messages.
fn limits(config: &Config) -> Vec<(&'static str, String)> {
    let policy = policy(config);
    let class = QuotaClass::Message;
    let mut limits = Vec::new();
    // If the XMPP server issues all slots, its own limits apply.
    let issues_slots = config.component.is_some() || config.api.is_some();
    if issues_slots {
        limits.push((
            "Largest file",
            exact_size(policy.max_file_size(class, None)),
        ));
        let types = config.allowed_file_types.as_deref();
        let types = types.map_or("all".to_owned(), |types| types.join(", "));
        limits.push(("File types", types));
    }
    limits.push((
        "Files are deleted",
        match lifetime(config).of(Purpose::Message) {
            Duration::ZERO => "not after a fixed time".to_owned(),
            age => format!("after {}", duration_in_words(age)),
        },
    ));
    if issues_slots {
        let quota = policy.class_quotas[class].unwrap_or(policy.owner_quota);
        let mut space = quota.map_or("no limit".to_owned(), exact_size);
        if quota.is_some() && policy.evict {
            space.push_str("; the oldest files are deleted to make room");
        }
        if !config.expire_interval.is_zero() && config.user_quota_soft > 0 {
            let soft = exact_size(config.user_quota_soft);
            space.push_str(&format!("; the oldest files are deleted above {soft}"));
        }
        limits.push(("Space for the files of one user", space));
    }
    limits
}

/// Whether access rules, purposes or the XMPP server set other limits.
fn has_exceptions(config: &Config) -> bool {
    !config.access.is_empty()
        || config.purposes != Purposes::default()
        || config.external_secret.is_some()
        || config.file_share_secret.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const BASE: &str = "\
storage_path: /srv/upslot
get_url: https://get.example:8443/files/
put_url: https://put.example/up
api: {port: 0}
";

    /// The page of a configuration as text: its tags are left out, and all values stand behind their names.
    fn page(more: &str) -> String {
        let reading = config::read(&format!("{BASE}{more}")).unwrap();
        let page = Announced::new(&reading.config).page.html;
        let (_, body) = page.split_once("<body>").unwrap();
        let body = body.replace("</dt><dd>", ": ");
        let pieces = body
            .split('<')
            .map(|piece| piece.split_once('>').map_or(piece, |(_, text)| text));
        pieces.collect()
    }

    #[track_caller]
    fn check(more: &str, parts: &[&str]) {
        let page = page(more);
        for part in parts {
            assert!(page.lines().any(|line| line == *part), "{part:?}\n{page}");
        }
    }

    #[test]
    fn the_page_shows_the_limits() {
        check(
            "",
            &[
                "get.example:8443",
                "Largest file: 20 MiB",
                "File types: all",
                "Files are deleted: not after a fixed time",
                "Space for the files of one user: no limit",
            ],
        );
        check(
            "max_file_size: 100 MB\nallowed_file_types: [image/*, video/mp4]\nexpire_maxage: 30 d\n\
             expire_interval: 1 d\nuser_quota_hard: 1536 MiB\nevict_on_quota: true\nuser_quota_soft: 1000000001\n",
            &[
                "Largest file: 100 MB",
                "File types: image/*, video/mp4",
                "Files are deleted: after 30 days",
                "Space for the files of one user: 1536 MiB; the oldest files are deleted to make room; the oldest files \
                 are deleted above 1000000001 bytes",
            ],
        );
        // Without sweeps, neither has an effect.
        check(
            "expire_maxage: 30 d\nuser_quota_soft: 1 GiB\n",
            &[
                "Files are deleted: not after a fixed time",
                "Space for the files of one user: no limit",
            ],
        );
        check(
            "purposes:\n  message: {max_file_size: 1 GiB, expire_maxage: 1 h, user_quota_hard: 4 kB}\n",
            &[
                "Largest file: 1 GiB",
                "Files are deleted: after 1 hour",
                "Space for the files of one user: 4 kB",
                "Some users and some kinds of files have other limits.",
            ],
        );
    }

    #[test]
    fn exceptions_are_mentioned() {
        for more in [
            "access: [{jid: a, max_file_size: 5}, {jid: b}]\n",
            "purposes: {message: , profile: }\n",
            "external_secret: 0123456789abcdef\n",
            "file_share_secret: 0123456789abcdef\n",
        ] {
            check(
                more,
                &["Some users and some kinds of files have other limits."],
            );
        }
        assert!(!page("").contains("other limits"));
    }

    #[test]
    fn without_slots_of_its_own_the_service_knows_few_limits() {
        let more = BASE.replace("api:", "#api:") + "external_secret: 0123456789abcdef\n";
        let reading = config::read(&more).unwrap();
        let names: Vec<&str> = limits(&reading.config)
            .iter()
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(names, ["Files are deleted"]);
    }

    #[test]
    fn contact_and_terms_are_shown() {
        check(
            "contact: [mailto:admin@example.org, xmpp:admin@example.org]\nterms_url: https://example.org/terms\n",
            &[
                "mailto:admin@example.org",
                "xmpp:admin@example.org",
                "Terms of use",
            ],
        );
    }
}
