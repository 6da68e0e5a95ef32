//! `upslot explain`: whether a slot request would be granted, and why.
//!
//! It calls the same decision functions as the service, on the same files, and describes each result. State of the running
//! process is not included: unused slots and uploads in progress.

use std::os::fd::{AsFd, OwnedFd};

use crate::config::Config;
use crate::layout;
use crate::list;
use crate::now::Now;
use crate::policy::Usage;
use crate::policy::pool::Bytes;
use crate::service::Service;
pub use crate::service::explain::{Explanation, parse};
use crate::service::explain::{StoredUsage, describe};
use crate::slot::SlotRequest;
use crate::store::usage::UsageTracker;
use crate::store::walk::{Slice, WalkMode};
use crate::sys;

/// Explains the decision on a slot request.
pub fn explain(config: &Config, request: &SlotRequest, now: Now) -> Result<Explanation, String> {
    let service = Service::unsigned(config);
    let owner = layout::owner_folder(&request.owner);
    let root = list::open(config)?;
    let stored = read(root, config, &service, &owner, now);
    Ok(describe(config, &service, request, &stored, now))
}

/// Counts the files; without a root nothing is stored.
fn read(
    root: Option<OwnedFd>,
    config: &Config,
    service: &Service,
    owner: &str,
    now: Now,
) -> StoredUsage {
    let wants_total = config.global_quota > 0;
    let Some(root) = root else {
        return StoredUsage {
            usage: Usage {
                owner: Some(Bytes::default()),
                total: wants_total.then_some(0),
                free: None,
            },
            recent: Vec::new(),
            is_missing: true,
        };
    };
    let root = root.as_fd();
    let mut tracker = UsageTracker::default();
    tracker.ask(owner.as_bytes(), WalkMode::Files);
    if wants_total {
        tracker.want_total(root, WalkMode::Names);
    }
    let window = service.longest_reach();
    let mut recent = Vec::new();
    while tracker.is_counting() {
        if let Some(counted) = tracker.go_on(root, &mut Slice::begin(sys::monotonic), window, now) {
            recent = counted.recent;
        }
    }
    let usage = Usage {
        owner: Some(
            tracker
                .of_owner(owner.as_bytes(), now.mono)
                .unwrap_or_default(),
        ),
        total: tracker.total(),
        free: sys::free_space(root).ok(),
    };
    StoredUsage {
        usage,
        recent,
        is_missing: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::jid::BareJid;
    use crate::purpose::Purpose;
    use std::fs;

    /// Explains a request of an owner with one stored file of 600 bytes.
    fn answer(name: &str, more: &str, jid: &str, size: u64, content_type: Option<&str>) -> String {
        let root =
            std::env::temp_dir().join(format!("upslot-explain-{name}-{}", std::process::id()));
        let jid = BareJid::parse(jid).unwrap();
        let folder = root.join(layout::owner_folder(&jid)).join("AbCdEfGhIjKlM");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("old.jpg"), vec![0; 600]).unwrap();
        let text = format!(
            "storage_path: {}\nget_url: https://a.example/\nput_url: https://a.example/\n{more}",
            root.display()
        );
        let config = config::read(&text).unwrap().config;
        let request = SlotRequest {
            owner: jid,
            name: "file".to_owned(),
            size,
            content_type: content_type.map(str::to_owned),
            purpose: Purpose::Message,
        };
        let answer = explain(&config, &request, sys::now());
        fs::remove_dir_all(&root).unwrap();
        let answer = answer.unwrap();
        assert_eq!(answer.granted, answer.text.contains("would be granted."));
        answer.text
    }

    #[track_caller]
    fn check(name: &str, more: &str, jid: &str, size: u64, lines: &[&str]) {
        let answer = answer(name, more, jid, size, None);
        for line in lines {
            assert!(answer.contains(line), "{line:?} is not in:\n{answer}");
        }
    }

    #[test]
    fn a_missing_store_is_empty() {
        let root = std::env::temp_dir().join(format!("upslot-explain-none-{}", std::process::id()));
        let text = format!(
            "storage_path: {}\nget_url: https://a.example/\nput_url: https://a.example/\nglobal_quota: 1 GiB\n",
            root.display()
        );
        let config = config::read(&text).unwrap().config;
        let request = parse(&["a@b.c".to_owned()]).unwrap();
        let answer = explain(&config, &request, sys::now()).unwrap();
        assert!(!root.exists());
        for line in [
            "does not exist yet, so nothing is stored",
            "user_quota_hard: no limit; nothing stored",
            "global_quota: 0 bytes of 1 GiB",
            "A slot for 1 byte would be granted.",
        ] {
            assert!(
                answer.text.contains(line),
                "{line:?} is not in:\n{}",
                answer.text
            );
        }
    }

    #[test]
    fn every_decision_is_explained() {
        check(
            "open",
            "",
            "a@b.c",
            1000,
            &[
                "whitelist: none,",
                "access: no rules",
                "purpose message: at most 20 MiB a file; files never expire",
                "user_quota_hard: no limit; 600 bytes stored",
                "A slot for 1000 bytes would be granted.",
            ],
        );
        check(
            "listed",
            "whitelist: [x.y, b.c]\n",
            "a@b.c",
            1,
            &["the entry b.c matches"],
        );
        check(
            "stranger",
            "whitelist: [x.y]\n",
            "a@b.c",
            1,
            &[
                "whitelist: none of its 1 entries",
                "would be refused (not_allowed)",
            ],
        );
        check(
            "large",
            "max_file_size: 10\nexpire_maxage: 30 d\nexpire_interval: 1 d\n",
            "a@b.c",
            11,
            &[
                "purpose message: at most 10 bytes a file; files expire after 30 d",
                "would be refused (too_large)",
            ],
        );
        check(
            "quota",
            "user_quota_hard: 1000\n",
            "a@b.c",
            401,
            &[
                "user_quota_hard: 600 bytes of 1000 bytes",
                "would be refused (owner_quota)",
            ],
        );
        check(
            "evict",
            "user_quota_hard: 1000\nevict_on_quota: true\n",
            "a@b.c",
            401,
            &["the oldest files would be evicted", "would be granted"],
        );
        check(
            "all",
            "global_quota: 1000\n",
            "a@b.c",
            401,
            &["global_quota: 600 bytes of 1000 bytes", "(global_quota)"],
        );
    }

    /// A rule without an age limit leaves ephemeral files that of their purpose.
    #[test]
    fn ages_are_those_of_new_files() {
        check(
            "ages",
            "purposes: {message: {}, ephemeral: {expire_maxage: 7 d}}\nexpire_maxage: 30 d\nexpire_interval: 1 d\n\
             access:\n  - {jid: '^a@', expire_maxage: 0}\n",
            "a@b.c",
            1,
            &[
                "purpose message: at most 20 MiB a file; files never expire",
                "purpose ephemeral: at most 20 MiB a file; files expire after 7 d",
            ],
        );
    }

    #[test]
    fn rules_are_explained_with_their_use() {
        let rules = "access:\n  - {jid: '^bad@', upload: false}\n  - jid: '@b\\.c$'\n    max_total_size: 2000\n    \
                     bytes_per_timedelta: {delta: 3600, bytes: 1000}\n";
        check(
            "denied",
            rules,
            "bad@b.c",
            1,
            &["access: rule 1", "denies", "(not_allowed)"],
        );
        check(
            "unmatched",
            rules,
            "a@x.y",
            1,
            &["no rule matches", "(not_allowed)"],
        );
        check(
            "used",
            rules,
            "a@b.c",
            400,
            &[
                "access: rule 2",
                "max_total_size of the rule: 600 bytes of 1.9 KiB (2000 bytes)",
                "bytes per 1 h: 600 bytes of 1000 bytes",
                "would be granted",
            ],
        );
        check(
            "used-up",
            rules,
            "a@b.c",
            401,
            &["(rate)", "It would be granted from 2"],
        );
    }
}
