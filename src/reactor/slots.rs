//! The stanzas of the link, slot requests in particular, and the walks through the store for which requests wait.

use crate::expiry::Trimmed;
use crate::layout;
use crate::now::Now;
use crate::reactor::Reactor;
use crate::reactor::admission::Admission;
use crate::reactor::component::Incoming;
use crate::reactor::shared::Shared;
use crate::reactor::sync_token::SyncToken;
use crate::reactor::waiting::{Attempt, Lookup, Waiter};
use crate::refusal::Refusal;
use crate::slot::Slot;
use crate::store::sweep::Report;
use crate::store::usage::Counted;
use crate::store::walk::Slice;
use crate::syncer::Work;
use crate::sys;
use crate::xmpp::element::Element;
use crate::xmpp::iq::{self, Identity, StanzaAction};
use crate::xmpp::upload::SlotIq;
use crate::xmpp::xml::Skipped;

/// Maximum number of stanzas per turn, so that they cost less than the bytes of other connections.
const STANZAS: usize = 64;

/// Maximum number of owners that are counted per turn. The requests that wait for them are answered together, so that
/// each does not cost a turn and a write to the link.
const OWNERS: usize = 64;

impl Reactor {
    /// Reads from the link, answers stanzas, and writes the answers.
    pub(super) fn drive_link(&mut self, now: Now) {
        if !std::mem::take(&mut self.xmpp.has_work) {
            return;
        }
        let Some(link) = &mut self.xmpp.link else {
            return;
        };
        link.receive(self.poll.registry(), &mut self.shared.buffers.scratch, now);
        for _ in 0..STANZAS {
            match self
                .xmpp
                .link
                .as_mut()
                .and_then(|link| link.next_stanza(now))
            {
                Some(Incoming::Stanza(stanza)) => self.answer_stanza(stanza, now),
                Some(Incoming::Skipped(skipped)) => self.answer_skipped(skipped, now),
                None => break,
            }
        }
        if let Some(link) = &mut self.xmpp.link {
            self.xmpp.has_work = link.settle(now);
        }
    }

    pub(super) fn answer_stanza(&mut self, stanza: Element, now: Now) {
        let service = &self.shared.service;
        let Some(link) = &self.xmpp.link else {
            return;
        };
        let identity = Identity {
            jid: link.jid(),
            purposes: service.purposes(),
            contact: service.contact(),
        };
        let answer = iq::route(stanza, identity, now.unix(), |asker| {
            service.max_file_size(asker)
        });
        match answer {
            StanzaAction::Ignore => {}
            StanzaAction::Reply(reply) => self.reply(&reply),
            StanzaAction::Command(iq) => self.answer_command(iq, now),
            StanzaAction::Node(iq) => self.answer_node(*iq),
            StanzaAction::Slot(iq) => self.answer_slot_request(iq, Attempt::default(), now),
        }
    }

    /// Counts and logs a stanza that was not parsed, and answers it if it was a request.
    fn answer_skipped(&mut self, skipped: Skipped, now: Now) {
        let shared = &mut self.shared;
        shared.status.metrics.stanza_skipped(skipped.why.reason());
        let from = skipped.stanza.attribute("from").unwrap_or_default();
        let sender = from.split('/').next().unwrap_or_default();
        if let Some(suppressed) = shared.log_limits.skipped_stanzas.allows(sender, now.mono) {
            log::info!(
                "stanza skipped kind={:?} from={from:?} why={:?}{suppressed}",
                &*skipped.stanza.name,
                skipped.why.to_string(),
            );
        }
        let Some(link) = &mut self.xmpp.link else {
            return;
        };
        let identity = Identity {
            jid: link.jid(),
            purposes: shared.service.purposes(),
            contact: shared.service.contact(),
        };
        if let Some(reply) = iq::reject(skipped, identity) {
            link.send(&reply);
        }
    }

    pub(super) fn reply(&mut self, reply: &Element) {
        if let Some(link) = &mut self.xmpp.link {
            link.send(reply);
        }
    }

    pub(super) fn answer_slot_request(&mut self, iq: Box<SlotIq>, attempt: Attempt, now: Now) {
        match self.find_slot(&iq, attempt, now) {
            Ok(Some(slot)) => self.reply(&iq.granted(slot)),
            Ok(None) => {
                let owner = layout::owner_folder(&iq.owner);
                let waiter = Waiter::Slot(iq, attempt);
                if let Err(Waiter::Slot(iq, _)) =
                    self.shared.admission.waiting.push(owner.as_bytes(), waiter)
                {
                    self.refuse_slot(*iq, &Refusal::Busy, now);
                }
            }
            Err(refusal) => self.refuse_slot(*iq, &refusal, now),
        }
    }

    /// The slot; `None` if the request must wait for the store.
    fn find_slot(
        &mut self,
        iq: &SlotIq,
        attempt: Attempt,
        now: Now,
    ) -> Result<Option<Slot>, Refusal> {
        let request = iq.request.as_ref().map_err(Refusal::clone)?;
        let Some(approved) = self.shared.check_slot(request, attempt, now)? else {
            return Ok(None);
        };
        self.shared.issue_slot(request, &approved, now).map(Some)
    }

    pub(super) fn refuse_slot(&mut self, iq: SlotIq, refusal: &Refusal, now: Now) {
        self.shared.note_refused_slot(&iq.owner, refusal, now);
        self.reply(&iq.refused(refusal));
    }

    /// Walks the store for one slice: first for waiting requests, then for the sweep.
    pub(super) fn walk_a_slice(&mut self, now: Now) {
        let shared = &mut self.shared;
        let Some(store) = shared.storage.folder() else {
            return;
        };
        let usage = &mut shared.admission.usage;
        usage.retry_total(store.root(), now.mono);
        let has_work = shared.admission.usage.is_counting() || shared.admission.trims.has_work();
        if !has_work && self.sweep.due().is_none_or(|due| due > now.mono) {
            return;
        }
        let window = shared.service.longest_reach();
        let plan = shared.sweep_plan();
        let Shared {
            storage, admission, ..
        } = shared;
        let Some(store) = storage.folder_mut() else {
            return;
        };
        let Admission { usage, trims, .. } = admission;
        let mut slice = Slice::begin(sys::monotonic);
        let mut counted = Vec::new();
        while counted.len() < OWNERS && slice.take() {
            match usage.go_on(store.root(), &mut slice, window, now) {
                Some(owner) => counted.push(owner),
                None => break,
            }
        }
        let trimmed = trims.go_on(plan.fsync, store, usage, &mut slice, now);
        let swept = self
            .sweep
            .go_on(&plan, store, usage, trims, &mut slice, now);
        let metrics = &mut shared.status.metrics;
        metrics.sweeps_failed(self.sweep.failures());
        let syncer = &mut shared.syncer;
        if let Some(folders) = trims.tombstones(store) {
            syncer.submit(SyncToken::Trim, Work::Folders(folders));
        }
        if let Some(folders) = self.sweep.tombstones(store) {
            syncer.submit(SyncToken::Sweep, Work::Folders(folders));
        }
        if let Some(report) = swept {
            self.note_sweep(&report);
            if report.whole {
                self.timekeeper.times_corrected(&mut self.shared);
            }
        }
        for counted in &counted {
            self.answer_counted(counted, now);
        }
        if let Some(trimmed) = trimmed {
            self.note_trimmed(&trimmed);
            self.wake(&trimmed.order.owner, Lookup::Searched(trimmed.newest), now);
        }
    }

    /// Counts and logs that an owner's oldest files were deleted.
    pub(super) fn note_trimmed(&mut self, trimmed: &Trimmed) {
        if trimmed.files == 0 {
            return;
        }
        self.shared.status.metrics.trimmed();
        log::info!(
            "owner trimmed owner={} files={} bytes={}",
            trimmed.order.owner.escape_ascii(),
            trimmed.files,
            trimmed.freed
        );
    }

    /// Repeats the requests that waited until an owner was counted.
    pub(super) fn answer_counted(&mut self, counted: &Counted, now: Now) {
        self.shared.counted(counted, now);
        let lookup = match counted.error {
            None => Lookup::Counted,
            Some(_) => Lookup::Failed,
        };
        self.wake(&counted.owner, lookup, now);
    }

    /// Counts and logs a sweep.
    fn note_sweep(&mut self, report: &Report) {
        let metrics = &mut self.shared.status.metrics;
        metrics.swept(report.removed, report.bytes, report.took);
        log::info!(
            "sweep done files={} removed={} bytes={} ms={}{}",
            report.files,
            report.removed,
            report.bytes,
            report.took.as_millis(),
            match report.corrected {
                0 => String::new(),
                corrected => format!(" times_corrected={corrected}"),
            }
        );
    }

    /// Repeats all requests that wait for this owner.
    pub(super) fn wake(&mut self, owner: &[u8], lookup: Lookup, now: Now) {
        for waiter in self.shared.admission.waiting.take(owner) {
            match waiter {
                Waiter::Connection(key) => {
                    if let Some(client) = self.connections.table.get_mut(key) {
                        client.wake(lookup, &mut self.shared, now);
                        self.enqueue(key);
                    }
                }
                Waiter::Slot(iq, attempt) => {
                    self.answer_slot_request(iq, attempt.after(lookup), now);
                }
            }
        }
        // Writes the answers to slot requests.
        self.xmpp.has_work = true;
    }
}
