//! Why a request head is rejected, and the size limits it has to keep.

use std::fmt;

/// Longest head in bytes, including the empty line that ends it.
pub const MAX_HEAD: usize = 32 * 1024;
/// Most fields in a head.
pub const MAX_FIELDS: usize = 100;
/// Longest request target in bytes.
pub const MAX_TARGET: usize = 8 * 1024;

/// Why a head is rejected. Its `Display` is one sentence. The connection ends after every one of these errors, because
/// the start of the next request is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadFault {
    /// Not HTTP, or ambiguous; with the sentence that explains it.
    Malformed(&'static str),
    /// Well-formed, but neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// A method longer than any that is registered.
    MethodTooLong,
    /// A transfer coding other than `chunked`.
    TransferCoding,
    /// The target has more than [`MAX_TARGET`] bytes.
    TargetTooLong,
    /// The head has more than [`MAX_HEAD`] bytes.
    TooLarge,
    /// The head has more than [`MAX_FIELDS`] fields.
    TooManyFields,
}

impl HeadFault {
    /// The HTTP status of the response.
    pub fn status(&self) -> u16 {
        match self {
            HeadFault::Malformed(_) => 400,
            HeadFault::TargetTooLong => 414,
            HeadFault::TooLarge | HeadFault::TooManyFields => 431,
            HeadFault::MethodTooLong | HeadFault::TransferCoding => 501,
            HeadFault::Version => 505,
        }
    }
}

impl fmt::Display for HeadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeadFault::Malformed(sentence) => f.write_str(sentence),
            HeadFault::Version => f.write_str("Only HTTP/1.1 and HTTP/1.0 are supported."),
            HeadFault::MethodTooLong => {
                f.write_str("The method name is longer than that of any HTTP method.")
            }
            HeadFault::TransferCoding => {
                f.write_str("The only supported transfer coding is chunked.")
            }
            HeadFault::TargetTooLong => {
                write!(f, "The request target is longer than {MAX_TARGET} bytes.")
            }
            HeadFault::TooLarge => write!(f, "The request head is larger than {MAX_HEAD} bytes."),
            HeadFault::TooManyFields => {
                write!(f, "The request head has more than {MAX_FIELDS} fields.")
            }
        }
    }
}

impl std::error::Error for HeadFault {}

/// Every kind of malformed head.
impl HeadFault {
    pub(super) const BARE_CR: HeadFault =
        HeadFault::Malformed("The request head contains a CR that is not followed by LF.");
    pub(super) const BARE_LF: HeadFault =
        HeadFault::Malformed("A line of the request head ends with LF instead of CRLF.");
    pub(super) const CONTROL: HeadFault =
        HeadFault::Malformed("The request head contains a control character.");
    pub(super) const NO_METHOD: HeadFault =
        HeadFault::Malformed("This is not an HTTP request: it does not start with a method.");
    pub(super) const TLS: HeadFault = HeadFault::Malformed(
        "This port speaks plain HTTP, but the client speaks TLS: set http_certfile and http_keyfile, or let the proxy \
         connect with http://.",
    );
    pub(super) const XMPP: HeadFault =
        HeadFault::Malformed("This port speaks HTTP, but the client speaks XMPP.");
    pub(super) const PROXY: HeadFault = HeadFault::Malformed(
        "The PROXY protocol is not supported: let the proxy send X-Forwarded-For instead.",
    );
    pub(super) const NO_END: HeadFault =
        HeadFault::Malformed("The request head does not end with an empty line.");
    pub(super) const REQUEST_LINE: HeadFault = HeadFault::Malformed(
        "The request line is not a method, a target and a version, separated by single spaces.",
    );
    pub(super) const VERSION: HeadFault =
        HeadFault::Malformed("The request line does not end with an HTTP version.");
    pub(super) const TARGET: HeadFault = HeadFault::Malformed("The request target is malformed.");
    pub(super) const TARGET_TEXT: HeadFault =
        HeadFault::Malformed("The request target is not valid UTF-8.");
    pub(super) const FOLD: HeadFault =
        HeadFault::Malformed("A header field is folded over several lines.");
    pub(super) const FIELD_NAME: HeadFault = HeadFault::Malformed(
        "The name of a header field is empty or contains an invalid character.",
    );
    pub(super) const NO_HOST: HeadFault = HeadFault::Malformed("The Host field is missing.");
    pub(super) const HOSTS: HeadFault = HeadFault::Malformed("There is more than one Host field.");
    pub(super) const HOST: HeadFault =
        HeadFault::Malformed("The Host field does not contain a valid host.");
    pub(super) const LENGTH: HeadFault =
        HeadFault::Malformed("The Content-Length field is not a number of bytes.");
    pub(super) const LENGTHS: HeadFault =
        HeadFault::Malformed("There is more than one Content-Length field.");
    pub(super) const TWO_FRAMINGS: HeadFault =
        HeadFault::Malformed("The request has both Content-Length and Transfer-Encoding.");
    pub(super) const CODING_IN_1_0: HeadFault =
        HeadFault::Malformed("HTTP/1.0 has no Transfer-Encoding.");
    pub(super) const CODINGS: HeadFault = HeadFault::Malformed(
        "The Transfer-Encoding field does not end with a single chunked coding without parameters.",
    );
}
