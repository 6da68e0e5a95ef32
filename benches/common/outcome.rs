//! The errors of the benches.

/// Any error ends the bench, so an error is a message for the user.
pub type Outcome<T> = Result<T, String>;
