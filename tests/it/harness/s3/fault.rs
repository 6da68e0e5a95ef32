//! The ways in which a store fails a request.

use std::sync::{Arc, Condvar, Mutex};

use crate::harness::PATIENCE;

/// What happens to a request instead of what it asks for.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status and code, before the body is read.
    Error(u16, &'static str),
    /// The same after the body.
    LateError(u16, &'static str),
    /// The bucket is in this region of AWS.
    Redirect(&'static str),
    /// 200, and this text.
    Text(&'static str),
    /// These bytes instead of a response; then the connection is closed.
    Raw(&'static [u8]),
    /// The request is executed, and these bytes are sent instead of a response; then the connection is closed.
    LateRaw(&'static [u8]),
    /// The connection is reset after so many bytes of the request's body.
    CutRequest(u64),
    /// The request is executed, and the connection is closed after so many bytes of the response.
    CutResponse(usize),
    /// The same, after so many bytes of the response's body.
    CutBody(usize),
    /// The response declares a length that differs by this from what it has; then the connection is closed.
    WrongLength(i64),
    /// No answer; the request is read and the connection stays open.
    Silence,
    /// The request waits at a gate.
    Hold(Stage, Gate),
    /// The connection is closed after the response, and nothing has said so.
    CloseAfter,
}

/// Where a request waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Before anything is done with it.
    Head,
    /// After so many bytes of its body.
    Body(u64),
    /// After it was executed, before the response.
    Response,
    /// After the head of the response and so many bytes of its body.
    ResponseBody(usize),
}

/// Holds requests until a test opens it.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<Passage>, Condvar)>);

#[derive(Debug, Default)]
struct Passage {
    open: bool,
    arrived: usize,
}

impl Gate {
    pub fn new() -> Gate {
        Gate::default()
    }

    pub fn open(&self) {
        self.0.0.lock().unwrap().open = true;
        self.0.1.notify_all();
    }

    /// Waits until so many requests have come to it.
    #[track_caller]
    pub fn wait_arrived(&self, count: usize) {
        let passage = self.0.0.lock().unwrap();
        let waiting = |passage: &mut Passage| passage.arrived < count;
        let waited = self.0.1.wait_timeout_while(passage, PATIENCE, waiting);
        let (passage, timeout) = waited.unwrap();
        let arrived = passage.arrived;
        drop(passage);
        assert!(
            !timeout.timed_out(),
            "{arrived} of {count} requests came to the gate"
        );
    }

    /// Waits until it is open.
    pub(super) fn pass(&self) {
        let mut passage = self.0.0.lock().unwrap();
        passage.arrived += 1;
        self.0.1.notify_all();
        drop(
            self.0
                .1
                .wait_while(passage, |passage| !passage.open)
                .unwrap(),
        );
    }
}

/// Which requests a fault is for.
#[derive(Debug)]
pub(super) struct Rule {
    operation: &'static str,
    key: String,
    /// How many more.
    times: u32,
    fault: Fault,
}

impl Rule {
    pub(super) fn new(operation: &'static str, key: &str, times: u32, fault: Fault) -> Rule {
        Rule {
            operation,
            key: key.to_owned(),
            times,
            fault,
        }
    }

    /// The fault, if it is for this request.
    pub(super) fn take(&mut self, operation: &str, key: &str) -> Option<Fault> {
        let meant = ["*", operation].contains(&self.operation) && key.contains(&self.key);
        if !meant || self.times == 0 {
            return None;
        }
        self.times -= 1;
        Some(self.fault.clone())
    }

    /// Opens its gate.
    pub(super) fn release(&self) {
        if let Fault::Hold(_, gate) = &self.fault {
            gate.open();
        }
    }
}
