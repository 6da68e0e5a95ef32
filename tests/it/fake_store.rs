//! The object store of the other tests is strict: it accepts the signatures of other libraries and nothing else, and it
//! fails requests as it is told.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::harness::dir::TempDir;
use crate::harness::s3::answer::KeyEncoding;
use crate::harness::s3::fault::{Fault, Gate, Stage};
use crate::harness::s3::signature::{self, Access, Head, encoded, presign};
use crate::harness::s3::{Connections, Options, S3};
use crate::harness::{PATIENCE, eventually, tls, unix_now};

/// A response, or as much of it as came.
#[derive(Debug, Default)]
struct Response {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    /// Whether the connection ended before it was whole.
    cut: bool,
}

impl Response {
    fn field(&self, name: &str) -> &str {
        let mut fields = self.fields.iter();
        let field = fields.find(|(other, _)| other.eq_ignore_ascii_case(name));
        &field.unwrap_or_else(|| panic!("no {name} in {self:?}")).1
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The content of the first element of this name.
    fn element(&self, name: &str) -> &str {
        self.elements(name).first().copied().unwrap_or_default()
    }

    fn elements(&self, name: &str) -> Vec<&str> {
        let tag = format!("<{name}>");
        let parts = self.text().split(tag.as_str()).skip(1);
        parts.map(|part| part.split("</").next().unwrap()).collect()
    }

    /// The status, and the code of an error.
    fn verdict(&self) -> (u16, &str) {
        (self.status, self.element("Code"))
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A client with one connection.
struct Caller<'a> {
    store: &'a S3,
    stream: Box<dyn Stream>,
    unread: Vec<u8>,
}

type Pairs<'a> = &'a [(&'a str, &'a str)];

impl<'a> Caller<'a> {
    fn new(store: &'a S3) -> Caller<'a> {
        Caller::over(store, Box::new(connected(store)))
    }

    fn over(store: &'a S3, stream: Box<dyn Stream>) -> Caller<'a> {
        let unread = Vec::new();
        Caller {
            store,
            stream,
            unread,
        }
    }

    /// The head of a signed request. Its fields are signed.
    fn head(&self, method: &str, path: &str, query: Pairs<'_>, fields: Pairs<'_>) -> Head {
        let owned = |pairs: Pairs<'_>| -> Vec<(String, String)> {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let mut head = Head::new(method, path);
        head.query = owned(query);
        head.fields = owned(fields);
        head.fields
            .push(("host".to_owned(), self.store.address().to_string()));
        head
    }

    fn send(
        &mut self,
        method: &str,
        target: &str,
        fields: Pairs<'_>,
        body: &[u8],
    ) -> io::Result<()> {
        let mut head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\n",
            self.store.address()
        );
        for (name, value) in fields {
            head += &format!("{name}: {value}\r\n");
        }
        let bytes = [head.as_bytes(), b"\r\n", body].concat();
        self.stream.write_all(&bytes)?;
        self.stream.flush()
    }

    fn response(&mut self, method: &str) -> Response {
        let mut response = Response::default();
        let Some(head) = self.until(|unread| {
            let end = unread.windows(4).position(|window| window == b"\r\n\r\n");
            end.map(|end| end + 4)
        }) else {
            response.cut = true;
            return response;
        };
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut parsed = httparse::Response::new(&mut fields);
        assert!(parsed.parse(&head).unwrap().is_complete());
        response.status = parsed.code.unwrap();
        for field in parsed.headers.iter() {
            let value = String::from_utf8(field.value.to_vec()).unwrap();
            response.fields.push((field.name.to_owned(), value));
        }
        if method == "HEAD" || matches!(response.status, 100 | 204) {
            return response;
        }
        if response
            .fields
            .iter()
            .any(|(name, _)| name == "Transfer-Encoding")
        {
            loop {
                let line = self.until(|unread| {
                    let end = unread.windows(2).position(|window| window == b"\r\n");
                    end.map(|end| end + 2)
                });
                let line = String::from_utf8(line.unwrap()).unwrap();
                let length = usize::from_str_radix(line.trim(), 16).unwrap();
                let chunk = self.exactly(length + 2).unwrap();
                response.body.extend_from_slice(&chunk[..length]);
                if length == 0 {
                    return response;
                }
            }
        }
        let length = response.field("Content-Length").parse().unwrap();
        match self.exactly(length) {
            Some(body) => response.body = body,
            None => (response.body, response.cut) = (std::mem::take(&mut self.unread), true),
        }
        response
    }

    fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        self.until(|unread| (unread.len() >= length).then_some(length))
    }

    /// Reads until so much is there as the function says; `None` if the connection ends before.
    fn until(&mut self, end: impl Fn(&[u8]) -> Option<usize>) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = end(&self.unread) {
                return Some(self.unread.drain(..end).collect());
            }
            let mut chunk = vec![0; 64 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(length) if length > 0 => self.unread.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("no answer"),
                _ => return None,
            }
        }
    }

    /// A signed request and its response.
    fn ask(
        &mut self,
        method: &str,
        path: &str,
        query: Pairs<'_>,
        fields: Pairs<'_>,
        body: &[u8],
    ) -> Response {
        let length = body.len().to_string();
        let mut fields = fields.to_vec();
        if method == "PUT" {
            fields.push(("content-length", &length));
        }
        let mut head = self.head(method, path, query, &fields);
        let target = presign(&mut head, self.store.access(), unix_now(), 60);
        // The store may refuse, or reset, before it has read everything.
        let _ = self.send(method, &target, &fields, body);
        self.response(method)
    }

    fn put(&mut self, key: &str, body: &[u8]) -> Response {
        self.ask("PUT", &format!("/uploads/{key}"), &[], &[], body)
    }

    fn get(&mut self, key: &str) -> Response {
        self.ask("GET", &format!("/uploads/{key}"), &[], &[], b"")
    }

    fn list(&mut self, query: Pairs<'_>) -> Response {
        let query = [&[("list-type", "2"), ("encoding-type", "url")], query].concat();
        self.ask("GET", "/uploads", &query, &[], b"")
    }
}

fn connected(store: &S3) -> TcpStream {
    let stream = TcpStream::connect(store.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A signed request of another program: the time of its signature, and the key pair.
fn foreign() -> Vec<(Head, u64, Access)> {
    let access = |access_key: &str, secret_key: &str, region: &str| Access {
        access_key: access_key.to_owned(),
        secret_key: secret_key.to_owned(),
        region: region.to_owned(),
    };
    let request = |method: &str, target: &str, fields: Pairs<'_>| {
        let mut head = Head::new(method, target);
        let fields = fields.iter();
        head.fields = fields
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        head
    };
    let published = request(
        "GET",
        "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2F\
         aws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=\
         aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
        &[("host", "examplebucket.s3.amazonaws.com")],
    );
    let example = access(
        "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "us-east-1",
    );
    let mut requests = vec![(published, 1_369_353_600, example)];

    // botocore 1.44, 2026-03-01T23:59:58Z.
    let botocore = |method: &str,
                    start: &str,
                    expires: u32,
                    signed: &str,
                    signature: &str,
                    fields: Pairs<'_>| {
        let target = format!(
            "{start}X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=GK31c2f218a2e44f485b94239e%2F20260301%2Feu-central-1\
             %2Fs3%2Faws4_request&X-Amz-Date=20260301T235958Z&X-Amz-Expires={expires}&X-Amz-SignedHeaders={signed}\
             &X-Amz-Signature={signature}"
        );
        let keys = access(
            "GK31c2f218a2e44f485b94239e",
            "b892c0665f0ada8a4755dae98baa3b13/3e11+dbc=",
            "eu-central-1",
        );
        (request(method, &target, fields), 1_772_409_598, keys)
    };
    requests.push(botocore(
        "PUT",
        "/uploads/a%20b/%28%C3%BC%29%2B~%27%21%2A%3D%26.txt?",
        360,
        "content-length%3Bcontent-type%3Bhost",
        "c088ceb9686d91fa436ae60e0128e297f17981de16868ce6d4b0a885c887bbd1",
        &[
            ("host", "store.example:3900"),
            ("content-length", "12"),
            ("content-type", "text/plain;  charset=utf-8"),
        ],
    ));
    let host = &[("host", "store.example:3900")];
    requests.push(botocore(
        "GET",
        "/uploads/a/b.txt?response-content-disposition=attachment%3B%20filename%3D%22a%20b.txt%22\
         &response-content-type=text%2Fplain&",
        1800,
        "host",
        "38278c0cd611a08307c63a0d41e7ce6ad8337505a0d505e200ba24bf9319d9b9",
        host,
    ));
    requests.push(botocore(
        "GET",
        "/uploads?list-type=2&prefix=a%2F&continuation-token=%5D%2B%2Fa%252Fb%3D&encoding-type=url&",
        604_800,
        "host",
        "6cc754fbf58d2fc4634fb7ad9dbb8ede22a3b20fe9b2a034230477bf07501b8f",
        host,
    ));
    requests
}

#[test]
fn signatures_of_other_programs_are_accepted() {
    for (head, time, access) in foreign() {
        for now in [time, time + 359] {
            signature::check(&head, &access, now).unwrap();
        }
    }
}

/// Each character of the path, the query and the fields is signed, and each of the key pair counts.
#[test]
fn one_changed_character_is_refused() {
    let changed = |text: &str, at: usize| -> String {
        let change = |(index, c): (usize, char)| match c {
            _ if index != at => c,
            'x' => 'y',
            _ => 'x',
        };
        text.chars().enumerate().map(change).collect()
    };
    for (head, time, access) in foreign() {
        let refused = |what: &str, head: &Head, access: &Access| {
            let result = signature::check(head, access, time);
            assert!(result.is_err(), "{what}: {head:?} {access:?}");
        };
        for at in 0..head.path.len() {
            let path = changed(&head.path, at);
            refused(
                "path",
                &Head {
                    path,
                    ..head.clone()
                },
                &access,
            );
        }
        for pair in 0..head.query.len() {
            let (name, value) = head.query[pair].clone();
            for at in 0..name.len() {
                let mut other = head.clone();
                other.query[pair].0 = changed(&name, at);
                refused("name", &other, &access);
            }
            for at in 0..value.len() {
                let mut other = head.clone();
                other.query[pair].1 = changed(&value, at);
                refused("value", &other, &access);
            }
        }
        for field in 0..head.fields.len() {
            for at in 0..head.fields[field].1.trim().len() {
                let mut other = head.clone();
                other.fields[field].1 = changed(&other.fields[field].1, at);
                // Blanks within a value count as one.
                if other.fields[field].1.matches(' ').count()
                    == head.fields[field].1.matches(' ').count()
                {
                    refused("field", &other, &access);
                }
            }
            let mut other = head.clone();
            other.fields.remove(field);
            refused("no field", &other, &access);
        }
        refused(
            "method",
            &Head {
                method: "HEAD".to_owned(),
                ..head.clone()
            },
            &access,
        );
        let other = Access {
            secret_key: changed(&access.secret_key, 0),
            ..access.clone()
        };
        refused("key", &head, &other);
    }
}

#[test]
fn a_signature_holds_for_one_request_of_its_time() {
    let store = S3::new();
    let mut caller = Caller::new(&store);
    let mut check = |what: &str,
                     offset: i64,
                     lifetime: u64,
                     region: &str,
                     fields: Pairs<'_>,
                     expected: (u16, &str)| {
        let mut access = store.access().clone();
        region.clone_into(&mut access.region);
        let mut head = caller.head("GET", "/uploads/a", &[], &[]);
        let time = unix_now().saturating_add_signed(offset);
        let target = presign(&mut head, &access, time, lifetime);
        caller.send("GET", &target, fields, b"").unwrap();
        assert_eq!(caller.response("GET").verdict(), expected, "{what}");
    };
    let missing = (404, "NoSuchKey");
    let region = "eu-central-1";
    check("in time", -50, 100, region, &[], missing);
    check("expired", -100, 100, region, &[], (403, "AccessDenied"));
    check("soon", 600, 100, region, &[], missing);
    check(
        "future",
        1200,
        100,
        region,
        &[],
        (403, "RequestTimeTooSkewed"),
    );
    let malformed = (400, "AuthorizationQueryParametersError");
    check("a week", 0, 604_800, region, &[], missing);
    check("longer", 0, 604_801, region, &[], malformed);
    check("region", 0, 100, "us-east-1", &[], malformed);
    let unsigned = &[("x-amz-acl", "public-read")];
    check(
        "unsigned field",
        0,
        100,
        region,
        unsigned,
        (403, "AccessDenied"),
    );
    let header = &[("Authorization", "Bearer 1")];
    check(
        "two proofs",
        0,
        100,
        region,
        header,
        (400, "InvalidArgument"),
    );
    store.change(|engine| engine.clock = 1200);
    check(
        "its clock is ahead",
        0,
        100,
        region,
        &[],
        (403, "AccessDenied"),
    );
    store.change(|engine| engine.clock = -1200);
    check(
        "its clock is behind",
        0,
        100,
        region,
        &[],
        (403, "RequestTimeTooSkewed"),
    );

    caller.send("GET", "/uploads/a", &[], b"").unwrap();
    assert_eq!(caller.response("GET").verdict(), (403, "AccessDenied"));
}

/// A PUT whose signed length or type differs stores nothing.
#[test]
fn signed_lengths_and_types_are_enforced() {
    let store = S3::new();
    let check = |fields: Pairs<'_>, body: &[u8], expected: (u16, &str)| {
        let mut caller = Caller::new(&store);
        let signed = [("content-length", "5"), ("content-type", "text/plain")];
        let mut head = caller.head("PUT", "/uploads/a", &[], &signed);
        let target = presign(&mut head, store.access(), unix_now(), 100);
        caller.send("PUT", &target, fields, body).unwrap();
        assert_eq!(caller.response("PUT").verdict(), expected, "{fields:?}");
        assert_eq!(store.keys().is_empty(), expected.0 != 200, "{fields:?}");
    };
    let plain = ("Content-Type", "text/plain");
    let other = (403, "SignatureDoesNotMatch");
    check(&[("Content-Length", "6"), plain], b"hello!", other);
    check(&[("Content-Length", "4"), plain], b"hell", other);
    check(&[plain], b"", other);
    check(
        &[("Content-Length", "5"), ("Content-Type", "text/html")],
        b"hello",
        other,
    );
    check(&[("Content-Length", "5")], b"hello", other);
    let chunked = ("Transfer-Encoding", "chunked");
    let length = (411, "MissingContentLength");
    check(
        &[("Content-Length", "5"), chunked, plain],
        b"0\r\n\r\n",
        length,
    );
    check(&[("Content-Length", "5"), plain], b"hello", (200, ""));
}

#[test]
fn objects_are_stored_and_read() {
    let store = S3::new();
    let mut caller = Caller::new(&store);
    let key = "a%20b/%C3%BC.txt";
    let path = format!("/uploads/{key}");
    assert_eq!(
        caller
            .ask(
                "PUT",
                &path,
                &[],
                &[("content-type", "text/plain")],
                b"0123456789"
            )
            .status,
        200
    );
    assert_eq!(store.keys(), ["a b/ü.txt"]);
    let request = store.requests("PUT").remove(0);
    assert_eq!((request.connection, request.key.as_str()), (1, "a b/ü.txt"));
    assert_eq!(request.head.field("content-type"), Some("text/plain"));
    let stored = store.object("a b/ü.txt").unwrap();
    assert_eq!(
        (&stored.bytes[..], stored.size, stored.content_type.as_str()),
        (&b"0123456789"[..], 10, "text/plain")
    );

    let whole = caller.get(key);
    assert_eq!((whole.status, whole.text()), (200, "0123456789"));
    assert_eq!(whole.field("Content-Type"), "text/plain");
    assert_eq!(
        whole.field("Last-Modified"),
        httpdate::fmt_http_date(
            std::time::UNIX_EPOCH + std::time::Duration::from_secs(stored.modified)
        )
    );
    let shown = &[
        ("response-content-type", "image/png"),
        ("response-content-disposition", "attachment; filename=\"a\""),
        ("response-cache-control", "private, max-age=9"),
    ];
    let head = caller.ask("HEAD", &path, shown, &[], b"");
    assert_eq!((head.status, head.field("Content-Length")), (200, "10"));
    assert_eq!(head.field("Content-Type"), "image/png");
    assert_eq!(
        head.field("Content-Disposition"),
        "attachment; filename=\"a\""
    );
    assert_eq!(head.field("Cache-Control"), "private, max-age=9");

    for (range, status, body, position) in [
        ("bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("bytes=7-", 206, "789", "bytes 7-9/10"),
        ("bytes=8-99", 206, "89", "bytes 8-9/10"),
        ("bytes=-3", 206, "789", "bytes 7-9/10"),
        ("bytes=1-2,4-5", 200, "0123456789", ""),
        ("lines=1-2", 200, "0123456789", ""),
    ] {
        let part = caller.ask("GET", &path, &[], &[("range", range)], b"");
        assert_eq!((part.status, part.text()), (status, body), "{range}");
        assert!(
            position.is_empty() || part.field("Content-Range") == position,
            "{range}"
        );
    }
    let outside = caller.ask("GET", &path, &[], &[("range", "bytes=10-")], b"");
    assert_eq!(outside.verdict(), (416, "InvalidRange"));
    store.change(|engine| engine.ranges = false);
    let whole = caller.ask("GET", &path, &[], &[("range", "bytes=2-4")], b"");
    assert_eq!((whole.status, whole.body.len()), (200, 10));
    store.change(|engine| engine.ranges = true);

    assert_eq!(caller.ask("DELETE", &path, &[], &[], b"").status, 204);
    assert_eq!(caller.ask("DELETE", &path, &[], &[], b"").status, 204);
    assert_eq!(caller.get(key).verdict(), (404, "NoSuchKey"));
    let head = caller.ask("HEAD", &path, &[], &[], b"");
    assert_eq!((head.status, head.body.len()), (404, 0));
    let elsewhere = caller.ask("GET", "/other/a", &[], &[], b"");
    assert_eq!(elsewhere.verdict(), (404, "NoSuchBucket"));
    assert_eq!(
        caller.ask("DELETE", "/uploads", &[], &[], b"").verdict(),
        (501, "NotImplemented")
    );
    assert_eq!(
        caller.put(&"k".repeat(1025), b"").verdict(),
        (400, "KeyTooLongError")
    );

    // Content that is repeated needs no memory.
    store.seed_sized("large", b"0123456789", 1 << 33, 0);
    let part = caller.ask(
        "GET",
        "/uploads/large",
        &[],
        &[("range", "bytes=4294967291-4294967302")],
        b"",
    );
    assert_eq!((part.status, part.text()), (206, "123456789012"));
}

#[test]
fn an_existing_object_is_kept_if_asked_for_and_able_to() {
    let store = S3::new();
    let mut caller = Caller::new(&store);
    let mut once = |body: &[u8]| {
        let fields = [("if-none-match", "*"), ("expect", "100-continue")];
        let first = caller.ask("PUT", "/uploads/a", &[], &fields, body);
        match first.status {
            100 => caller.response("PUT").status,
            status => {
                // The store closes, because it cannot know whether the body will follow.
                assert!(caller.until(|_| None).is_none());
                caller = Caller::new(&store);
                status
            }
        }
    };
    assert_eq!(once(b"first"), 200);
    assert_eq!(once(b"second"), 412);
    assert_eq!(&store.object("a").unwrap().bytes[..], b"first");
    store.change(|engine| engine.conditional = false);
    assert_eq!(once(b"third"), 200);
    assert_eq!(&store.object("a").unwrap().bytes[..], b"third");
    store.change(|engine| engine.sends_continue = false);
    let fields = [("expect", "100-continue")];
    assert_eq!(
        caller.ask("PUT", "/uploads/b", &[], &fields, b"b").status,
        200
    );

    store.change(|engine| engine.capacity = 10);
    assert_eq!(caller.put("c", b"12345").verdict(), (403, "QuotaExceeded"));
}

/// Of two at a time, one is first.
#[test]
fn one_of_two_conditional_uploads_succeeds() {
    let store = S3::new();
    let gate = Gate::new();
    store.fail("PUT", "a", 2, Fault::Hold(Stage::Body(3), gate.clone()));
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let uploads = [b"first", b"other"].map(|body| {
            let store = &store;
            scope.spawn(move || {
                let fields = [("if-none-match", "*")];
                Caller::new(store)
                    .ask("PUT", "/uploads/a", &[], &fields, body)
                    .status
            })
        });
        gate.wait_arrived(2);
        gate.open();
        uploads.map(|upload| upload.join().unwrap()).to_vec()
    });
    let mut sorted = statuses.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [200, 412]);
    let first = if statuses[0] == 200 {
        b"first"
    } else {
        b"other"
    };
    assert_eq!(&store.object("a").unwrap().bytes[..], first);
}

#[test]
fn listings_have_pages() {
    let store = S3::new();
    let mut names: Vec<String> = (0..25)
        .map(|number| format!("p/{number:02} +&ü%.txt"))
        .collect();
    names.push("p/<x>".to_owned());
    for name in names.iter().chain([&"q/other".to_owned()]) {
        store.seed(name, b"12345", 100);
    }
    names.sort();
    let mut caller = Caller::new(&store);
    for (encoding, chunked) in [(KeyEncoding::Form, false), (KeyEncoding::Percent, true)] {
        store.change(|engine| {
            (engine.encoding, engine.chunked) = (encoding, chunked);
            engine.page = 10;
        });
        let (mut found, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let query = [("prefix", "p/"), ("continuation-token", token.as_str())];
            let page = caller.list(if token.is_empty() {
                &query[..1]
            } else {
                &query
            });
            assert_eq!(page.status, 200, "{}", page.text());
            assert_eq!(page.elements("Size"), vec!["5"; page.elements("Key").len()]);
            let modified = page.element("LastModified");
            assert!(
                modified.ends_with(".000Z") && modified.starts_with("20"),
                "{modified}"
            );
            for key in page.elements("Key") {
                assert!(key.is_ascii() && !key.contains(['<', '&', ' ']), "{key}");
                let plain = match encoding {
                    KeyEncoding::Form => key.replace('+', " "),
                    KeyEncoding::Percent => key.to_owned(),
                };
                found.push(signature::decoded(&plain));
            }
            pages += 1;
            page.element("NextContinuationToken").clone_into(&mut token);
            assert_eq!(page.element("IsTruncated"), (!token.is_empty()).to_string());
            if token.is_empty() {
                break;
            }
        }
        assert_eq!((found, pages), (names.clone(), 3));
    }
    let few = caller.list(&[("max-keys", "1"), ("prefix", "q")]);
    assert_eq!(
        (few.elements("Key").len(), few.element("IsTruncated")),
        (1, "false")
    );
    assert_eq!(
        caller.list(&[("continuation-token", "wrong")]).verdict(),
        (400, "InvalidArgument")
    );
    // Without encoding-type, keys are XML.
    let plain = caller.ask(
        "GET",
        "/uploads",
        &[("list-type", "2"), ("prefix", "p/<")],
        &[],
        b"",
    );
    assert_eq!(plain.elements("Key"), ["p/&lt;x&gt;"]);
}

/// A request that fails does so as often as was asked for, and says why.
#[test]
fn requests_fail_on_demand() {
    let store = S3::new();
    let mut caller = Caller::new(&store);
    store.fail("GET", "a", 2, Fault::Error(503, "SlowDown"));
    store.seed("a", b"content", 0);
    let statuses: Vec<u16> = (0..3).map(|_| caller.get("a").status).collect();
    assert_eq!(statuses, [503, 503, 200]);
    store.fail("*", "", 9, Fault::Redirect("eu-west-3"));
    let redirect = caller.get("a");
    assert_eq!(redirect.verdict(), (307, "TemporaryRedirect"));
    assert_eq!(redirect.field("x-amz-bucket-region"), "eu-west-3");
    store.heal();
    store.fail("LIST", "", 1, Fault::Text("<html>proxy"));
    assert_eq!(caller.list(&[]).text(), "<html>proxy");
    store.fail("PUT", "", 1, Fault::LateError(500, "InternalError"));
    assert_eq!(caller.put("b", b"body").verdict(), (500, "InternalError"));
    assert_eq!(store.wait_requests("PUT", 1)[0].received, 4);
    assert_eq!(store.keys(), ["a"]);
    assert_eq!(
        store.connections(),
        Connections {
            accepted: 1,
            open: 1,
            most: 1
        }
    );
}

#[test]
fn responses_are_cut_on_demand() {
    let store = S3::new();
    let check = |fault: Fault, cut: bool, status: u16, body: &[u8]| {
        store.seed("a", b"0123456789", 0);
        store.fail("GET", "", 1, fault.clone());
        let mut caller = Caller::new(&store);
        let response = caller.get("a");
        assert_eq!(
            (response.cut, response.status, &response.body[..]),
            (cut, status, body),
            "{fault:?}"
        );
        assert!(caller.until(|_| None).is_none(), "{fault:?}: still open");
    };
    check(Fault::Raw(b"HTTP/1.1 2"), true, 0, b"");
    check(Fault::CutResponse(0), true, 0, b"");
    check(Fault::CutResponse(20), true, 0, b"");
    check(Fault::CutBody(4), true, 200, b"0123");
    check(Fault::WrongLength(3), true, 200, b"0123456789");
    check(Fault::WrongLength(-3), false, 200, b"0123456");
    check(Fault::CloseAfter, false, 200, b"0123456789");
    store.change(|engine| engine.closes = true);
    let mut caller = Caller::new(&store);
    assert_eq!(caller.get("a").field("Connection"), "close");
    assert!(caller.until(|_| None).is_none());
}

/// What was cut off is not stored; what was not answered may be.
#[test]
fn uploads_are_cut_on_demand() {
    let store = S3::new();
    for (fault, received, stored) in [
        (Fault::CutRequest(0), 0, false),
        (Fault::CutRequest(2), 2, false),
        (Fault::CutRequest(4), 4, false),
        (Fault::CutResponse(0), 4, true),
    ] {
        store.fail("PUT", "", 1, fault.clone());
        assert!(Caller::new(&store).put("a", b"body").cut, "{fault:?}");
        let requests = store.wait_requests("PUT", 1);
        assert_eq!(requests.last().unwrap().received, received, "{fault:?}");
        assert_eq!(store.object("a").is_some(), stored, "{fault:?}");
    }
    // A client that ends early.
    let mut caller = Caller::new(&store);
    let mut head = caller.head("PUT", "/uploads/b", &[], &[("content-length", "9")]);
    let target = presign(&mut head, store.access(), unix_now(), 60);
    caller
        .send("PUT", &target, &[("content-length", "9")], b"12345")
        .unwrap();
    drop(caller);
    let last = store.wait_requests("PUT", 5).pop().unwrap();
    assert_eq!((last.received, last.status), (5, None));
    assert!(store.object("b").is_none());
}

#[test]
fn requests_wait_at_gates() {
    let store = S3::new();
    store.seed("a", b"0123456789", 0);
    for stage in [Stage::Head, Stage::Response, Stage::ResponseBody(3)] {
        let gate = Gate::new();
        store.fail("GET", "", 1, Fault::Hold(stage, gate.clone()));
        let mut caller = Caller::new(&store);
        let mut head = caller.head("GET", "/uploads/a", &[], &[]);
        let target = presign(&mut head, store.access(), unix_now(), 60);
        caller.send("GET", &target, &[], b"").unwrap();
        gate.wait_arrived(1);
        let request = store.requests("GET").pop().unwrap();
        assert_eq!(
            (request.ended, request.status.is_some()),
            (false, stage == Stage::ResponseBody(3))
        );
        if stage == Stage::ResponseBody(3) {
            assert!(
                caller
                    .until(|unread| unread.ends_with(b"\r\n\r\n012").then_some(1))
                    .is_some()
            );
        }
        gate.open();
        assert!(
            caller
                .until(|unread| unread.ends_with(b"3456789").then_some(1))
                .is_some()
        );
    }
    // A request that gets no answer ends with its connection.
    store.fail("GET", "", 1, Fault::Silence);
    let mut caller = Caller::new(&store);
    let mut head = caller.head("GET", "/uploads/a", &[], &[]);
    let target = presign(&mut head, store.access(), unix_now(), 60);
    caller.send("GET", &target, &[], b"").unwrap();
    drop(caller);
    assert_eq!(store.wait_requests("GET", 4)[3].status, None);
}

#[test]
fn the_store_stops_and_starts() {
    let mut store = S3::new();
    store.seed("a", b"content", 0);
    let address = store.address();
    let stream = connected(&store);
    eventually("a connection", || store.connections().open == 1);
    store.stop();
    assert_eq!((&stream).read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(
        TcpStream::connect(address).unwrap_err().kind(),
        io::ErrorKind::ConnectionRefused
    );
    store.start();
    let mut caller = Caller::new(&store);
    assert_eq!(caller.get("a").text(), "content");
    let mut other = Caller::new(&store);
    assert_eq!(other.get("a").text(), "content");
    store.close_idle(2);
    for caller in [&mut caller, &mut other] {
        assert!(caller.until(|_| None).is_none());
    }
    eventually("no open connections", || store.connections().open == 0);
    assert_eq!(
        store.connections(),
        Connections {
            accepted: 3,
            open: 0,
            most: 2
        }
    );

    // What is held in a body when the store stops is not stored.
    store.fail("PUT", "", 1, Fault::Hold(Stage::Body(2), Gate::new()));
    let mut caller = Caller::over(&store, Box::new(connected(&store)));
    let mut head = caller.head("PUT", "/uploads/b", &[], &[("content-length", "4")]);
    let target = presign(&mut head, store.access(), unix_now(), 60);
    caller
        .send("PUT", &target, &[("content-length", "4")], b"body")
        .unwrap();
    eventually("two bytes", || {
        store.requests("PUT").iter().any(|put| put.received == 2)
    });
    store.stop();
    assert_eq!(store.keys(), ["a"]);
}

#[test]
fn it_listens_over_tls_and_ipv6() {
    let dir = TempDir::new();
    let certificate = tls::certify(dir.path());
    let store = S3::with(Options {
        tls: Some(tls::server(dir.path())),
        small_buffers: true,
        ..Options::default()
    });
    let config = Arc::new(tls::trusting(&[&certificate], tls::BOTH));
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let client = ClientConnection::new(config, name).unwrap();
    let mut caller = Caller::over(
        &store,
        Box::new(StreamOwned::new(client, connected(&store))),
    );
    let body = vec![b'x'; 300_000];
    assert_eq!(caller.put("a", &body).status, 200);
    assert_eq!(caller.get("a").body, body);

    let address = "[::1]:0".parse().unwrap();
    if std::net::TcpListener::bind(address).is_err() {
        eprintln!("NOT TESTED: this kernel has no IPv6");
        return;
    }
    let store = S3::with(Options {
        address,
        ..Options::default()
    });
    assert_eq!(Caller::new(&store).put(&encoded("ü", ""), b"x").status, 200);
}
