//! The names of all cases of both benches. `cargo bench -- WORD` passes the same words to both, and a word that selects
//! cases of only one of them is not an error in the other.

use crate::common::outcome::Outcome;

#[derive(Debug)]
pub struct Entry {
    pub name: &'static str,
    /// For `--help`.
    pub about: &'static str,
}

const fn entry(name: &'static str, about: &'static str) -> Entry {
    Entry { name, about }
}

/// The cases and scenarios of the whole-server bench, in the order in which they run.
#[rustfmt::skip]
pub const SERVER: &[Entry] = &[
    entry("get-1-file", "GET of the same file of 10 KiB on 50 persistent connections"),
    entry("get-1-file-8", "get-1-file on 8 connections"),
    entry("get-1-file-alone", "get-1-file on 1 connection"),
    entry("get-1-file-tls", "get-1-file over TLS"),
    entry("get-1-file-tls-8", "get-1-file over TLS on 8 connections"),
    entry("get-64-files", "GET of 64 different files of 10 KiB on 50 persistent connections, each file as often"),
    entry("get-64-files-8", "get-64-files on 8 connections"),
    entry("get-64-files-zipf", "get-64-files, the n-th file n times less often than the first (Zipf's law, s = 1)"),
    entry("get-64-files-tls", "get-64-files over TLS"),
    entry("get-64-files-tls-8", "get-64-files over TLS on 8 connections"),
    entry("get-64-files-zipf-tls", "get-64-files-zipf over TLS"),
    entry("get-64-files-deep", "get-64-files from a storage folder of depth 8 instead of the depth of TMPDIR and 1"),
    entry("get-64-files-unsandboxed", "get-64-files with `sandbox: off`"),
    entry("get-1000-files", "get-64-files with 1,000 files"),
    entry("get-1000-files-8", "get-1000-files on 8 connections"),
    entry("get-1000-files-zipf", "get-64-files-zipf with 1,000 files"),
    entry("get-1000-files-tls", "get-1000-files over TLS"),
    entry("get-1000-files-zipf-tls", "get-1000-files-zipf over TLS"),
    entry("get-100000-files", "get-64-files with 100,000 files (not with --quick)"),
    entry("get-100000-files-8", "get-100000-files on 8 connections"),
    entry("get-100000-files-zipf", "get-64-files-zipf with 100,000 files (not with --quick)"),
    entry("get-100000-files-tls", "get-100000-files over TLS"),
    entry("get-100000-files-zipf-tls", "get-100000-files-zipf over TLS"),
    entry("get-range", "get-64-files for 4 KiB of each file"),
    entry("head", "get-64-files with HEAD"),
    entry("get-not-modified", "get-64-files with If-None-Match, answered with 304"),
    entry("get-new", "get-64-files, each on a new connection, 8 at a time"),
    entry("get-new-tls", "get-new over TLS, each with a full handshake"),
    entry("get-room", "200 clients that connect at once and GET the same new file of 2 MiB"),
    entry("get-room-tls", "get-room over TLS"),
    entry("get-large", "GET of 256 MiB (quick: 16 MiB) on 1 persistent connection"),
    entry("get-large-tls", "get-large over TLS"),
    entry("put-10k", "PUT of 10 KiB on 8 persistent connections, fsync off"),
    entry("put-10k-tls", "put-10k over TLS"),
    entry("put-10k-unsandboxed", "put-10k with `sandbox: off`"),
    entry("put-large", "PUT of 256 MiB (quick: 16 MiB) on 1 persistent connection, fsync off"),
    entry("put-large-tls", "put-large over TLS"),
    entry("put-durable", "PUT of 10 KiB on 1 persistent connection; upslot with fsync on, the others without"),
    entry("put-durable-32", "put-durable on 32 persistent connections"),
    entry("slots", "slot requests through the component, up to 64 outstanding"),
    entry("slots-api", "slot requests through the local API on 8 persistent connections; upslot only"),
    entry("slots-open", "CPU time per slot as up to 32,000 slots are open (quick: 4,000); upslot only"),
    entry("first-slot", "CPU time of the first slot of an owner with 0, 10, 100 and 1,000 files (quick: 0 and 10); upslot only"),
    entry("expiry", "CPU time of a sweep over 100,000 files (quick: 2,000), and latency of GETs beside it; upslot only; with --full or if selected"),
    entry("idle", "memory per idle connection at 1,000 and 10,000 connections (quick: 1,000), plain and TLS"),
    entry("get-beside-put", "latency of small GETs and of slots: alone, during 4 large PUTs at full speed, during 4 at 50 MiB/s, and during 100 at full speed; not lighttpd"),
    entry("get-beside-get", "latency of small GETs and of slots: alone, and during 8 and 200 large GETs at full speed"),
    entry("trickle", "500 clients that send one byte at a time, alone and during small GETs; not lighttpd"),
    entry("store-size", "slots, small PUTs and GETs, start-up time and memory with 0, 10,000 and 100,000 stored files (quick: 0 and 1,000); upslot only"),
    entry("store-million", "store-size with 0 and 1,000,000 files; takes minutes, so it runs only with --full or if selected"),
    entry("s3-slots", "slots for direct uploads to an object store; upslot only"),
    entry("s3-put-10k", "PUT of 10 KiB through to an object store on 8 persistent connections, beside nginx as its reverse proxy"),
    entry("s3-put-large", "s3-put-10k with 256 MiB (quick: 16 MiB) on 1 connection"),
    entry("s3-get-10k", "GET of 64 files of 10 KiB from an object store on 8 persistent connections, beside nginx as its reverse proxy"),
    entry("s3-get-large", "s3-get-10k with a file of 256 MiB (quick: 16 MiB) on 1 connection"),
    entry("s3-memory", "memory of 200 (quick: 50) downloads that no client reads, and as many uploads that the store does not read"),
    entry("s3-sweep", "100,000 objects (quick: 20,000) of which half have expired: slots during the sweep; upslot only"),
];

/// The operations that the micro bench times, in the order in which they run.
#[rustfmt::skip]
pub const MICRO: &[Entry] = &[
    entry("head-curl", "parse the head of a GET from curl"),
    entry("head-browser", "parse the head of a GET from a browser"),
    entry("head-slixmpp-put", "parse the head of a PUT from slixmpp"),
    entry("get-answer", "from a parsed GET to the head of the response"),
    entry("get-answer-range", "get-answer for a request with a range"),
    entry("get-answer-304", "get-answer for a file that the browser has cached"),
    entry("get-exchange", "a whole GET through the HTTP state machine of a persistent connection, without file and socket"),
    entry("put-exchange", "a whole PUT of 10 KiB through that state machine, without file and socket"),
    entry("put-own", "from a parsed PUT to its grant: a slot of upslot's own"),
    entry("put-external-v", "put-own for a URL signed by mod_http_upload_external, v"),
    entry("put-external-v2", "put-own for a URL signed by mod_http_upload_external, v2"),
    entry("put-jwt", "put-own for a token of mod_http_file_share"),
    entry("limit-hmac", "lower bound of put-own: the HMAC alone, over as many bytes as the path of a slot's URL"),
    entry("slot", "from the bytes of a slot request to the bytes of the slot"),
    entry("slot-64", "slot for 64 requests received at once; per request"),
    entry("presign-put", "a presigned URL for the PUT of a slot's file to an object store"),
    entry("policy-0", "check a slot request without access rules"),
    entry("policy-10", "policy-0 with 10 access rules, the last of which matches"),
    entry("policy-100", "policy-0 with 100 access rules, the last of which matches"),
    entry("xml-slot-request", "from the bytes of a slot request to an XML element"),
    entry("xml-message", "from the bytes of a message to an XML element"),
    entry("range-1", "parse and resolve a Range with one range"),
    entry("range-10", "parse and resolve a Range with ten ranges"),
    entry("chunked-64k", "decode a body in chunks of 64 KiB; per KiB"),
    entry("chunked-1k", "decode a body in chunks of 1 KiB; per KiB"),
    entry("chunked-16", "decode a body in chunks of 16 bytes; per KiB"),
];

/// Checks that the names of all cases are those that are listed, in the same order.
pub fn check(listed: &[Entry], names: impl IntoIterator<Item = &'static str>) -> Outcome<()> {
    let mut listed = listed.iter().map(|entry| entry.name);
    for name in names {
        if listed.next() != Some(name) {
            return Err(format!(
                "the catalogue does not list {name} at this position"
            ));
        }
    }
    match listed.next() {
        Some(name) => Err(format!("the catalogue lists {name}, which is not measured")),
        None => Ok(()),
    }
}
