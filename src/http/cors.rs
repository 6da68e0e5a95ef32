//! CORS header fields for web clients of any origin (Fetch standard, "CORS protocol"; XEP-0363 §9).

/// The methods of every resource here; also the value of `Allow` (RFC 9110 §10.2.1).
pub const METHODS: &str = "GET, HEAD, OPTIONS, PUT";

/// Fields of every response.
pub const ALWAYS: &[(&str, &str)] = &[
    ("Access-Control-Allow-Origin", "*"),
    (
        "Access-Control-Expose-Headers",
        "Accept-Ranges, Content-Disposition, Content-Length, Content-Range, ETag, Location",
    ),
];

/// Further fields of the response to OPTIONS.
pub const PREFLIGHT: &[(&str, &str)] = &[
    ("Access-Control-Allow-Methods", METHODS),
    (
        "Access-Control-Allow-Headers",
        "Authorization, Content-Type, If-Match, If-Modified-Since, If-None-Match, If-Range, \
         If-Unmodified-Since, Range",
    ),
    // One day; browsers apply their own maximum.
    ("Access-Control-Max-Age", "86400"),
];
