//! Acting on a request head: which request it is, and refusals.

use crate::http::exchange::RequestError;
use crate::now::Now;
#[cfg(feature = "s3")]
use crate::reactor::client::Activity;
use crate::reactor::client::{Acceptance, Client, Endpoint, StepResult, TransportPhase, get};
use crate::reactor::shared::Shared;
use crate::reactor::waiting::Attempt;
use crate::service::{Decision, PutRefusal};

impl Client {
    /// Acts on the request head.
    pub(super) fn decide(&mut self, shared: &mut Shared, now: Now) -> StepResult {
        // The request is decided on; it waits for the store.
        #[cfg(feature = "s3")]
        match &self.activity {
            Activity::ObjectGet(get) if get.is_opening() => {
                return self.continue_opening(shared, now);
            }
            Activity::ObjectPut(put) if !put.is_accepted() => {
                return self.open_object(shared, now);
            }
            _ => {}
        }
        if self.activity.awaits_store() {
            return StepResult::Blocked;
        }
        if let TransportPhase::Handshake(_) = self.phase {
            self.phase = TransportPhase::Open;
        }
        match self.exchange.request() {
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                if matches!(error, RequestError::Head(_) | RequestError::HeadTimeout) {
                    self.address.forget_forwarded();
                }
                let refusal = PutRefusal::RequestError(error.clone());
                self.refuse(&refusal, shared, now);
                return StepResult::Moved;
            }
            None => return StepResult::Moved,
        }
        // A pipelined request follows the previous one without a read.
        self.end_activity(shared);
        match self.endpoint {
            Endpoint::LocalApi => self.decide_api(shared, now),
            Endpoint::Public => self.decide_public(shared, now),
        }
    }

    /// Acts on a request to the public listener.
    fn decide_public(&mut self, shared: &mut Shared, now: Now) -> StepResult {
        let Some(Ok(request)) = self.exchange.request() else {
            return StepResult::Moved;
        };
        self.address.begin_request(request, shared);
        if self.acceptance == Acceptance::Rejected || !self.address.count_forwarded(shared) {
            self.refuse(&PutRefusal::Busy, shared, now);
            return StepResult::Moved;
        }
        log::debug!(
            "request conn={} from={} method={} path={}",
            self.key,
            self.address,
            request.method_str().escape_debug(),
            request.path().escape_ascii()
        );
        if let Some((file, answer)) = get::from_cache(request, shared, now) {
            self.begin_download(file, answer, now);
            return StepResult::Moved;
        }
        match shared.service.decide(request, now) {
            #[cfg(feature = "s3")]
            Decision::Download(download) if shared.storage.is_bucket() => {
                self.get_object(download, shared, now);
            }
            #[cfg(feature = "s3")]
            Decision::Delete(path) if shared.storage.is_bucket() => {
                self.delete_object(path, shared, now);
            }
            Decision::Answer(answer) => {
                if answer.status >= 400 {
                    self.log_refused(answer.status);
                }
                self.exchange.answer(answer, now.mono);
            }
            Decision::Refuse(refusal) => self.refuse(&refusal, shared, now),
            Decision::Download(download) => match get::open(download, request, shared, now) {
                get::OpenOutcome::File(file, answer) => self.begin_download(file, answer, now),
                get::OpenOutcome::Replaced => {}
                get::OpenOutcome::NotFound => {
                    self.log_refused(404);
                    self.exchange.answer(shared.service.not_found(), now.mono);
                }
                get::OpenOutcome::Refused(refusal) => self.refuse(&refusal, shared, now),
            },
            Decision::Delete(path) => self.delete(path, shared, now),
            Decision::Upload(grant) => {
                let content_type = shared.service.content_type(&grant, request);
                let upload = super::WaitingForUsage {
                    grant,
                    content_type,
                    attempt: Attempt::default(),
                };
                return self.begin_upload(upload, shared, now);
            }
        }
        StepResult::Moved
    }

    pub(super) fn log_refused(&self, status: u16) {
        log::debug!("request refused status={status} from={}", self.address);
    }

    /// Answers with a refusal, counts and logs it. Discards the upload under way, if there is one.
    pub(super) fn refuse(&mut self, refusal: &PutRefusal, shared: &mut Shared, now: Now) {
        let was_uploading = self.activity.upload_path().is_some();
        self.end_activity(shared);
        let is_put = was_uploading
            || matches!(self.exchange.request(), Some(Ok(request)) if request.method_str() == "PUT");
        let (reason, status) = (refusal.reason(), refusal.status());
        let from = self.address.to_string();
        let limiter = &mut shared.log_limits.refused_requests;
        if let Some(suppressed) = limiter.allows(&from, now.mono) {
            let subject = if is_put { "upload" } else { "request" };
            let why = refusal.to_string();
            log::info!("{subject} refused status={status} why={why:?} from={from}{suppressed}");
        }
        let metrics = &mut shared.status.metrics;
        match is_put {
            true => metrics.upload_refused(reason, status),
            false => metrics.request_refused(reason, status),
        }
        let mut answer = match self.endpoint {
            Endpoint::Public => shared.service.refuse(refusal),
            Endpoint::LocalApi => shared.service.refuse_locally(refusal),
        };
        let is_broken = matches!(refusal, PutRefusal::RequestError(_) | PutRefusal::Busy);
        if is_broken || was_uploading && !matches!(refusal, PutRefusal::Used) {
            answer = answer.closing();
        }
        self.exchange.answer(answer, now.mono);
    }
}
