//! Slot requests: from a stanza to its reply, and the wait for the store in between.

use crate::layout;
use crate::now::Now;
use crate::reactor::Reactor;
use crate::reactor::component::Incoming;
use crate::reactor::life::plan;
use crate::reactor::shared::{Attempt, Lookup, Shared, TOMBSTONES_KEY, Waiter};
use crate::refusal::Refusal;
use crate::slot::Slot;
use crate::store::walk::Slice;
use crate::syncer::Work;
use crate::xmpp::element::Element;
use crate::xmpp::iq::{self, Answer, Identity};
use crate::xmpp::upload::SlotIq;
use crate::xmpp::xml::Skipped;

/// Stanzas taken from the link in one turn: what they cost stays below what the bytes of other connections do.
const STANZAS: usize = 64;

impl Reactor {
    pub(super) fn drive_link(&mut self, now: Now) {
        if !std::mem::take(&mut self.link_has_work) {
            return;
        }
        let Some(link) = &mut self.link else {
            return;
        };
        link.receive(self.poll.registry(), &mut self.shared.scratch, now);
        for _ in 0..STANZAS {
            match self.link.as_mut().and_then(|link| link.next_stanza(now)) {
                Some(Incoming::Stanza(stanza)) => self.answer_stanza(stanza, now),
                Some(Incoming::Skipped(skipped)) => self.answer_skipped(skipped, now),
                None => break,
            }
        }
        if let Some(link) = &mut self.link {
            self.link_has_work = link.settle(now);
        }
    }

    pub(super) fn flush_link(&mut self, now: Now) {
        if let Some(link) = &mut self.link {
            link.flush(now);
        }
    }

    pub(super) fn answer_stanza(&mut self, stanza: Element, now: Now) {
        let service = &self.shared.service;
        let Some(link) = &self.link else {
            return;
        };
        let identity = Identity {
            jid: link.jid(),
            purposes: service.purposes(),
        };
        let answer = iq::route(stanza, identity, now.unix(), |asker| {
            service.max_file_size(asker)
        });
        match answer {
            Answer::Silence => {}
            Answer::Reply(reply) => self.reply(&reply),
            Answer::Slot(iq) => self.answer_slot_request(iq, Attempt::default(), now),
        }
    }

    /// A stanza that is not read: counted, logged, and answered if it was a request.
    fn answer_skipped(&mut self, skipped: Skipped, now: Now) {
        let shared = &mut self.shared;
        shared.metrics.stanza_skipped(skipped.why.reason());
        let from = skipped.stanza.attribute("from").unwrap_or_default();
        let sender = from.split('/').next().unwrap_or_default();
        if let Some(suppressed) = shared.skipped_stanzas.allows(sender, now.mono) {
            log::info!(
                "stanza skipped kind={:?} from={from:?} why={:?}{suppressed}",
                &*skipped.stanza.name,
                skipped.why.to_string(),
            );
        }
        let Some(link) = &mut self.link else {
            return;
        };
        let identity = Identity {
            jid: link.jid(),
            purposes: shared.service.purposes(),
        };
        if let Some(reply) = iq::reject(skipped, identity) {
            link.send(&reply);
        }
    }

    pub(super) fn reply(&mut self, reply: &Element) {
        if let Some(link) = &mut self.link {
            link.send(reply);
        }
    }

    pub(super) fn answer_slot_request(&mut self, iq: Box<SlotIq>, attempt: Attempt, now: Now) {
        match self.find_slot(&iq, attempt, now) {
            Ok(Some(slot)) => self.reply(&iq.granted(slot)),
            Ok(None) => {
                let owner = layout::owner_folder(&iq.owner);
                let waiter = Waiter::Slot(iq, attempt);
                if let Err(Waiter::Slot(iq, _)) = self.shared.waiting.push(owner.as_bytes(), waiter)
                {
                    self.refuse_slot(*iq, &Refusal::Busy, now);
                }
            }
            Err(refusal) => self.refuse_slot(*iq, &refusal, now),
        }
    }

    /// The slot; `None` while the store is being looked at.
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

    /// One slice of what walks the store: first what somebody waits for.
    pub(super) fn walk_a_slice(&mut self, now: Now) {
        let shared = &mut self.shared;
        shared.usage.retry_total(shared.store.root(), now.mono);
        let busy = shared.usage.is_counting() || !shared.trims.is_empty();
        if !busy && self.sweep.due().is_none_or(|due| due > now.mono) {
            return;
        }
        let window = shared.service.longest_reach();
        let plan = plan(&shared.config, &shared.service);
        let Shared {
            store,
            usage,
            trims,
            ..
        } = shared;
        let mut slice = Slice::begin();
        let counted = usage.go_on(store.root(), &mut slice, window, now);
        let trimmed = trims.go_on(store, usage, &mut slice);
        let swept = self
            .sweep
            .go_on(&plan, store, usage, trims, &mut slice, now);
        if let Some(tombstones) = self.sweep.tombstones(&self.shared.store) {
            let submitted = tombstones.and_then(|tombstones| {
                let work = Work::Folders(tombstones);
                self.shared.syncer.submit(TOMBSTONES_KEY, work)
            });
            if let Err(error) = submitted {
                self.sweep.tombstones_synced(Err(error));
            }
        }
        if let Some(report) = swept {
            self.shared
                .metrics
                .swept(report.removed, report.bytes, report.took);
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
        if swept.is_some_and(|report| report.whole) {
            self.times_corrected(now);
        }
        if let Some(counted) = counted {
            self.shared.counted(&counted, now);
            match counted.error {
                None => self.wake(&counted.owner, Lookup::Counted, now),
                Some(_) => self.wake(&counted.owner, Lookup::Failed, now),
            }
        }
        if let Some(trimmed) = trimmed {
            if trimmed.files > 0 {
                self.shared.metrics.trimmed();
                log::info!(
                    "owner trimmed owner={} files={} bytes={}",
                    trimmed.order.owner.escape_ascii(),
                    trimmed.files,
                    trimmed.freed
                );
            }
            self.wake(&trimmed.order.owner, Lookup::Searched(trimmed.newest), now);
        }
    }

    /// Everybody who waits for this owner asks again.
    pub(super) fn wake(&mut self, owner: &[u8], lookup: Lookup, now: Now) {
        for waiter in self.shared.waiting.take(owner) {
            match waiter {
                Waiter::Put(key) => {
                    if let Some(client) = self.table.get_mut(key) {
                        client.wake(lookup);
                        self.enqueue(key);
                    }
                }
                Waiter::Slot(iq, attempt) => {
                    self.answer_slot_request(iq, attempt.after(lookup), now);
                }
            }
        }
        self.flush_link(now);
    }
}
