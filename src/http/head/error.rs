//! Why a request head cannot be accepted.

use std::fmt;

/// Longest head in bytes, with its blank line.
pub const MAX_HEAD: usize = 32 * 1024;
/// Most fields in a head.
pub const MAX_FIELDS: usize = 100;
/// Longest request target in bytes.
pub const MAX_TARGET: usize = 8 * 1024;

/// Why a head cannot be served. Its `Display` is one sentence. After any of them the connection ends:
/// nobody can say where the next request begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadFault {
    /// Not HTTP, or ambiguous; says how.
    Malformed(&'static str),
    /// Well-formed, but neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// A method longer than any that exists.
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
    /// The HTTP status that answers it.
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
            HeadFault::Malformed(how) => f.write_str(how),
            HeadFault::Version => f.write_str("This service speaks HTTP/1.1 and HTTP/1.0 only."),
            HeadFault::MethodTooLong => {
                f.write_str("The method is longer than any method of HTTP.")
            }
            HeadFault::TransferCoding => {
                f.write_str("The only transfer coding that this service knows is chunked.")
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

/// The ways in which a head is malformed.
impl HeadFault {
    pub(super) const BARE_CR: HeadFault =
        HeadFault::Malformed("A CR in the request's head is not followed by LF.");
    pub(super) const BARE_LF: HeadFault =
        HeadFault::Malformed("A line of the request's head ends without CR.");
    pub(super) const CONTROL: HeadFault =
        HeadFault::Malformed("There is a control character in the request's head.");
    pub(super) const NO_METHOD: HeadFault =
        HeadFault::Malformed("This is no HTTP request: it begins with no method.");
    pub(super) const NO_END: HeadFault =
        HeadFault::Malformed("The request's head does not end with its blank line.");
    pub(super) const REQUEST_LINE: HeadFault = HeadFault::Malformed(
        "The request line is not a method, a target and a version with one blank between them.",
    );
    pub(super) const VERSION: HeadFault =
        HeadFault::Malformed("The request line does not end with a version of HTTP.");
    pub(super) const TARGET: HeadFault = HeadFault::Malformed("The request target is malformed.");
    pub(super) const TARGET_TEXT: HeadFault =
        HeadFault::Malformed("The request target is not in UTF-8.");
    pub(super) const FOLD: HeadFault =
        HeadFault::Malformed("A field is folded over several lines.");
    pub(super) const FIELD_NAME: HeadFault = HeadFault::Malformed(
        "A field's name is missing, or has a blank or another character that names do not have.",
    );
    pub(super) const NO_HOST: HeadFault = HeadFault::Malformed("The field Host is missing.");
    pub(super) const HOSTS: HeadFault = HeadFault::Malformed("There is more than one field Host.");
    pub(super) const HOST: HeadFault = HeadFault::Malformed("The field Host names no host.");
    pub(super) const LENGTH: HeadFault =
        HeadFault::Malformed("Content-Length is not a number of bytes.");
    pub(super) const LENGTHS: HeadFault =
        HeadFault::Malformed("There is more than one field Content-Length.");
    pub(super) const TWO_FRAMINGS: HeadFault =
        HeadFault::Malformed("There is a Content-Length beside a Transfer-Encoding.");
    pub(super) const CODING_IN_1_0: HeadFault =
        HeadFault::Malformed("HTTP/1.0 has no Transfer-Encoding.");
    pub(super) const CODINGS: HeadFault =
        HeadFault::Malformed("Transfer-Encoding does not end with one plain chunked.");
}
