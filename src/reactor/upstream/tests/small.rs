//! Small requests: connections are kept, requests repeated, and their number is bounded.

use std::net::SocketAddr;

use rustix::net::{self, AddressFamily, SocketType};

use super::*;

#[test]
fn requests_share_a_kept_connection() {
    let (port, server) = serve(vec![script(|mut stream| {
        assert!(read_head(&mut stream).starts_with("GET /1 "));
        say(&mut stream, response(200, "one"));
        assert!(read_head(&mut stream).starts_with("GET /2 "));
        let chunked = "HTTP/1.1 404 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n";
        for byte in chunked.as_bytes().chunks(5) {
            say(&mut stream, byte);
        }
        assert!(read_head(&mut stream).starts_with("HEAD /3 "));
        say(&mut stream, "HTTP/1.1 200 X\r\nContent-Length: 99\r\n\r\n");
        let head = read_head(&mut stream);
        assert!(head.starts_with("PUT /4 "));
        assert_eq!(read_exactly(&mut stream, 5), b"small");
        say(
            &mut stream,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 X\r\n\r\n",
        );
        wait_for_end(&mut stream);
    })]);
    let mut harness = Harness::to(port);
    harness.submit(get("/1"));
    assert_eq!(harness.result().unwrap().body, b"one");
    harness.submit(get("/2"));
    let second = harness.result().unwrap();
    assert_eq!((second.status, &second.body[..]), (404, &b"two"[..]));
    harness.submit(StoreRequest {
        method: "HEAD",
        bytes: b"HEAD /3 HTTP/1.1\r\n\r\n".to_vec(),
        ..get("")
    });
    let third = harness.result().unwrap();
    assert_eq!(third.field("content-length"), Some("99"));
    harness.submit(StoreRequest {
        method: "PUT",
        bytes: b"PUT /4 HTTP/1.1\r\nContent-Length: 5\r\n\r\nsmall".to_vec(),
        ..get("")
    });
    assert_eq!(harness.result().unwrap().status, 204);
    let counts = harness.upstream.counts();
    assert_eq!((counts.connections, counts.retries), (1, 0));
    assert_eq!(counts.requests[&("GET", "4xx")], 1);
    assert!(counts.bytes_sent > 100 && counts.bytes_received > 100);
    assert_eq!(harness.upstream.open_connections(), 1);
    // An idle connection is closed after a while.
    let (seconds, ()) = harness.later(|upstream| (upstream.open_connections() == 0).then_some(()));
    assert_eq!(seconds, IDLE_TIME.as_secs());
    assert_eq!(harness.upstream.deadline(), None);
    server.join().unwrap();
}

#[test]
fn connections_are_closed_if_the_store_says_so() {
    let answer = |text: &'static str| {
        script(move |mut stream| {
            read_head(&mut stream);
            say(&mut stream, text);
            wait_for_end(&mut stream);
        })
    };
    let (port, server) = serve(vec![
        answer("HTTP/1.1 200 X\r\nConnection: close\r\nContent-Length: 1\r\n\r\na"),
        answer("HTTP/1.0 200 X\r\nContent-Length: 1\r\n\r\na"),
        answer("HTTP/1.1 200 X\r\nContent-Length: 1\r\n\r\nax"),
        answer("HTTP/1.1 204 X\r\n\r\nx"),
        script(|mut stream| {
            read_head(&mut stream);
            say(&mut stream, "HTTP/1.1 200 X\r\n\r\na");
        }),
    ]);
    let mut harness = Harness::to(port);
    for _ in 0..5 {
        harness.submit(get("/"));
        assert_eq!(harness.result().unwrap().status / 100, 2);
        assert_eq!(harness.upstream.open_connections(), 0);
    }
    server.join().unwrap();
}

#[test]
fn idle_connections_are_dropped_if_anything_happens() {
    for unasked in ["", "HTTP/1.1 200 X\r\nContent-Length: 4\r\n\r\nevil"] {
        let (port, server) = serve(vec![
            script(move |mut stream| {
                read_head(&mut stream);
                say(&mut stream, response(200, "first"));
                // The answer was read.
                thread::sleep(Duration::from_millis(100));
                say(&mut stream, unasked);
                if unasked.is_empty() {
                    stream.shutdown(Shutdown::Write).unwrap();
                }
                wait_for_end(&mut stream);
            }),
            script(|mut stream| {
                read_head(&mut stream);
                say(&mut stream, response(200, "second"));
            }),
        ]);
        let mut harness = Harness::to(port);
        harness.submit(get("/"));
        assert_eq!(harness.result().unwrap().body, b"first");
        harness.until(|upstream| (upstream.open_connections() == 0).then_some(()));
        harness.submit(get("/"));
        assert_eq!(harness.result().unwrap().body, b"second");
        server.join().unwrap();
    }
}

#[test]
fn a_kept_connection_that_was_closed_costs_nothing() {
    let first = || {
        script(|mut stream| {
            read_head(&mut stream);
            say(&mut stream, response(200, "first"));
            // The second request is not answered.
            read_head(&mut stream);
        })
    };
    let (port, server) = serve(vec![
        first(),
        script(|mut stream| {
            read_head(&mut stream);
            say(&mut stream, response(200, "second"));
            wait_for_end(&mut stream);
        }),
    ]);
    let mut harness = Harness::to(port);
    harness.submit(get("/"));
    harness.result().unwrap();
    harness.submit(get("/"));
    assert_eq!(harness.result().unwrap().body, b"second");
    assert_eq!(harness.upstream.counts().retries, 1);
    drop(harness);
    server.join().unwrap();
    // A request that may not be repeated is not.
    let (port, server) = serve(vec![first()]);
    let mut harness = Harness::to(port);
    harness.submit(once("/"));
    harness.result().unwrap();
    harness.submit(once("/"));
    let failure = harness.result().unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable);
    server.join().unwrap();
}

/// Lets the two delays of a request pass.
#[track_caller]
fn repeat_twice(harness: &mut Harness) {
    let before = harness.upstream.counts().retries;
    for (number, least, most) in [(1, 100, 300), (2, 500, 1500)] {
        let is_repeated =
            |upstream: &mut Upstream| (upstream.counts().retries == before + number).then_some(());
        harness.until(is_repeated);
        let next = harness.upstream.deadline().unwrap();
        let delay = next.saturating_duration_since(harness.clock.mono);
        assert!(delay <= Duration::from_millis(most), "{delay:?}");
        assert!(delay >= Duration::from_millis(least), "{delay:?}");
        harness.pass(2);
    }
}

#[test]
fn requests_are_repeated_after_a_delay() {
    let answer = |text: String| {
        script(move |mut stream| {
            read_head(&mut stream);
            let text = text.replacen(" X\r\n", " X\r\nConnection: close\r\n", 1);
            say(&mut stream, text);
        })
    };
    let (port, server) = serve(vec![
        answer(response(503, "<Code>SlowDown</Code>")),
        // A connection that breaks.
        answer("HTTP/1.1 200 X\r\nContent-Length: 4\r\n\r\nab".to_owned()),
        answer(response(200, "good")),
        // An answer to each attempt.
        answer(response(503, "1")),
        answer(response(500, "2")),
        answer(response(503, "3")),
    ]);
    let mut harness = Harness::to(port);
    harness.submit(get("/"));
    repeat_twice(&mut harness);
    assert_eq!(harness.result().unwrap().body, b"good");
    assert_eq!(harness.upstream.take_state_change(), None);
    harness.submit(get("/"));
    repeat_twice(&mut harness);
    let last = harness.result().unwrap();
    assert_eq!((last.status, &last.body[..]), (503, &b"3"[..]));
    server.join().unwrap();
    assert_eq!(harness.upstream.open_requests(), 0);
}

#[test]
fn an_unreachable_store_fails_requests_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut harness = Harness::to(address.port());
    let stream = harness.begin(put(1));
    for _ in 0..3 {
        harness.submit(get("/"));
        let failure = harness.result().unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unreachable);
    }
    assert!(harness.head(stream).is_err());
    assert!(harness.upstream.send_body(stream, b"x").is_err());
    let change = harness.upstream.take_state_change();
    assert!(
        matches!(&change, Some(StoreChange::Unreachable(why)) if why.contains("127.0.0.1")),
        "{change:?}"
    );
    assert_eq!(harness.upstream.take_state_change(), None);
    // The next probe finds it.
    harness.pass(1);
    harness.turn(Duration::ZERO);
    let listener = TcpListener::bind(address).unwrap();
    let server = serve_on(
        listener,
        vec![script(|mut stream| {
            read_head(&mut stream);
            say(&mut stream, response(200, "again"));
        })],
    );
    let (seconds, change) = harness.later(Upstream::take_state_change);
    assert_eq!(change, StoreChange::Reachable);
    assert!(seconds <= 5, "{seconds}");
    harness.submit(get("/"));
    assert_eq!(harness.result().unwrap().body, b"again");
    server.join().unwrap();
    harness.upstream.end_stream(stream);
    assert_eq!(harness.upstream.open_requests(), 0);
}

/// A store that answers on the first connection only, and swallows all attempts to open another one.
fn serve_one_connection(requests: usize) -> (u16, JoinHandle<()>) {
    let address = "127.0.0.1:0".parse::<SocketAddr>().unwrap();
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    net::bind(&socket, &address).unwrap();
    net::listen(&socket, 0).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // It is not accepted, so that no other one can be.
        let _queued = TcpStream::connect(address).unwrap();
        for _ in 0..requests {
            read_head(&mut stream);
            say(&mut stream, response(200, "kept"));
        }
    });
    (address.port(), server)
}

#[test]
fn an_outage_leaves_kept_connections_in_use() {
    let (port, server) = serve_one_connection(6);
    let mut harness = Harness::to(port);
    harness.submit(get("/1"));
    assert_eq!(harness.result().unwrap().body, b"kept");
    // For one of two a connection is opened in vain, and the other one is free by then.
    harness.submit(get("/2"));
    harness.submit(get("/3"));
    assert_eq!(harness.result().unwrap().body, b"kept");
    assert_eq!(harness.upstream.open_connections(), 2);
    harness.pass(5);
    assert_eq!(harness.result().unwrap().body, b"kept");
    assert!(harness.upstream.outage.is_some());
    let change = harness.upstream.take_state_change();
    assert!(matches!(change, Some(StoreChange::Unreachable(_))));
    // In the outage, too.
    harness.submit(get("/4"));
    assert_eq!(harness.result().unwrap().body, b"kept");
    let stream = harness.begin(get("/5"));
    assert_eq!(harness.head(stream).unwrap().status, 200);
    assert_eq!(harness.read(stream, 100).unwrap(), b"kept");
    harness.upstream.end_stream(stream);
    harness.turn(Duration::ZERO);
    // Those that would need another one fail at once.
    harness.submit(get("/6"));
    harness.submit(get("/7"));
    let results = [harness.result(), harness.result()];
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    server.join().unwrap();
}

#[test]
fn every_address_is_tried() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        return;
    };
    let port = listener.local_addr().unwrap().port();
    let answer = || {
        script(|mut stream| {
            read_head(&mut stream);
            say(&mut stream, "HTTP/1.0 200 X\r\n\r\nhere");
        })
    };
    let server = serve_on(listener, vec![answer(), answer()]);
    let mut harness = Harness::new(&format!("http://localhost:{port}/"), None);
    for _ in 0..2 {
        harness.submit(get("/"));
        assert_eq!(harness.result().unwrap().body, b"here");
    }
    server.join().unwrap();
}

#[test]
fn the_number_of_requests_is_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut harness = Harness::to(port);
    for number in 0..1030 {
        for class in [RequestClass::User, RequestClass::Background] {
            let token = UpstreamToken::Task(number);
            harness
                .upstream
                .submit(once("/"), class, token, harness.clock);
        }
        if number == 30 {
            harness.turn(Duration::ZERO);
            harness.turn(Duration::ZERO);
        }
    }
    harness.turn(Duration::ZERO);
    assert_eq!(harness.upstream.open_connections(), 20);
    let mut rejected = 0;
    while let Some((_, result)) = harness.upstream.take_finished() {
        assert_eq!(result.unwrap_err().kind, FailureKind::SlowDown);
        rejected += 1;
    }
    assert!(rejected < 30, "{rejected}");
    // Users wait for ten seconds, and not for each other.
    let (seconds, ()) = harness.later(|upstream| (upstream.open_requests() < 1050).then_some(()));
    assert_eq!(seconds, 10);
    let (seconds, ()) = harness.later(|upstream| (upstream.open_requests() == 0).then_some(()));
    assert!((45..=51).contains(&seconds), "{seconds}");
    assert_eq!(harness.upstream.deadline(), None);
    assert_eq!(harness.upstream.open_connections(), 0);
    drop(listener);
}

#[test]
fn a_new_target_ends_what_waits_for_the_earlier_one() {
    let (port, server) = serve(vec![script(|mut stream| {
        read_head(&mut stream);
        say(&mut stream, response(200, "old"));
        wait_for_end(&mut stream);
    })]);
    let (new_port, new_server) = serve(vec![script(|mut stream| {
        read_head(&mut stream);
        say(&mut stream, response(200, "new"));
    })]);
    let mut harness = Harness::to(port);
    harness.submit(get("/"));
    harness.result().unwrap();
    harness.submit(get("/"));
    let new = target(&format!("http://127.0.0.1:{new_port}/"), None);
    harness.upstream.set_target(new, harness.clock);
    assert!(harness.result().is_err());
    assert_eq!(harness.upstream.open_connections(), 0);
    harness.submit(get("/"));
    assert_eq!(harness.result().unwrap().body, b"new");
    server.join().unwrap();
    new_server.join().unwrap();
}

#[test]
fn a_clock_that_differs_is_told() {
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3600));
    let (port, server) = serve(vec![script(move |mut stream| {
        read_head(&mut stream);
        say(
            &mut stream,
            format!("HTTP/1.1 403 X\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n"),
        );
    })]);
    let mut harness = Harness::to(port);
    harness.submit(get("/"));
    assert_eq!(harness.result().unwrap().status, 403);
    let Some(StoreChange::ClockSkew { by, store_is_ahead }) = harness.upstream.take_state_change()
    else {
        panic!("not told");
    };
    assert!(store_is_ahead && by > Duration::from_secs(3500));
    server.join().unwrap();
}

#[test]
fn a_new_configuration_of_the_same_place_costs_no_request() {
    let answer = |text: &'static str| {
        script(move |mut stream| {
            read_head(&mut stream);
            say(&mut stream, response(200, text));
            wait_for_end(&mut stream);
        })
    };
    let (port, server) = serve(vec![
        answer("first"),
        // It is closed while it is being opened.
        script(|mut stream| wait_for_end(&mut stream)),
        answer("second"),
    ]);
    let mut harness = Harness::to(port);
    let same = target(&format!("http://127.0.0.1:{port}/"), None);
    // It waits for a connection.
    harness.submit(get("/"));
    harness.upstream.set_target(same.clone(), harness.clock);
    assert_eq!(harness.result().unwrap().body, b"first");
    // The kept connection is closed, too.
    harness.upstream.set_target(same.clone(), harness.clock);
    let stream = harness.begin(get("/"));
    harness
        .upstream
        .drive(harness.poll.registry(), harness.clock);
    harness.upstream.set_target(same, harness.clock);
    assert_eq!(harness.head(stream).unwrap().status, 200);
    assert_eq!(harness.read(stream, 100).unwrap(), b"second");
    harness.upstream.end_stream(stream);
    drop(harness);
    server.join().unwrap();
}

#[test]
fn slow_requests_do_not_delay_others() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut harness = Harness::to(port);
    // The store is silent about them.
    for _ in 0..40 {
        harness.submit(get("/stuck"));
    }
    harness.submit(get("/other"));
    let server = thread::spawn(move || {
        let mut stuck = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            match read_head(&mut stream).starts_with("GET /stuck ") {
                true => stuck.push(stream),
                false => return say(&mut stream, response(200, "other")),
            }
        }
    });
    let (seconds, result) = harness.later(Upstream::take_finished);
    assert_eq!(result.1.unwrap().body, b"other");
    assert!((2..=3).contains(&seconds), "{seconds}");
    server.join().unwrap();
}
