//! `list`, `remove` and `explain` with an object store.

use std::io::Write;

use crate::config::Config;
use crate::expiry::StoredFile;
use crate::layout::{self, Owner, StorePath};
use crate::list::{Lines, Listed, OwnerTotals, say};
use crate::listing::{Found, Listing, Work};
use crate::now::Now;
use crate::objects::client::{BucketClient, explained};
use crate::policy::Usage;
use crate::reactor::object_facts::ObjectHead;
use crate::remove::{Target, Wanted, say_dry_run, tombstone_policy};
use crate::s3::error::{FailureKind, StoreFailure};
use crate::s3::tasks::pages::Pages;
use crate::s3::tasks::removals::Removals;
use crate::s3::tasks::work::WorkTask;
use crate::service::explain::{Explanation, StoredUsage, describe};
use crate::service::{DownloadRequest, Service};
use crate::slot::SlotRequest;
use crate::sys;
use crate::units;

/// Lists the files of one owner, the oldest first.
pub fn list_one(
    client: &mut BucketClient,
    config: &Config,
    owner: &Owner,
    out: &mut dyn Write,
) -> Result<(), String> {
    let mut listed = Listed::new(config);
    let pages = Pages::of_owner(owner.folder().as_bytes());
    client.each_file(pages, |file| listed.add(file, out))?;
    listed.finish(owner, out)
}

/// Lists all owners, the largest first.
pub fn list_all(client: &mut BucketClient, out: &mut dyn Write) -> Result<(), String> {
    let mut totals = OwnerTotals::default();
    // Files of an owner follow each other.
    let mut current: (Vec<u8>, u64, u64) = (Vec::new(), 0, 0);
    client.each_file(Pages::new(String::new()), |file| {
        let owner = file.path.owner_folder();
        if current.0 != owner {
            let (folder, files, bytes) = std::mem::replace(&mut current, (owner.to_vec(), 0, 0));
            totals.add(folder, files, bytes);
        }
        current.1 += 1;
        current.2 = current.2.saturating_add(file.size);
        Ok(())
    })?;
    let (folder, files, bytes) = current;
    totals.add(folder, files, bytes);
    totals.say(out)
}

/// Removes the target, or with `dry_run` only lists it.
pub fn remove(
    client: &mut BucketClient,
    config: &Config,
    (target, wanted): (&Target, &Wanted),
    dry_run: bool,
    out: &mut dyn Write,
) -> Result<(), String> {
    match (target, wanted) {
        (Target::Url(url), Wanted::File(request)) => {
            remove_file(client, config, (url, request), dry_run, out)
        }
        (Target::Owner(owner), _) => remove_owner(client, config, owner, dry_run, out),
        (Target::Url(_), Wanted::Owner(_)) => Ok(()),
    }
}

/// Explains the decision on a slot request.
pub fn explain(
    client: &mut BucketClient,
    config: &Config,
    request: &SlotRequest,
    now: Now,
) -> Result<Explanation, String> {
    let service = Service::unsigned(config);
    let owner = layout::owner_folder(&request.owner);
    let stored = stored_usage(client, config, &service, &owner, now)?;
    Ok(describe(config, &service, request, &stored, now))
}

/// Removes all files of an owner, or with `dry_run` only lists them. Slots issued until now are void, but for those whose
/// uploads bypass upslot.
fn remove_owner(
    client: &mut BucketClient,
    config: &Config,
    owner: &Owner,
    dry_run: bool,
    out: &mut dyn Write,
) -> Result<(), String> {
    let folder = owner.folder().into_bytes();
    if dry_run {
        let lines = Lines::new(config);
        let (mut files, mut bytes) = (0u64, 0u64);
        client.each_file(Pages::of_owner(&folder), |file| {
            files += 1;
            bytes = bytes.saturating_add(file.size);
            say(out, &lines.line(&file))
        })?;
        return say_dry_run(files, bytes, out);
    }
    revoke(client, &folder).map_err(|failure| explained("revoke the open slots", &failure))?;
    let work = Work::Delete {
        owner: folder,
        files: None,
    };
    let result = client.work(WorkTask::new(work, tombstone_policy(config)));
    let (files, bytes) = match result.found {
        Found::Deleted { files, bytes } => (files, bytes),
        _ => (0, 0),
    };
    log_removed(&owner.folder(), files, bytes);
    let text = match (files, &result.error) {
        (0, None) => format!("Nothing is stored of {owner}."),
        _ => format!(
            "Removed {} of {owner}, {}.",
            units::files(files),
            units::size(bytes)
        ),
    };
    say(out, &text)?;
    match result.error {
        None => Ok(()),
        Some(failure) => Err(explained("remove all files", &failure)),
    }
}

/// Removes the file of a URL, or with `dry_run` only lists it.
fn remove_file(
    client: &mut BucketClient,
    config: &Config,
    (url, wanted): (&str, &DownloadRequest),
    dry_run: bool,
    out: &mut dyn Write,
) -> Result<(), String> {
    let found = find(client, wanted).map_err(|failure| explained("look up the file", &failure))?;
    let Some(file) = found else {
        return match dry_run {
            true => say_dry_run(0, 0, out),
            false => say(out, &format!("Nothing is stored of {url}.")),
        };
    };
    let size = file.size;
    if dry_run {
        say(out, &Lines::new(config).line(&file))?;
        return say_dry_run(1, size, out);
    }
    let owner = file.path.owner_folder().escape_ascii().to_string();
    let removals = client.delete(file, Removals::new(tombstone_policy(config)));
    log_removed(&owner, removals.files, removals.bytes);
    if removals.files > 0 {
        say(out, &format!("Removed {url}, {}.", units::size(size)))?;
    }
    match removals.error {
        None => Ok(()),
        Some(failure) => Err(explained("remove the file", &failure)),
    }
}

/// What is stored of an owner, for the explanation of a slot request.
fn stored_usage(
    client: &mut BucketClient,
    config: &Config,
    service: &Service,
    owner_folder: &str,
    now: Now,
) -> Result<StoredUsage, String> {
    let search = Work::count(owner_folder.as_bytes().to_vec(), service.recent_since(now));
    let failed = |failure: StoreFailure| explained("count the files", &failure);
    let counted = client.work(WorkTask::new(search, tombstone_policy(config)));
    if let Some(failure) = counted.error {
        return Err(failed(failure));
    }
    let listing = match counted.found {
        Found::Files(listing) => listing,
        _ => Listing::default(),
    };
    let mut total = None;
    if config.global_quota > 0 {
        let sum = Work::Sum { largest: 0 };
        let summed = client.work(WorkTask::new(sum, tombstone_policy(config)));
        if let Some(failure) = summed.error {
            return Err(failed(failure));
        }
        if let Found::Owners(totals) = summed.found {
            total = Some(totals.bytes);
        }
    }
    Ok(StoredUsage {
        usage: Usage {
            owner: Some(listing.bytes),
            total,
            free: None,
        },
        recent: listing.recent,
        is_missing: false,
    })
}

/// The file of a URL, under the first of its possible paths that exists.
fn find(
    client: &mut BucketClient,
    wanted: &DownloadRequest,
) -> Result<Option<StoredFile>, StoreFailure> {
    let DownloadRequest { path, again, slot } = wanted.clone();
    for path in path.into_iter().chain(again) {
        if let Some(found) = look_up(client, path)? {
            return Ok(Some(found));
        }
    }
    let Some(key) = slot.and_then(|slot| client.bucket.alias_key(&slot)) else {
        return Ok(None);
    };
    let alias = client.bucket.get(&key, None, sys::now());
    let Some(response) = unless_missing(client.ask(&alias))? else {
        return Ok(None);
    };
    let segments = response.body.split(|b| *b == b'/');
    match StorePath::from_segments(segments) {
        Some(path) => look_up(client, path),
        None => Ok(None),
    }
}

fn look_up(client: &mut BucketClient, path: StorePath) -> Result<Option<StoredFile>, StoreFailure> {
    let Some(key) = client.bucket.key(&path) else {
        return Ok(None);
    };
    let request = client.bucket.head(&key, sys::now());
    let Some(response) = unless_missing(client.ask(&request))? else {
        return Ok(None);
    };
    match ObjectHead::of(&response) {
        Some(head) => Ok(Some(StoredFile {
            modified: head.facts.modified,
            path,
            size: head.facts.size,
        })),
        None => {
            let why = "no length or no time";
            Err(StoreFailure::malformed(response.status, why))
        }
    }
}

/// The answer; `None` if there is no such object.
fn unless_missing<T>(answer: Result<T, StoreFailure>) -> Result<Option<T>, StoreFailure> {
    match answer {
        Err(failure) if failure.kind == FailureKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Lets all nodes know that earlier slots of an owner are void.
fn revoke(client: &mut BucketClient, owner: &[u8]) -> Result<(), StoreFailure> {
    let now = sys::now();
    let Some(key) = client.bucket.revocation_key(owner) else {
        return Ok(());
    };
    let until = now.unix().to_string();
    let request = client.bucket.put_small(&key, until.as_bytes(), now);
    client.ask(&request).map(|_| ())
}

fn log_removed(owner: &str, files: u64, bytes: u64) {
    if files > 0 {
        log::info!("files removed owner={owner} files={files} bytes={bytes} why=command");
    }
}
