//! Cross-origin fields (Fetch standard, "CORS protocol"; XEP-0363 §9), for web clients of any origin.

/// Methods that a resource here has; also the value of `Allow` (RFC 9110 §10.2.1).
pub const METHODS: &str = "GET, HEAD, OPTIONS, PUT";

/// Fields of every answer.
pub const ALWAYS: &[(&str, &str)] = &[
    ("Access-Control-Allow-Origin", "*"),
    (
        "Access-Control-Expose-Headers",
        "Accept-Ranges, Content-Disposition, Content-Length, Content-Range, ETag, Location",
    ),
];

/// Further fields of the answer to OPTIONS.
pub const PREFLIGHT: &[(&str, &str)] = &[
    ("Access-Control-Allow-Methods", METHODS),
    (
        "Access-Control-Allow-Headers",
        "Authorization, Content-Type, If-Match, If-Modified-Since, If-None-Match, If-Range, \
         If-Unmodified-Since, Range",
    ),
    // A day; browsers cut it to their own limit.
    ("Access-Control-Max-Age", "86400"),
];
