//! Streams: bodies pass without being kept, in both directions, as fast as both sides allow.

use std::sync::mpsc;

use super::*;

#[test]
fn a_body_is_sent_after_continue() {
    let body = pattern(3_000_000);
    let expected = body.clone();
    let (port, server) = serve(vec![script(move |mut stream| {
        assert!(read_head(&mut stream).contains("100-continue"));
        say(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n");
        assert!(read_exactly(&mut stream, expected.len()) == expected);
        say(&mut stream, response(200, "<ok/>"));
        // The connection is kept.
        read_head(&mut stream);
        say(&mut stream, response(200, "next"));
    })]);
    let mut harness = Harness::to(port);
    let id = harness.begin(put(body.len() as u64));
    assert_eq!(harness.upstream.send_body(id, &body), Ok(Moved::Blocked));
    assert_eq!(harness.send(id, &body), Ok(body.len()));
    assert_eq!(harness.upstream.send_body(id, b"more"), Ok(Moved::End));
    assert_eq!(harness.head(id).unwrap().status, 200);
    assert_eq!(harness.read(id, 3).unwrap(), b"<ok/>");
    assert!(harness.awakened > 0);
    harness.upstream.end_stream(id);
    harness.submit(get("/"));
    assert_eq!(harness.result().unwrap().body, b"next");
    assert_eq!(harness.upstream.counts().connections, 1);
    server.join().unwrap();
}

#[test]
fn a_body_is_sent_without_continue_after_a_second() {
    let (port, server) = serve(vec![script(move |mut stream| {
        read_head(&mut stream);
        assert_eq!(read_exactly(&mut stream, 4), b"body");
        say(&mut stream, response(200, ""));
    })]);
    let mut harness = Harness::to(port);
    let id = harness.begin(put(4));
    let (seconds, moved) = harness.later(|upstream| {
        let moved = upstream.send_body(id, b"body").unwrap();
        (moved != Moved::Blocked).then_some(moved)
    });
    assert_eq!((seconds, moved), (1, Moved::Bytes(4)));
    assert_eq!(harness.head(id).unwrap().status, 200);
    server.join().unwrap();
}

#[test]
fn a_refusal_stops_the_body() {
    for (continues, status) in [(false, 412), (true, 413), (true, 403)] {
        let (port, server) = serve(vec![script(move |mut stream| {
            read_head(&mut stream);
            if continues {
                say(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n");
                read_exactly(&mut stream, 1000);
            }
            say(&mut stream, response(status, "no"));
            wait_for_end(&mut stream);
        })]);
        let mut harness = Harness::to(port);
        let body = vec![0; 100_000_000];
        let id = harness.begin(put(body.len() as u64));
        let sent = harness.send(id, &body).unwrap();
        assert_eq!(sent > 0, continues);
        assert!(sent < body.len());
        assert_eq!(harness.head(id).unwrap().status, status);
        assert_eq!(harness.upstream.send_body(id, b"more"), Ok(Moved::End));
        assert_eq!(harness.read(id, 100).unwrap(), b"no");
        harness.upstream.end_stream(id);
        // The store may take what follows for the body.
        assert_eq!(harness.upstream.open_connections(), 0);
        server.join().unwrap();
    }
}

#[test]
fn a_refusal_before_a_reset_is_read() {
    let (port, server) = serve(vec![script(move |mut stream| {
        read_head(&mut stream);
        say(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n");
        say(&mut stream, response(507, "full"));
        stream.shutdown(Shutdown::Write).unwrap();
        wait_for_end(&mut stream);
    })]);
    let mut harness = Harness::to(port);
    let id = harness.begin(put(100_000_000));
    let mut failed = false;
    let status = harness.until(|upstream| {
        failed |= upstream.send_body(id, &[0; 1000]).is_err();
        upstream.head(id).map(|head| head.unwrap().status)
    });
    assert_eq!((status, failed), (507, false));
    harness.upstream.end_stream(id);
    server.join().unwrap();
}

#[test]
fn a_stalled_store_blocks_and_then_fails() {
    let (done, is_done) = mpsc::channel::<()>();
    let (port, server) = serve(vec![script(move |mut stream| {
        read_head(&mut stream);
        say(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n");
        let _ = is_done.recv();
    })]);
    let mut harness = Harness::to(port);
    let id = harness.begin(put(u64::MAX));
    let piece = vec![0; 64 * 1024];
    let mut sent = 0;
    let (seconds, failure) = harness.later(|upstream| {
        loop {
            match upstream.send_body(id, &piece) {
                Ok(Moved::Bytes(n)) => sent += n,
                Ok(_) => return None,
                Err(failure) => return Some(failure),
            }
        }
    });
    drop(done);
    assert!(sent > 0 && sent < 100_000_000, "{sent}");
    assert!((60..=62).contains(&seconds), "{seconds}");
    assert!(failure.message.contains("stopped receiving"));
    assert_eq!(harness.upstream.open_connections(), 0);
    server.join().unwrap();
}

#[test]
fn downloads_are_read_into_the_callers_buffer() {
    let body = pattern(2_000_000);
    let long = format!("HTTP/1.1 206 X\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut chunked = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(1000) {
        chunked.extend(format!("{:x};a=b\r\n", chunk.len()).bytes());
        chunked.extend(chunk);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\nTrailer: x\r\n\r\n");
    let texts = [
        [long.as_bytes(), &body].concat(),
        chunked,
        [b"HTTP/1.1 200 X\r\n\r\n", &body[..]].concat(),
    ];
    for (text, size) in texts.into_iter().zip([65_536, 1000, 16_384]) {
        let (port, server) = serve(vec![script(move |mut stream| {
            read_head(&mut stream);
            say(&mut stream, text);
        })]);
        let mut harness = Harness::to(port);
        let id = harness.begin(get("/"));
        assert_eq!(harness.head(id).unwrap().status / 100, 2);
        assert!(harness.read(id, size).unwrap() == body, "{size}");
        assert_eq!(harness.upstream.read_body(id, &mut [0]), Ok(Moved::End));
        harness.upstream.end_stream(id);
        server.join().unwrap();
    }
}

/// Nothing waits for another turn, and no client is driven before there is something for it.
#[test]
fn the_requests_of_a_turn_are_sent_in_it() {
    let (port, server) = serve(vec![script(|mut stream| {
        for body in ["first", "second"] {
            read_head(&mut stream);
            thread::sleep(Duration::from_millis(20));
            say(&mut stream, response(200, body));
        }
        wait_for_end(&mut stream);
    })]);
    let mut harness = Harness::to(port);
    let id = harness.begin(get("/1"));
    harness.head(id).unwrap();
    assert_eq!(harness.awakened, 1);
    let mut buffer = [0; 100];
    let whole = harness.upstream.read_body(id, &mut buffer);
    assert_eq!(whole, Ok(Moved::Bytes(5)));
    harness.upstream.end_stream(id);
    let id = harness.begin(get("/2"));
    harness
        .upstream
        .follow_up(harness.poll.registry(), harness.clock);
    assert!(!harness.upstream.has_work());
    harness.head(id).unwrap();
    assert_eq!(harness.awakened, 2);
    assert_eq!(harness.upstream.counts().connections, 1);
    harness.upstream.end_stream(id);
    drop(harness);
    server.join().unwrap();
}

#[test]
fn a_drip_fails_but_a_slow_client_does_not() {
    for drips in [true, false] {
        let (port, server) = serve(vec![script(move |mut stream| {
            read_head(&mut stream);
            say(
                &mut stream,
                "HTTP/1.1 200 X\r\nContent-Length: 100000000\r\n\r\n",
            );
            let piece = vec![0; if drips { 1 } else { 100_000 }];
            while stream.write_all(&piece).is_ok() {
                thread::sleep(Duration::from_millis(if drips { 50 } else { 5 }));
            }
        })]);
        let mut harness = Harness::to(port);
        let id = harness.begin(get("/"));
        harness.head(id).unwrap();
        if drips {
            let (seconds, failure) = harness.later(|upstream| {
                loop {
                    match upstream.read_body(id, &mut [0; 1000]) {
                        Ok(Moved::Bytes(_)) => {}
                        Ok(_) => return None,
                        Err(failure) => return Some(failure),
                    }
                }
            });
            assert!((60..=100).contains(&seconds), "{seconds}");
            assert_eq!(failure.kind, FailureKind::Unreachable);
        } else {
            let mut buffer = vec![0; 1 << 20];
            while harness.upstream.read_body(id, &mut buffer) != Ok(Moved::Blocked) {}
            // There is more, and the client does not read it.
            let before = harness.awakened;
            while harness.awakened == before {
                harness.turn(PATIENCE);
            }
            for _ in 0..200 {
                harness.pass(1);
                harness.turn(Duration::from_millis(1));
            }
            let moved = harness.upstream.read_body(id, &mut buffer);
            assert!(matches!(moved, Ok(Moved::Bytes(_))), "{moved:?}");
        }
        harness.upstream.end_stream(id);
        server.join().unwrap();
    }
}

#[test]
fn a_kept_connection_that_was_closed_does_not_fail_a_stream() {
    let (port, server) = serve(vec![
        script(|mut stream| {
            read_head(&mut stream);
            say(&mut stream, response(200, "first"));
            read_head(&mut stream);
        }),
        script(|mut stream| {
            read_head(&mut stream);
            say(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n");
            assert_eq!(read_exactly(&mut stream, 4), b"body");
            say(&mut stream, response(200, ""));
            // After a part of the body nothing is repeated.
            read_head(&mut stream);
            say(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n");
            assert_eq!(read_exactly(&mut stream, 4), b"half");
        }),
    ]);
    let mut harness = Harness::to(port);
    harness.submit(get("/"));
    harness.result().unwrap();
    let id = harness.begin(put(4));
    assert_eq!(harness.send(id, b"body"), Ok(4));
    assert_eq!(harness.head(id).unwrap().status, 200);
    harness.upstream.end_stream(id);
    assert_eq!(harness.upstream.counts().retries, 1);
    let id = harness.begin(put(8));
    assert_eq!(harness.send(id, b"half"), Ok(4));
    assert!(harness.head(id).is_err());
    assert_eq!(harness.upstream.counts().connections, 2);
    server.join().unwrap();
}

#[test]
fn streams_can_be_ended_in_every_state() {
    let (port, server) = serve(vec![
        script(|mut stream| {
            // The first stream was ended before it began, and its connection is kept.
            read_head(&mut stream);
            say(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n");
            wait_for_end(&mut stream);
        }),
        script(|mut stream| {
            read_head(&mut stream);
            say(&mut stream, "HTTP/1.1 200 X\r\nContent-Length: 4\r\n\r\nab");
            wait_for_end(&mut stream);
        }),
    ]);
    let mut harness = Harness::to(port);
    let id = harness.begin(put(4));
    harness.upstream.end_stream(id);
    harness.upstream.end_stream(id);
    assert!(harness.upstream.head(id).is_none());
    assert!(harness.upstream.send_body(id, b"x").is_err());
    let id = harness.begin(put(4));
    harness.turn(Duration::ZERO);
    harness.upstream.end_stream(id);
    harness.until(|upstream| upstream.deadline());
    let id = harness.begin(put(4));
    assert_eq!(harness.send(id, b"ab"), Ok(2));
    harness.upstream.end_stream(id);
    assert_eq!(harness.upstream.open_connections(), 0);
    let id = harness.begin(get("/"));
    harness.head(id).unwrap();
    harness.upstream.end_stream(id);
    assert_eq!(harness.upstream.open_connections(), 0);
    assert_eq!(harness.upstream.open_requests(), 0);
    harness.turn(Duration::ZERO);
    assert!(!harness.upstream.has_work());
    server.join().unwrap();
}

#[test]
fn streams_are_not_limited_by_small_requests() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut harness = Harness::to(port);
    for _ in 0..100 {
        harness.submit(get("/"));
    }
    let ids: Vec<StreamId> = (0..50).map(|_| harness.begin(get("/"))).collect();
    harness.turn(Duration::ZERO);
    assert_eq!(harness.upstream.open_connections(), 66);
    for id in ids {
        harness.upstream.end_stream(id);
    }
}

/// Memory of a stream, without the kernel's buffers and the state of TLS.
#[test]
fn streams_take_little_memory() {
    let (port, server) = serve(vec![script(|mut stream| {
        read_head(&mut stream);
        say(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n");
        wait_for_end(&mut stream);
    })]);
    let mut harness = Harness::to(port);
    let id = harness.begin(put(100));
    assert_eq!(harness.send(id, b"ab"), Ok(2));
    let kept = harness
        .upstream
        .calls
        .get(id)
        .unwrap()
        .exchange
        .kept_bytes();
    let fixed = size_of::<Call>() + size_of::<UpstreamConnection>();
    assert_eq!(kept, 0);
    assert!(fixed <= 768, "{fixed}");
    harness.upstream.end_stream(id);
    server.join().unwrap();
}

#[test]
fn streams_that_come_and_go_leave_few_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut harness = Harness::to(listener.local_addr().unwrap().port());
    for _ in 0..200 {
        let id = harness.begin(put(1));
        // No event has said yet that it is connected.
        harness
            .upstream
            .drive(harness.poll.registry(), harness.clock);
        harness.upstream.end_stream(id);
    }
    let open = harness.upstream.open_connections();
    assert!((1..=17).contains(&open), "{open}");
}
