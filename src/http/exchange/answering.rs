//! The answer: its head, its content, and the interim 100.

use std::ops::Range as Span;
use std::time::{Duration, Instant};

use crate::http::exchange::Exchange;
use crate::http::exchange::receiving::skip;
use crate::http::exchange::state::{Asked, Progress, State};
use crate::http::exchange::want::Ended;
use crate::http::head::Version;
use crate::http::response::{Answer, Content, Part};

/// How long such a rest may take.
const DISCARD_TIME: Duration = Duration::from_secs(2);

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl Exchange {
    /// The decision: this answer. The body that may still be unread is skipped when it is small, else it ends the
    /// connection.
    pub fn answer(&mut self, answer: Answer, now: Instant) {
        let mut asked = match self.take_state() {
            State::Deciding { asked, .. }
            | State::Continuing { asked, .. }
            | State::Receiving { asked, .. }
            | State::Publishing { asked } => asked,
            State::Idle { .. } | State::Head { .. } => Asked::broken(false),
            State::Answering { .. }
            | State::Discarding { .. }
            | State::Lingering { .. }
            | State::Closed(_) => {
                return self.close(Ended::Broken);
            }
        };
        let keeps = asked.keep_alive && !answer.close && !self.last && self.can_skip(&mut asked);
        let Answer {
            mut head,
            mut content,
            ..
        } = answer;
        head.extend_from_slice(match (keeps, asked.version) {
            (false, _) => b"Connection: close\r\n\r\n".as_slice(),
            (true, Version::V10) => b"Connection: keep-alive\r\n\r\n",
            (true, Version::V11) => b"\r\n",
        });
        if asked.head_only {
            content = Content::Empty;
        }
        if let Content::Text(text) = content {
            head.extend_from_slice(&text);
            content = Content::Empty;
        }
        self.state = State::Answering {
            asked,
            close: !keeps,
            head,
            sent: 0,
            content,
            progress: Progress::begin(now),
        };
    }

    /// What is to be written now.
    pub fn output(&self) -> &[u8] {
        match &self.state {
            State::Continuing { sent, .. } => &CONTINUE[*sent..],
            State::Answering {
                head,
                sent,
                content,
                ..
            } => {
                if *sent < head.len() {
                    return &head[*sent..];
                }
                match content {
                    Content::Parts(parts) => match parts.front() {
                        Some(Part::Bytes(bytes)) => bytes,
                        _ => &[],
                    },
                    _ => &[],
                }
            }
            _ => &[],
        }
    }

    /// Whether file data follows the present output at once, so that both should share a packet.
    pub fn file_follows(&self) -> bool {
        match &self.state {
            State::Answering { content, .. } => match content {
                Content::File(span) => !span.is_empty(),
                Content::Parts(parts) => parts.len() > 1,
                Content::Empty | Content::Text(_) => false,
            },
            _ => false,
        }
    }

    /// The span of the file that follows the present output, where it ends the answer: both may be written at once.
    pub fn file_behind(&self) -> Option<Span<u64>> {
        match &self.state {
            State::Answering {
                content: Content::File(span),
                ..
            } if !span.is_empty() => Some(span.clone()),
            _ => None,
        }
    }

    /// So many bytes of the output were written.
    pub fn wrote(&mut self, n: usize, now: Instant) {
        match &mut self.state {
            State::Continuing { sent, .. } => {
                *sent += n;
                if *sent < CONTINUE.len() {
                    return;
                }
                if let State::Continuing { asked, size, .. } = self.take_state() {
                    self.receive_from(asked, size, Progress::begin(now));
                }
            }
            State::Answering {
                head,
                sent,
                content,
                progress,
                ..
            } => {
                progress.moved(n as u64, now);
                if *sent < head.len() {
                    *sent += n;
                } else if let Content::Parts(parts) = content {
                    if let Some(Part::Bytes(bytes)) = parts.front_mut() {
                        bytes.drain(..n.min(bytes.len()));
                        if bytes.is_empty() {
                            parts.pop_front();
                        }
                    }
                }
                self.end_answer(now);
            }
            _ => {}
        }
    }

    /// So many bytes of the wanted span of the file were sent.
    pub fn sent_file(&mut self, n: u64, now: Instant) {
        let State::Answering {
            content, progress, ..
        } = &mut self.state
        else {
            return;
        };
        progress.moved(n, now);
        let advance = |span: &mut Span<u64>| {
            span.start = (span.start + n).min(span.end);
            span.is_empty()
        };
        match content {
            Content::File(span) => {
                advance(span);
            }
            Content::Parts(parts) => {
                if let Some(Part::File(span)) = parts.front_mut() {
                    if advance(span) {
                        parts.pop_front();
                    }
                }
            }
            Content::Empty | Content::Text(_) => {}
        }
        self.end_answer(now);
    }

    /// Bytes that were taken for written earlier have left now: the client reads.
    pub fn flushed(&mut self, n: u64, now: Instant) {
        if let State::Answering { progress, .. } = &mut self.state {
            progress.moved(n, now);
        }
    }

    /// The file can give no more of what its head promised: the connection must end, so that the client sees that
    /// the body is short.
    pub fn file_failed(&mut self) {
        self.close(Ended::Broken);
    }

    fn end_answer(&mut self, now: Instant) {
        let State::Answering {
            head,
            sent,
            content,
            ..
        } = &self.state
        else {
            return;
        };
        let done = *sent >= head.len()
            && match content {
                Content::File(span) => span.is_empty(),
                Content::Parts(parts) => parts.is_empty(),
                Content::Empty | Content::Text(_) => true,
            };
        if !done {
            return;
        }
        let State::Answering { asked, close, .. } = self.take_state() else {
            return;
        };
        if close {
            let all_read = asked
                .body
                .as_ref()
                .is_some_and(|body| body.known_rest() == Some(0));
            if all_read && self.input.is_empty() {
                self.close(Ended::Done);
            } else {
                self.linger(now);
            }
            return;
        }
        let Some(mut body) = asked.body else {
            return self.linger(now);
        };
        match skip(&mut body, self.input.rest()) {
            Ok((used, true)) => {
                self.input.consume(used);
                self.next_request(now);
            }
            Ok((_, false)) => {
                self.input.clear();
                self.state = State::Discarding {
                    body,
                    until: now + DISCARD_TIME,
                };
            }
            Err(_) => self.linger(now),
        }
    }
}
