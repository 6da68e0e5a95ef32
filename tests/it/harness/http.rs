//! An HTTP client that sends exactly the bytes it is given; [`super::reply`] parses the responses.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size};
use rustix::net::{AddressFamily, SocketType, connect, socket};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::PATIENCE;
use super::reply::Reply;

/// The host name in requests.
pub const HOST: &str = "upload.localhost";

/// Fields of a request: names and values.
pub type Fields<'a> = &'a [(&'a str, &'a str)];

/// The bytes of a request with `Host`, and with `Content-Length` if it has a body.
pub fn request(method: &str, target: &str, fields: Fields<'_>, body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n");
    for (name, value) in fields {
        head += &format!("{name}: {value}\r\n");
    }
    let framed = fields.iter().any(|(name, _)| {
        name.eq_ignore_ascii_case("content-length")
            || name.eq_ignore_ascii_case("transfer-encoding")
    });
    if !framed && (method == "PUT" || !body.is_empty()) {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    let mut bytes = (head + "\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A body in chunks of `size` bytes.
pub fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in body.chunks(size) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Unix(UnixStream),
}

/// One connection to the program.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    unread: Vec<u8>,
    /// Whether an error must say why in one line.
    explained: bool,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        Client::over(TcpStream::connect(address).unwrap())
    }

    /// A client of the local API. Its texts follow django-xmpp-http-upload: some errors have no body, and one has two lines.
    pub fn local(address: SocketAddr) -> Client {
        Client {
            explained: false,
            ..Client::connect(address)
        }
    }

    /// A client with a small receive buffer.
    pub fn with_small_buffer(address: SocketAddr) -> Client {
        let family = if address.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let socket = socket(family, SocketType::STREAM, None).unwrap();
        set_socket_recv_buffer_size(&socket, 4096).unwrap();
        connect(&socket, &address).unwrap();
        Client::over(TcpStream::from(socket))
    }

    pub fn over(stream: TcpStream) -> Client {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client {
            stream: Stream::Plain(stream),
            unread: Vec::new(),
            explained: true,
        }
    }

    /// With the TLS handshake done.
    #[track_caller]
    pub fn tls(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Client {
        Client::try_tls(address, config, name).unwrap()
    }

    pub fn try_tls(
        address: SocketAddr,
        config: &Arc<ClientConfig>,
        name: &str,
    ) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Client {
            stream: Stream::Tls(Box::new(stream)),
            unread: Vec::new(),
            explained: true,
        })
    }

    pub fn unix(path: &Path) -> Client {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client {
            stream: Stream::Unix(stream),
            unread: Vec::new(),
            explained: true,
        }
    }

    /// The TLS state of a TLS client.
    pub fn session(&self) -> &ClientConnection {
        match &self.stream {
            Stream::Tls(stream) => &stream.conn,
            _ => panic!("not TLS"),
        }
    }

    pub fn set_patience(&mut self, patience: Duration) {
        match &self.stream {
            Stream::Plain(stream) => stream.set_read_timeout(Some(patience)).unwrap(),
            Stream::Tls(stream) => stream.sock.set_read_timeout(Some(patience)).unwrap(),
            Stream::Unix(stream) => stream.set_read_timeout(Some(patience)).unwrap(),
        }
    }

    /// A second handle of a plain client, for a thread that writes while this one reads.
    pub fn writer(&self) -> TcpStream {
        match &self.stream {
            Stream::Plain(stream) => stream.try_clone().unwrap(),
            _ => panic!("only a plain client has a second handle"),
        }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Stream::Unix(stream) => stream.write_all(bytes),
        }
    }

    /// Half-closes the connection; over TLS with `close_notify` first.
    pub fn shut_write(&mut self) {
        match &mut self.stream {
            Stream::Plain(stream) => stream.shutdown(Shutdown::Write).unwrap(),
            Stream::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush().unwrap();
                stream.sock.shutdown(Shutdown::Write).unwrap();
            }
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write).unwrap(),
        }
    }

    /// Closes the connection with a reset.
    pub fn reset(self) {
        if let Stream::Plain(stream) = &self.stream {
            set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
        }
    }

    /// Sends a request and reads its response; the method decides whether the response has a body.
    #[track_caller]
    pub fn ask(&mut self, method: &str, target: &str, fields: Fields<'_>, body: &[u8]) -> Reply {
        self.send(&request(method, target, fields, body));
        self.reply_to(method)
    }

    #[track_caller]
    pub fn get(&mut self, target: &str) -> Reply {
        self.ask("GET", target, &[], b"")
    }

    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        self.reply_to("GET")
    }

    #[track_caller]
    pub fn reply_to(&mut self, method: &str) -> Reply {
        self.next_reply(method)
            .expect("the program closed instead of answering")
    }

    /// The next response; `None` if the connection ends or is reset between responses.
    #[track_caller]
    pub fn next_reply(&mut self, method: &str) -> Option<Reply> {
        let head_end = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.unread.len() < 64 * 1024,
                "an answer with no end of its head"
            );
            if !self.fill().expect("waiting for an answer") {
                assert!(
                    self.unread.is_empty(),
                    "the end within a head: {:?}",
                    String::from_utf8_lossy(&self.unread)
                );
                return None;
            }
        };
        let head =
            String::from_utf8(self.unread.drain(..head_end).collect()).expect("a head in ASCII");
        let mut reply = Reply::parse(&head, method);
        let length = reply.body_length;
        while self.unread.len() < length {
            assert!(
                self.fill().expect("waiting for a body"),
                "the end after {} of {length} bytes of a body, head:\n{head}",
                self.unread.len()
            );
        }
        reply.body = self.unread.drain(..length).collect();
        if self.explained {
            reply.check_body(method);
        }
        Some(reply)
    }

    /// The head of the next response; its body is left for [`Client::read`].
    #[track_caller]
    pub fn reply_head(&mut self) -> Reply {
        let head_end = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.fill().expect("waiting for a head"),
                "the end instead of a head"
            );
        };
        let head =
            String::from_utf8(self.unread.drain(..head_end).collect()).expect("a head in ASCII");
        Reply::parse(&head, "GET")
    }

    /// Up to `most` more bytes; empty at the end.
    pub fn read(&mut self, most: usize) -> io::Result<Vec<u8>> {
        if self.unread.is_empty() && !self.fill_up_to(most)? {
            return Ok(Vec::new());
        }
        let length = most.min(self.unread.len());
        Ok(self.unread.drain(..length).collect())
    }

    /// Everything until the end or a reset.
    #[track_caller]
    pub fn drain(&mut self) -> Vec<u8> {
        loop {
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return std::mem::take(&mut self.unread),
                Err(error) => panic!(
                    "no end: {error}; read so far: {:?}",
                    String::from_utf8_lossy(&self.unread)
                ),
            }
        }
    }

    /// Expects the connection to end without further bytes.
    #[track_caller]
    pub fn ends(&mut self) {
        let rest = self.drain();
        assert!(
            rest.is_empty(),
            "more than the end: {:?}",
            String::from_utf8_lossy(&rest)
        );
    }

    fn fill(&mut self) -> io::Result<bool> {
        self.fill_up_to(64 * 1024)
    }

    /// False at the end of the stream; a reset counts as one, a timeout is an error.
    fn fill_up_to(&mut self, most: usize) -> io::Result<bool> {
        let mut chunk = vec![0; most.min(64 * 1024)];
        let mut read = || match &mut self.stream {
            Stream::Plain(stream) => stream.read(&mut chunk),
            Stream::Tls(stream) => stream.read(&mut chunk),
            Stream::Unix(stream) => stream.read(&mut chunk),
        };
        // signal(7): the kernel does not restart a read with a timeout.
        let result = loop {
            match read() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        match result {
            Ok(0) => Ok(false),
            Ok(length) => {
                self.unread.extend_from_slice(&chunk[..length]);
                Ok(true)
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
