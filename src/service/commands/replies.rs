//! The forms and notes of commands.

use std::time::SystemTime;

use crate::expiry::StoredFile;
use crate::jid::BareJid;
use crate::layout::{FileId, Owner};
use crate::listing::{Listing, Totals};
use crate::now::date_time;
use crate::policy::pool::{Pool, QuotaClass};
use crate::policy::rates::{WindowKind, WindowUsage};
use crate::purpose::Purpose;
use crate::service::Service;
use crate::service::commands::Task;
use crate::service::explain::Explanation;
use crate::service::sessions::Stage;
use crate::units::{self, DisplayDuration};
use crate::xmpp::adhoc::{CommandError, Note, NoteKind};
use crate::xmpp::form::Form;

/// Maximum number of characters of a file name that is shown.
const MAX_NAME: usize = 80;

/// How an execution goes on after the store was searched.
#[derive(Debug)]
pub enum Outcome {
    /// Wait for this.
    Ask(Stage, Vec<Note>, Form),
    /// The command is completed.
    Done(Vec<Note>, Option<Form>),
    Failed(CommandError),
}

impl Outcome {
    fn said(kind: NoteKind, text: String) -> Outcome {
        Outcome::Done(vec![Note { kind, text }], None)
    }
}

/// The type of the form of a stage.
pub(super) fn form_type(stage: &Stage) -> &'static str {
    match stage {
        Stage::ChooseFiles => "urn:upslot:delete",
        Stage::ConfirmFiles(_) => "urn:upslot:delete:confirm",
        Stage::ConfirmAll => "urn:upslot:delete-all",
        Stage::NameOwner => "urn:upslot:delete-user",
        Stage::ConfirmOwner(_) => "urn:upslot:delete-user:confirm",
        Stage::DescribeRequest => "urn:upslot:explain",
    }
}

/// The form of a stage that needs nothing from the store.
pub fn form_of(stage: &Stage) -> Form {
    let form = Form::to_fill_in(form_type(stage));
    match stage {
        Stage::DescribeRequest => form
            .headed(
                "Explain",
                "Tells whether a slot would be granted to a user, and why.",
            )
            .entry("user", "Address of the user", true)
            .entry("size", "Size of the file, such as 10 MiB", false)
            .entry("type", "Type of the file, such as image/png", false),
        _ => form
            .headed(
                "Delete a user's uploads",
                "The next page tells how much would be deleted.",
            )
            .entry(
                "user",
                "Address of the user, or name of the owner folder",
                true,
            ),
    }
}

impl Service {
    /// The outcome of a task that searched an owner's files, unless it is [`Task::Explain`]. `windows` is the use of the
    /// user's rates.
    pub fn found(
        &self,
        task: &Task,
        user: &BareJid,
        listing: &Listing,
        windows: &[WindowUsage],
    ) -> Outcome {
        match task {
            Task::ShowUploads => {
                Outcome::Done(Vec::new(), Some(self.uploads_form(user, listing, windows)))
            }
            Task::OfferFiles if listing.files > 0 => self.offer_files(listing),
            Task::CheckFiles(ids) => confirm_files(ids, listing),
            Task::CountOwner(owner) => confirm_owner(owner, listing),
            Task::CountAll if listing.files > 0 => confirm_all(listing),
            _ => Outcome::said(NoteKind::Info, "You have no uploads.".to_owned()),
        }
    }

    /// The uploads of a user, and the limits.
    fn uploads_form(&self, user: &BareJid, listing: &Listing, windows: &[WindowUsage]) -> Form {
        let policy = &self.policy;
        let admitted = policy.admit(user);
        let limits = admitted.as_ref().ok().copied().flatten();
        let about = match admitted {
            Ok(_) => "What you have uploaded, and how much you may upload.",
            Err(_) => "You may not upload files here; these were stored before.",
        };
        let used = |pool: Pool, quota: Option<u64>| {
            let used = units::size(pool.sum(&listing.bytes));
            quota.map_or(used.clone(), |quota| {
                format!("{used} of {}", units::size(quota))
            })
        };
        let mut form = Form::result("urn:upslot:uploads")
            .headed("My uploads", about)
            .text("files", "Uploads", &units::files(listing.files))
            .text(
                "used",
                "Space in use",
                &used(policy.general_pool(), policy.owner_quota),
            );
        for purpose in Purpose::ALL {
            let class = QuotaClass::from(purpose);
            if let Some(quota) = policy.class_quotas[class] {
                let word = purpose.word();
                let label = format!("Space in use for the purpose {word}");
                form = form.text(
                    &format!("used-{word}"),
                    &label,
                    &used(Pool::only(class), quota),
                );
            }
        }
        if let Some(total) = limits.and_then(|limits| limits.max_total_size) {
            form = form.text(
                "used-total",
                "Space in use altogether",
                &used(Pool::ALL, Some(total)),
            );
        }
        let largest = policy.max_file_size(QuotaClass::Message, limits);
        let age = self.max_age(Purpose::Message, limits);
        let expire = match age.is_zero() {
            true => "never".to_owned(),
            false => format!("after {}", DisplayDuration(age)),
        };
        form = form
            .text("max-file-size", "Largest upload", &units::size(largest))
            .text("expire", "New uploads expire", &expire);
        for (number, window) in (1..).zip(windows) {
            let (what, used, limit) = match window.kind {
                WindowKind::Bytes => ("Bytes", units::size(window.used), units::size(window.limit)),
                WindowKind::Uploads => {
                    ("Uploads", window.used.to_string(), window.limit.to_string())
                }
            };
            let label = format!("{what} within {}", DisplayDuration(window.delta));
            form = form.text(
                &format!("window-{number}"),
                &label,
                &format!("{used} of {limit}"),
            );
        }
        let shown = listing.selected.len() as u64;
        form = match listing.files.saturating_sub(shown) {
            _ if shown == 0 => form,
            0 => form.fixed("All uploads, the oldest first, with their links:"),
            _ => form.fixed(&format!(
                "The oldest {shown} of {} uploads, with their links:",
                listing.files
            )),
        };
        for (number, file) in (1..).zip(&listing.selected) {
            let end = self.lifetime.end(file.path.tag(), file.modified);
            let end = end.map_or(String::new(), |end| format!(", expires {}", minute(end)));
            let label = format!("{}{end}", label(number, file));
            let link = format!("{}{}", self.urls.get_prefix, file.path.encoded());
            form = form.text(&format!("upload-{number}"), &label, &link);
        }
        form
    }

    fn offer_files(&self, listing: &Listing) -> Outcome {
        let shown = listing.selected.len() as u64;
        let about = match listing.files.saturating_sub(shown) {
            0 => "Choose uploads, or enter a link.".to_owned(),
            more => format!(
                "Choose from the newest {shown} uploads, or enter a link; there are {more} older ones."
            ),
        };
        let options = (1..)
            .zip(&listing.selected)
            .map(|(number, file)| (label(number, file), FileId::of(&file.path).text()));
        let form = Form::to_fill_in(form_type(&Stage::ChooseFiles))
            .headed("Delete an upload", &about)
            .choice("files", "Uploads", options)
            .entry("link", "Link of an upload", false);
        Outcome::Ask(Stage::ChooseFiles, Vec::new(), form)
    }
}

fn confirm_files(ids: &[FileId], listing: &Listing) -> Outcome {
    let found = listing.selected.len();
    if found == 0 {
        let text = "None of these is among your uploads any more.".to_owned();
        return Outcome::Failed(CommandError::BadPayload(text));
    }
    let bytes = listing
        .selected
        .iter()
        .fold(0u64, |sum, file| sum.saturating_add(file.size));
    let about = format!(
        "Delete {}, {}? The links stop working, and this cannot be undone.",
        units::files(found as u64),
        units::size(bytes)
    );
    let chosen = listing.selected.iter().map(|file| FileId::of(&file.path));
    let stage = Stage::ConfirmFiles(chosen.collect());
    let mut form = Form::to_fill_in(form_type(&stage)).headed("Delete an upload", &about);
    for (number, file) in (1..).zip(&listing.selected) {
        form = form.fixed(&label(number, file));
    }
    let missing = ids.len() > found;
    let notes = missing.then(|| Note {
        kind: NoteKind::Warn,
        text: "Some of these are not among your uploads any more.".to_owned(),
    });
    Outcome::Ask(stage, notes.into_iter().collect(), form)
}

fn confirm_all(listing: &Listing) -> Outcome {
    let about = format!(
        "Delete all your uploads, {}? The links stop working, and this cannot be undone.",
        amount(listing)
    );
    let form = Form::to_fill_in(form_type(&Stage::ConfirmAll))
        .headed("Delete all my uploads", &about)
        .fixed(&amount(listing));
    Outcome::Ask(Stage::ConfirmAll, Vec::new(), form)
}

fn confirm_owner(owner: &Owner, listing: &Listing) -> Outcome {
    if listing.files == 0 {
        return Outcome::said(NoteKind::Info, format!("Nothing is stored of {owner}."));
    }
    let about = format!(
        "Delete all uploads of {owner}, {}? Slots that were not used yet are revoked. This cannot be undone.",
        amount(listing)
    );
    let stage = Stage::ConfirmOwner(owner.clone());
    let form = Form::to_fill_in(form_type(&stage))
        .headed("Delete a user's uploads", &about)
        .fixed(&format!("{owner}: {}", amount(listing)));
    Outcome::Ask(stage, Vec::new(), form)
}

/// The outcome of a deletion; `complete` tells whether all files were deleted, durably.
pub fn deleted(files: u64, bytes: u64, complete: bool) -> Outcome {
    let text = match files {
        0 if complete => "There was nothing to delete any more.".to_owned(),
        0 => "Nothing was deleted, because of an error of the store.".to_owned(),
        _ => format!("Deleted {}, {}.", units::files(files), units::size(bytes)),
    };
    match complete {
        true => Outcome::said(NoteKind::Info, text),
        false => Outcome::said(
            NoteKind::Error,
            format!("{text} The deletion is not complete; please try again, or tell the operator."),
        ),
    }
}

/// The usage of all owners; `free` is the free space on the disk.
pub fn usage(totals: &Totals, free: Option<u64>) -> Outcome {
    let mut form = Form::result("urn:upslot:usage")
        .headed("Usage", "What is stored, and of whom.")
        .text("owners", "Owners", &totals.owners.to_string())
        .text("files", "Files", &totals.files.to_string())
        .text("bytes", "Space in use", &units::size(totals.bytes));
    if let Some(free) = free {
        form = form.text("free", "Free disk space", &units::size(free));
    }
    if !totals.largest.is_empty() {
        form = form.fixed("The largest owners, by the names of their folders:");
    }
    for (number, (bytes, files, folder)) in (1..).zip(&totals.largest) {
        let use_ = format!("{}, {}", units::size(*bytes), units::files(*files));
        form = form.text(
            &format!("owner-{number}"),
            &folder.escape_ascii().to_string(),
            &use_,
        );
    }
    Outcome::Done(Vec::new(), Some(form))
}

/// An explanation.
pub fn explained(explanation: &Explanation) -> Outcome {
    let form = Form::result("urn:upslot:explain")
        .headed("Explain", "The decision on a slot request, and why.")
        .lines("explanation", "Explanation", explanation.text.lines());
    Outcome::Done(Vec::new(), Some(form))
}

fn amount(listing: &Listing) -> String {
    let bytes = Pool::ALL.sum(&listing.bytes);
    format!("{}, {}", units::files(listing.files), units::size(bytes))
}

/// Number, name, size and time of a file. The number makes it unique in a form, as XEP-0004 §3.3 requires.
fn label(number: u64, file: &StoredFile) -> String {
    format!(
        "{number}. {}, {}, {}",
        shown_name(file.path.name()),
        units::size(file.size),
        minute(file.modified)
    )
}

/// A file's name on one line, and not longer than it is useful.
fn shown_name(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let plain = |c: char| if c.is_control() { '\u{FFFD}' } else { c };
    let mut shown: String = name.chars().take(MAX_NAME).map(plain).collect();
    if name.chars().nth(MAX_NAME).is_some() {
        shown.push('…');
    }
    shown
}

/// A time for people: `2026-11-21 22:49 UTC`.
fn minute(time: SystemTime) -> String {
    let text = date_time(time);
    format!("{} {} UTC", &text[..10], &text[11..16])
}
