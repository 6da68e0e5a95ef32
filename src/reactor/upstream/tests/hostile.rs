//! Stores that break, lie, or say nothing: their requests fail, and nothing else happens.

use super::*;

#[test]
fn a_connection_that_breaks_anywhere_fails_its_request() {
    let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 X\r\nContent-Length: 3\r\n\r\nabc";
    for resets in [false, true] {
        let scripts = (0..text.len()).map(|length| {
            script(move |mut stream| {
                // Input that is left unread turns the end into a reset.
                match resets {
                    true => drop(read_exactly(&mut stream, 1)),
                    false => drop(read_head(&mut stream)),
                }
                say(&mut stream, &text[..length]);
            })
        });
        let (port, server) = serve(scripts.collect());
        let mut harness = Harness::to(port);
        for length in 0..text.len() {
            harness.submit(once("/"));
            let failure = harness.result().unwrap_err();
            assert_eq!(
                failure.kind,
                FailureKind::Unreachable,
                "{length} {failure:?}"
            );
            assert!(!failure.message.is_empty());
            assert_eq!(harness.upstream.open_connections(), 0);
        }
        server.join().unwrap();
    }
}

#[test]
fn a_stream_that_breaks_anywhere_fails() {
    let text = "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\n\r\n";
    let scripts = (0..text.len()).map(|length| {
        script(move |mut stream| {
            read_head(&mut stream);
            say(&mut stream, &text[..length]);
        })
    });
    let (port, server) = serve(scripts.collect());
    let mut harness = Harness::to(port);
    for length in 0..text.len() {
        let id = harness.begin(get("/"));
        let read = harness.head(id).and_then(|_| harness.read(id, 100));
        assert!(read.is_err(), "{length} {read:?}");
        assert!(harness.upstream.read_body(id, &mut [0; 9]).is_err());
        harness.upstream.end_stream(id);
        assert_eq!(harness.upstream.open_connections(), 0);
        assert_eq!(harness.upstream.open_requests(), 0);
    }
    server.join().unwrap();
}

#[test]
fn malformed_responses_are_failures() {
    let ok = "HTTP/1.1 200 X\r\n";
    let texts: Vec<String> = vec![
        "SSH-2.0-x\r\n\r\n".into(),
        "\u{0}\u{1}\u{2}\n".into(),
        format!("{ok}Content-Length: 1\r\nContent-Length: 1\r\n\r\na"),
        format!("{ok}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na"),
        format!("{ok}Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
        format!("{ok}Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n"),
        format!("{ok}A: {}\r\n\r\n", "x".repeat(20_000)),
        format!("{ok}{}\r\n", "A: b\r\n".repeat(101)),
        "HTTP/1.1 102 X\r\n\r\n".repeat(100),
        "HTTP/1.1 101 X\r\n\r\n".into(),
        response(200, &"x".repeat(MAX_BODY + 1)),
        format!("{ok}\r\n{}", "x".repeat(MAX_BODY + 1)),
    ];
    let scripts = texts.clone().into_iter().map(|text| {
        script(move |mut stream| {
            read_head(&mut stream);
            // The driver may close the connection before the end.
            let _ = stream.write_all(text.as_bytes());
            wait_for_end(&mut stream);
        })
    });
    let (port, server) = serve(scripts.collect());
    let mut harness = Harness::to(port);
    for text in &texts {
        harness.submit(once("/"));
        let failure = harness.result().unwrap_err();
        let start: String = text.chars().take(100).collect();
        assert_eq!(
            failure.kind,
            FailureKind::Malformed,
            "{start:?} {failure:?}"
        );
        assert_eq!(harness.upstream.open_connections(), 0);
    }
    server.join().unwrap();
}

#[test]
fn a_silent_store_fails_streams() {
    for body in [0, 4] {
        let (port, server) = serve(vec![script(move |mut stream| {
            wait_for_end(&mut stream);
        })]);
        let mut harness = Harness::to(port);
        let id = match body {
            0 => harness.begin(get("/")),
            length => harness.begin(put(length)),
        };
        let (seconds, head) = harness.later(|upstream| {
            if body > 0 {
                let _ = upstream.send_body(id, b"body");
            }
            upstream.head(id).map(|head| head.cloned())
        });
        assert!((30..=32).contains(&seconds), "{seconds}");
        assert_eq!(head.unwrap_err().message, "the store did not answer");
        harness.upstream.end_stream(id);
        assert_eq!(harness.upstream.deadline(), None);
        server.join().unwrap();
    }
}

/// A client waits for one time limit, not for that of a kept connection and that of a new one.
#[test]
fn a_silent_store_is_not_asked_again() {
    let (port, server) = serve(vec![script(move |mut stream| {
        read_head(&mut stream);
        say(&mut stream, response(200, "first"));
        read_head(&mut stream);
        wait_for_end(&mut stream);
    })]);
    let mut harness = Harness::to(port);
    harness.submit(get("/"));
    assert_eq!(harness.result().unwrap().body, b"first");
    let id = harness.begin(get("/"));
    let (seconds, failed) = harness.later(|upstream| upstream.head(id).map(|head| head.is_err()));
    assert!((30..=32).contains(&seconds) && failed, "{seconds}");
    assert_eq!(harness.upstream.counts().connections, 1);
    server.join().unwrap();
}

#[test]
fn an_answer_without_a_request_to_its_end() {
    // A small request that the store answers while it is still being sent.
    let (port, server) = serve(vec![script(|mut stream| {
        read_exactly(&mut stream, 10);
        say(&mut stream, response(400, "early"));
        wait_for_end(&mut stream);
    })]);
    let mut harness = Harness::to(port);
    let mut request = once("/");
    request.bytes.resize(50_000_000, 0);
    harness.submit(request);
    let answer = harness.result();
    // The store reads on, so that all of it may have been sent.
    assert_eq!(answer.unwrap().body, b"early");
    drop(harness);
    server.join().unwrap();
}

#[test]
fn a_flood_costs_a_bounded_share_of_a_turn() {
    let (port, server) = serve(vec![script(|mut stream| {
        read_head(&mut stream);
        say(
            &mut stream,
            "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        // Never any data, only extensions.
        while stream.write_all(b"1;a=b\r\nx\r\n").is_ok() {}
    })]);
    let mut harness = Harness::to(port);
    harness.submit(once("/"));
    let failure = harness.result().unwrap_err();
    assert_eq!(failure.kind, FailureKind::Malformed);
    server.join().unwrap();
}
