//! The response to a request, and the interim response 100.

use std::ops::Range as Span;
use std::time::{Duration, Instant};

use crate::http::exchange::Exchange;
use crate::http::exchange::state::{ExchangeState, PendingResponse, Progress, RequestSummary};
use crate::http::exchange::want::Ended;
use crate::http::head::Version;
use crate::http::response::Answer;

/// How long the rest of an unwanted body may take to arrive.
const DISCARD_TIME: Duration = Duration::from_secs(2);

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl Exchange {
    /// The decision: send this response. The unread rest of the body is skipped if it is small; otherwise the
    /// connection ends.
    pub fn answer(&mut self, answer: Answer, now: Instant) {
        let mut summary = match self.take_state() {
            ExchangeState::Deciding { summary, .. }
            | ExchangeState::Continuing { summary, .. }
            | ExchangeState::Receiving { summary, .. }
            | ExchangeState::Publishing { summary } => summary,
            ExchangeState::Idle { .. } | ExchangeState::Head { .. } => {
                RequestSummary::malformed(false)
            }
            ExchangeState::Answering { .. }
            | ExchangeState::Discarding { .. }
            | ExchangeState::Lingering { .. }
            | ExchangeState::Closed(_) => {
                return self.close(Ended::Aborted);
            }
        };
        let keep_alive = summary.keep_alive
            && !answer.close
            && !self.is_last
            && self.can_skip_body(&mut summary);
        let Answer {
            mut head, mut body, ..
        } = answer;
        head.extend_from_slice(match (keep_alive, summary.version) {
            (false, _) => b"Connection: close\r\n\r\n".as_slice(),
            (true, Version::V10) => b"Connection: keep-alive\r\n\r\n",
            (true, Version::V11) => b"\r\n",
        });
        if summary.is_head {
            body.clear();
        }
        self.state = ExchangeState::Answering {
            summary,
            close: !keep_alive,
            response: PendingResponse::new(head, body),
            progress: Progress::new(now),
        };
    }

    /// The bytes to write now.
    pub fn output(&self) -> &[u8] {
        match &self.state {
            ExchangeState::Continuing { sent, .. } => &CONTINUE[*sent..],
            ExchangeState::Answering { response, .. } => response.output(),
            _ => &[],
        }
    }

    /// Whether file data follows directly after the output, so that both should share a packet.
    pub fn file_follows(&self) -> bool {
        match &self.state {
            ExchangeState::Answering { response, .. } => response.file_follows(),
            _ => false,
        }
    }

    /// The span of the file that follows the output and ends the response, so that both may be written at once.
    pub fn trailing_file_span(&self) -> Option<Span<u64>> {
        match &self.state {
            ExchangeState::Answering { response, .. } => response.last_file_span().cloned(),
            _ => None,
        }
    }

    /// Bytes of the output were written.
    pub fn wrote(&mut self, n: usize, now: Instant) {
        match &mut self.state {
            ExchangeState::Continuing { sent, .. } => {
                *sent += n;
                if *sent < CONTINUE.len() {
                    return;
                }
                if let ExchangeState::Continuing { summary, size, .. } = self.take_state() {
                    self.start_receiving(summary, size, Progress::new(now));
                }
            }
            ExchangeState::Answering {
                response, progress, ..
            } => {
                progress.moved(n as u64, now);
                response.wrote(n);
                self.end_response(now);
            }
            _ => {}
        }
    }

    /// Bytes of the wanted span of the file were sent.
    pub fn sent_file(&mut self, n: u64, now: Instant) {
        if let ExchangeState::Answering {
            response, progress, ..
        } = &mut self.state
        {
            progress.moved(n, now);
            response.sent_file(n);
            self.end_response(now);
        }
    }

    /// Bytes that were buffered when they were reported as written have now left: the client is reading.
    pub fn flushed(&mut self, n: u64, now: Instant) {
        if let ExchangeState::Answering { progress, .. } = &mut self.state {
            progress.moved(n, now);
        }
    }

    /// The file is shorter than the response head announced. The connection must end, so that the client sees that the
    /// body is incomplete.
    pub fn file_failed(&mut self) {
        self.close(Ended::Aborted);
    }

    /// Continues with the next request, or the end of the connection, if the response has been sent.
    fn end_response(&mut self, now: Instant) {
        match &self.state {
            ExchangeState::Answering { response, .. } if response.is_sent() => {}
            _ => return,
        }
        let ExchangeState::Answering { summary, close, .. } = self.take_state() else {
            return;
        };
        if close {
            let body = summary.body.as_ref();
            let is_read = body.is_some_and(|body| body.remaining() == Some(0));
            if is_read && self.input.is_empty() {
                self.close(Ended::Done);
            } else {
                self.linger(now);
            }
            return;
        }
        let Some(mut body) = summary.body else {
            return self.linger(now);
        };
        match body.skip(self.input.rest()) {
            Ok((used, true)) => {
                self.input.consume(used);
                self.next_request(now);
            }
            Ok((_, false)) => {
                self.input.clear();
                self.state = ExchangeState::Discarding {
                    body,
                    deadline: now + DISCARD_TIME,
                };
            }
            Err(_) => self.linger(now),
        }
    }
}
