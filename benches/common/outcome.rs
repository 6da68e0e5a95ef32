//! How a bench fails.

/// What goes wrong here ends the bench: a sentence for the user is all that is needed.
pub type Outcome<T> = Result<T, String>;
