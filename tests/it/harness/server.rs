//! The XMPP server's side of the component link (XEP-0114), played by the test itself, one step at a time.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::xml::{self, Element, Found};
use super::{PATIENCE, Slot};

pub const COMPONENT: &str = "upload.localhost";
pub const SECRET: &str = "not-to-be-logged";

/// The stream id of every link; its value has to be decoded before it is hashed.
const STREAM_ID: &str = "3BF9&6D32";

pub const UPLOAD_0: &str = "urn:xmpp:http:upload:0";
pub const UPLOAD: &str = "urn:xmpp:http:upload";
pub const UPLOAD_LEGACY: &str = "eu:siacs:conversations:http:upload";
pub const STANZAS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";

/// A port on which a component may connect.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
}

impl Server {
    pub fn new() -> Server {
        Server::at("127.0.0.1:0".parse().unwrap())
    }

    pub fn at(address: SocketAddr) -> Server {
        let listener = TcpListener::bind(address).unwrap();
        Server { listener }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next connection; nothing is read or written yet.
    #[track_caller]
    pub fn accept(&self) -> Link {
        self.accept_within(PATIENCE)
            .expect("the component did not connect")
    }

    /// The next connection, if one comes in time.
    pub fn accept_within(&self, patience: Duration) -> Option<Link> {
        // accept(2) minds the receive timeout of the listening socket.
        set_socket_timeout(&self.listener, Timeout::Recv, Some(patience)).unwrap();
        match self.listener.accept() {
            Ok((stream, _)) => Some(Link::over(stream)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                None
            }
            Err(error) => panic!("accept: {error}"),
        }
    }

    /// The next connection, with the handshake done.
    #[track_caller]
    pub fn accept_link(&self) -> Link {
        let mut link = self.accept();
        link.open();
        link.check_handshake(SECRET);
        link.send("<handshake/>");
        link
    }
}

/// One connection of the component.
#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    unread: Vec<u8>,
    /// Bytes of `unread` that were consumed.
    taken: usize,
    requests: u32,
}

impl Link {
    fn over(stream: TcpStream) -> Link {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Link {
            stream,
            unread: Vec::new(),
            taken: 0,
            requests: 0,
        }
    }

    /// Reads the component's stream header and answers with the server's.
    #[track_caller]
    pub fn open(&mut self) {
        self.read_header();
        let id = xml::escape(STREAM_ID);
        self.send(&format!(
            "<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' \
             xmlns='jabber:component:accept' from='{COMPONENT}' id='{id}'>"
        ));
    }

    #[track_caller]
    pub fn read_header(&mut self) {
        loop {
            if let Found::Whole(header, used) = xml::opening(&self.unread[self.taken..]) {
                self.taken += used;
                assert_eq!(header.name, "stream:stream");
                assert_eq!(header.space, "http://etherx.jabber.org/streams");
                assert_eq!(header.attribute("xmlns"), Some("jabber:component:accept"));
                assert_eq!(header.attribute("to"), Some(COMPONENT));
                return;
            }
            assert!(self.fill(), "the component closed before its stream header");
        }
    }

    /// Reads the handshake and checks it against `secret`.
    #[track_caller]
    pub fn check_handshake(&mut self, secret: &str) {
        let handshake = self.stanza();
        assert_eq!(handshake.name, "handshake");
        let proof = sha1_smol::Sha1::from(format!("{STREAM_ID}{secret}"))
            .digest()
            .to_string();
        assert_eq!(handshake.text, proof);
    }

    #[track_caller]
    pub fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes());
    }

    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends as much as the component accepts; it may close at any byte.
    pub fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// A second handle for a thread that writes while this one reads.
    pub fn writer(&self) -> TcpStream {
        self.stream.try_clone().unwrap()
    }

    /// The next stanza.
    #[track_caller]
    pub fn stanza(&mut self) -> Element {
        self.next_stanza().expect("the component ended the stream")
    }

    /// The next stanza; `None` when the stream or the connection ends.
    #[track_caller]
    pub fn next_stanza(&mut self) -> Option<Element> {
        loop {
            match xml::next(&self.unread[self.taken..]) {
                Found::Whole(element, used) => {
                    self.taken += used;
                    return Some(element);
                }
                Found::Close(used) => {
                    self.taken += used;
                    return None;
                }
                Found::Incomplete => {
                    if !self.fill() {
                        return None;
                    }
                }
            }
        }
    }

    /// Whether the component closed its stream with its closing tag; reads to the end of the connection.
    pub fn closed_in_order(&mut self) -> bool {
        loop {
            match xml::next(&self.unread[self.taken..]) {
                Found::Whole(_, used) => self.taken += used,
                Found::Close(_) => return true,
                Found::Incomplete => {
                    if !self.fill() {
                        return false;
                    }
                }
            }
        }
    }

    /// Waits until the component has closed, discarding what it sends.
    #[track_caller]
    pub fn wait_closed(&mut self) {
        while self.fill() {
            self.taken = self.unread.len();
        }
    }

    pub fn set_patience(&mut self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
    }

    /// Closes both directions.
    pub fn close(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    #[track_caller]
    fn fill(&mut self) -> bool {
        if self.taken > 64 * 1024 {
            self.unread.drain(..self.taken);
            self.taken = 0;
        }
        let mut chunk = [0; 16 * 1024];
        // signal(7): the kernel does not restart a read with a timeout.
        let read = loop {
            match self.stream.read(&mut chunk) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        match read {
            Ok(0) => false,
            Ok(length) => {
                self.unread.extend_from_slice(&chunk[..length]);
                true
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                ) =>
            {
                false
            }
            Err(error) => panic!("no data from the component: {error}"),
        }
    }

    /// Sends a request and returns its answer, which must be the next stanza.
    #[track_caller]
    pub fn iq(&mut self, kind: &str, from: &str, payload: &str) -> Element {
        self.requests += 1;
        let id = format!("it{}", self.requests);
        self.send(&format!(
            "<iq type='{kind}' id='{id}' from='{from}' to='{COMPONENT}'>{payload}</iq>"
        ));
        let answer = self.stanza();
        assert_eq!(answer.name, "iq", "{answer:?}");
        assert_eq!(answer.attribute("id"), Some(id.as_str()), "{answer:?}");
        assert_eq!(answer.attribute("to"), Some(from), "{answer:?}");
        assert_eq!(answer.attribute("from"), Some(COMPONENT), "{answer:?}");
        answer
    }

    /// Asks for a slot; the slot, or the whole error stanza.
    #[track_caller]
    pub fn ask(
        &mut self,
        owner: &str,
        name: &str,
        size: u64,
        kind: Option<&str>,
        inside: &str,
    ) -> Result<Slot, Element> {
        let kind = kind.map_or(String::new(), |kind| {
            format!(" content-type='{}'", xml::escape(kind))
        });
        let answer = self.iq(
            "get",
            owner,
            &format!(
                "<request xmlns='{UPLOAD_0}' filename='{}' size='{size}'{kind}>{inside}</request>",
                xml::escape(name)
            ),
        );
        match answer.attribute("type") {
            Some("result") => Ok(Slot::of(answer.expect("slot", UPLOAD_0))),
            Some("error") => Err(answer),
            other => panic!("an answer of type {other:?}"),
        }
    }
}

/// Type, condition and text of an error stanza.
#[track_caller]
pub fn error_of(answer: &Element) -> (String, String, String) {
    assert_eq!(answer.attribute("type"), Some("error"), "{answer:?}");
    let error = answer.child("error").expect("no error element");
    let condition = error
        .children
        .iter()
        .find(|child| child.space == STANZAS && child.name != "text");
    let condition = condition.unwrap_or_else(|| panic!("no condition in {answer:?}"));
    let text = error
        .children
        .iter()
        .find(|child| child.space == STANZAS && child.name == "text");
    (
        error.attribute("type").unwrap_or_default().to_owned(),
        condition.name.clone(),
        text.map(|text| text.text.clone()).unwrap_or_default(),
    )
}
