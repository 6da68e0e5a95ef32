//! `upslot explain`: what a slot request of this address would meet, and why.
//!
//! It goes through the same decisions as the service, with a look at the same files, and says each of them in words.
//! What only the running process knows is left out: slots that were issued and not used, uploads under way.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::{Config, scalar};
use crate::jid::BareJid;
use crate::layout;
use crate::now::{Now, date_time};
use crate::policy::pool::{self, Bytes, Pool};
use crate::policy::rates::{Kind, Outcome, Rates};
use crate::policy::rules::{Decision, Limits};
use crate::policy::{Room, Stored};
use crate::service::Service;
use crate::slot::{Purpose, Refusal, SlotRequest};
use crate::store::usage::Usage;
use crate::store::walk::Slice;
use crate::sys;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    pub jid: BareJid,
    /// Bytes.
    pub size: u64,
    pub content_type: Option<String>,
}

impl Question {
    /// Reads the words `JID [SIZE] [TYPE]`; without a size, one byte is asked for. A unit may stand apart from its
    /// number. Fails with a sentence without its full stop.
    pub fn parse(words: &[String]) -> Result<Question, String> {
        let Some((jid, words)) = words.split_first() else {
            return Err("explain needs a JID".into());
        };
        let jid = BareJid::parse(jid).ok_or_else(|| format!("{jid:?} is not a JID"))?;
        let read = |text: &str| scalar::size(text, 1).ok();
        let apart = words
            .split_at_checked(2)
            .and_then(|(size, words)| Some((read(&size.join(" "))?, words)));
        let (size, words) = match (apart, words) {
            (Some(apart), _) => apart,
            (None, []) => (1, words),
            (None, [size, words @ ..]) => {
                let expected = "a size above 0, such as 20971520 or 20 MiB";
                (
                    read(size).ok_or_else(|| {
                        format!("found {size:?} as the size, expected {expected}")
                    })?,
                    words,
                )
            }
        };
        let content_type = match words {
            [] => None,
            [content_type] if is_mime_type(content_type) => Some(content_type.clone()),
            [other] => {
                return Err(format!(
                    "found {other:?} as the type, expected a MIME type such as image/png"
                ));
            }
            [_, other, ..] => {
                return Err(format!(
                    "explain takes JID, SIZE and TYPE, and {other:?} is one word too many"
                ));
            }
        };
        Ok(Question {
            jid,
            size,
            content_type,
        })
    }
}

/// Whether a text is a MIME type, with or without parameters.
fn is_mime_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim();
    scalar::mime_pattern(essence).is_ok() && !essence.contains('*')
}

/// The answer, some lines of text.
pub fn explain(config: &Config, question: &Question, now: Now) -> Result<String, String> {
    let service = Service::new(config, b"nothing is signed here");
    let jid = &question.jid;
    let mut text = String::new();
    let mut say = |line: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    };
    say(format!("address: {jid}"));
    say(format!("owner folder: {}", layout::owner_folder(jid)));
    say(whitelist(config, jid));
    let rule = match service.policy().rules.decide(jid) {
        Decision::NoRules => "access: there are no rules".to_owned(),
        Decision::Denied { rule: None } => "access: no rule matches, so it is denied".to_owned(),
        Decision::Denied { rule: Some(rule) } => format!("access: {rule} denies"),
        Decision::Allowed { rule, .. } => format!("access: {rule} allows"),
    };
    say(rule);

    let look = Look::new(config, &service, jid, now)?;
    let limits = service.policy().admit(jid).ok().flatten();
    for line in sizes(config, &service, limits) {
        say(line);
    }
    for line in quotas(config, &service, limits, &look) {
        say(line);
    }
    let mut rates = Rates::default();
    if let Some(limits) = limits {
        let owner = layout::owner_folder(jid);
        rates.learned(owner.as_bytes(), limits, &look.recent, now.unix());
        for used in rates
            .uses(owner.as_bytes(), limits, now.unix())
            .unwrap_or_default()
        {
            let what = match used.kind {
                Kind::Bytes => "bytes",
                Kind::Uploads => "uploads",
            };
            let (seconds, limit) = (used.delta.as_secs(), used.limit);
            say(format!("{what} per {seconds} s: {} of {limit}", used.used));
        }
    }
    let size = question.size;
    match verdict(&service, question, &look, &mut rates, now) {
        Ok(()) => say(format!("A slot for {size} bytes would be granted.")),
        Err(refusal) => {
            say(format!(
                "A slot for {size} bytes would be refused ({}): {refusal}",
                refusal.reason()
            ));
            if let Refusal::Rate {
                retry: Some(at), ..
            } = refusal
            {
                say(format!("It would be granted from {} on.", date_time(at)));
            }
        }
    }
    Ok(text)
}

/// What the store tells.
struct Look {
    owner: Bytes,
    recent: Vec<(u64, u64)>,
    total: Option<u64>,
    free: Option<u64>,
}

impl Look {
    fn new(config: &Config, service: &Service, jid: &BareJid, now: Now) -> Result<Look, String> {
        let path = config.storage_path.display();
        let root = sys::open_root(&config.storage_path)
            .map_err(|error| format!("storage_path {path}: cannot open the folder: {error}."))?;
        let root = std::os::fd::AsFd::as_fd(&root);
        let owner = layout::owner_folder(jid);
        let mut usage = Usage::default();
        usage.ask(owner.as_bytes());
        if config.global_quota > 0 {
            usage.want_total(root);
        }
        let mut recent = Vec::new();
        while usage.is_counting() {
            let window = service.longest_reach();
            if let Some(counted) = usage.go_on(root, &mut Slice::begin(), window, now) {
                recent = counted.recent;
            }
        }
        Ok(Look {
            owner: usage
                .of_owner(owner.as_bytes(), now.mono)
                .unwrap_or_default(),
            recent,
            total: usage.total(),
            free: sys::free_space(root).ok(),
        })
    }
}

fn whitelist(config: &Config, jid: &BareJid) -> String {
    let Some(list) = &config.whitelist else {
        return "whitelist: there is none, so everyone may ask".to_owned();
    };
    let entry = list
        .iter()
        .find(|entry| *entry == jid || entry.as_str() == jid.domain());
    match entry {
        Some(entry) => format!("whitelist: the entry {entry} lets it in"),
        None => format!(
            "whitelist: none of its {} entries is {jid} or {}",
            list.len(),
            jid.domain()
        ),
    }
}

fn sizes(config: &Config, service: &Service, limits: Option<&Limits>) -> Vec<String> {
    let announced = service.purposes().iter().copied();
    let purposes = [
        Purpose::Message,
        Purpose::Profile,
        Purpose::Ephemeral { expire_before: 0 },
        Purpose::Permanent,
    ];
    let mut lines: Vec<String> = purposes
        .iter()
        .filter(|purpose| {
            announced.clone().any(|word| word == purpose.word()) || **purpose == Purpose::Message
        })
        .map(|purpose| {
            let size = service
                .policy()
                .max_file_size(pool::kind_of(*purpose), limits);
            let age = service.lifetime().of(*purpose);
            let age = limits
                .and_then(|limits| limits.expire_maxage)
                .unwrap_or(age);
            let age = match age {
                Duration::ZERO => "never go by age".to_owned(),
                age => format!("go after {} s", age.as_secs()),
            };
            format!(
                "purpose {}: at most {size} bytes a file; files {age}",
                purpose.word()
            )
        })
        .collect();
    let lists = [
        ("allowed_file_types", config.allowed_file_types.as_deref()),
        (
            "allowed_file_types of the rule",
            limits.and_then(|l| l.allowed_file_types.as_deref()),
        ),
    ];
    for (name, list) in lists {
        if let Some(list) = list {
            lines.push(format!("{name}: {}", list.join(", ")));
        }
    }
    lines
}

fn quotas(config: &Config, service: &Service, limits: Option<&Limits>, look: &Look) -> Vec<String> {
    let shown = |name: &str, used: u64, limit: u64| match limit {
        0 => format!("{name}: {used} bytes, without a limit"),
        limit => format!("{name}: {used} of {limit} bytes"),
    };
    let policy = service.policy();
    let general = Pool(policy.own_quotas.map(|own| own.is_none()));
    let mut lines = vec![shown(
        "user_quota_hard",
        general.sum(&look.owner),
        policy.owner_quota,
    )];
    for purpose in [
        Purpose::Message,
        Purpose::Profile,
        Purpose::Ephemeral { expire_before: 0 },
        Purpose::Permanent,
    ] {
        let kind = pool::kind_of(purpose);
        if let Some(quota) = policy.own_quotas[kind] {
            let name = format!("user_quota_hard of {}", purpose.word());
            lines.push(shown(&name, look.owner[kind], quota));
        }
    }
    if let Some(total) = limits.and_then(|limits| limits.max_total_size) {
        lines.push(shown(
            "max_total_size of the rule",
            Pool::ALL.sum(&look.owner),
            total,
        ));
    }
    if config.evict_on_quota {
        lines.push("evict_on_quota: the oldest files would make room".to_owned());
    }
    if let Some(total) = look.total {
        lines.push(shown("global_quota", total, config.global_quota));
    }
    if let Some(free) = look.free {
        let reserve = config.min_free_space;
        lines.push(format!(
            "free on the disk: {free} bytes, of which {reserve} stay free"
        ));
    }
    lines
}

fn verdict(
    service: &Service,
    question: &Question,
    look: &Look,
    rates: &mut Rates,
    now: Now,
) -> Result<(), Refusal> {
    let request = SlotRequest {
        owner: question.jid.clone(),
        name: "file".to_owned(),
        size: question.size,
        content_type: question.content_type.clone(),
        purpose: Purpose::Message,
    };
    let limits = service.judge(&request)?;
    let total = limits.and_then(|limits| limits.max_total_size).unwrap_or(0);
    let stored = Stored {
        owner: Some(look.owner),
        total: look.total,
        free: look.free,
    };
    match service.room(request.size, pool::kind(None), total, &stored) {
        Room::Enough => {}
        Room::Over { evict: true, .. } => {}
        Room::Over { refusal, .. } | Room::Refused(refusal) => return Err(refusal),
    }
    let Some(limits) = limits else {
        return Ok(());
    };
    let owner = layout::owner_folder(&question.jid);
    match rates.check(owner.as_bytes(), limits, request.size, now.unix()) {
        Outcome::Refused { over, retry } => Err(Refusal::Rate {
            bytes: over.kind == Kind::Bytes,
            size: request.size,
            used: over.used,
            limit: over.limit,
            delta: over.delta,
            retry: retry.and_then(time),
        }),
        Outcome::Allowed | Outcome::Unknown => Ok(()),
    }
}

fn time(unix: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(unix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::fs;

    /// Explains with a store that holds one file of 600 bytes of the asker's.
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
        let question = Question {
            jid,
            size,
            content_type: content_type.map(str::to_owned),
        };
        let answer = explain(&config, &question, sys::now());
        fs::remove_dir_all(&root).unwrap();
        answer.unwrap()
    }

    #[track_caller]
    fn check(name: &str, more: &str, jid: &str, size: u64, lines: &[&str]) {
        let answer = answer(name, more, jid, size, None);
        for line in lines {
            assert!(answer.contains(line), "{line:?} is not in:\n{answer}");
        }
    }

    #[test]
    fn every_decision_is_named() {
        check(
            "open",
            "",
            "a@b.c",
            1000,
            &[
                "whitelist: there is none",
                "access: there are no rules",
                "purpose message: at most 20971520 bytes a file; files never go by age",
                "user_quota_hard: 600 bytes, without a limit",
                "A slot for 1000 bytes would be granted.",
            ],
        );
        check(
            "listed",
            "whitelist: [x.y, b.c]\n",
            "a@b.c",
            1,
            &["the entry b.c lets it in"],
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
            "max_file_size: 10\n",
            "a@b.c",
            11,
            &["would be refused (too_large)"],
        );
        check(
            "quota",
            "user_quota_hard: 1000\n",
            "a@b.c",
            401,
            &[
                "user_quota_hard: 600 of 1000 bytes",
                "would be refused (owner_quota)",
            ],
        );
        check(
            "evict",
            "user_quota_hard: 1000\nevict_on_quota: true\n",
            "a@b.c",
            401,
            &["the oldest files would make room", "would be granted"],
        );
        check(
            "all",
            "global_quota: 1000\n",
            "a@b.c",
            401,
            &["global_quota: 600 of 1000 bytes", "(global_quota)"],
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
                "max_total_size of the rule: 600 of 2000 bytes",
                "bytes per 3600 s: 600 of 1000",
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
