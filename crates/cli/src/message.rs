//! What is told on standard error.

use std::fmt::Display;
use std::io::Write;

/// Writes a line to standard error. Where nobody reads it any more, work goes on: `eprintln!` would panic.
pub fn tell(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The error and its causes on one line. A cause that the message before it ends with is not told twice.
///
/// ```
/// use anyhow::Context as _;
/// let error = anyhow::anyhow!("disk full").context("writing a: disk full").context("saving");
/// assert_eq!(stream_grad_cli::message(&error), "saving: writing a: disk full");
/// ```
#[must_use]
pub fn message(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |mut line, cause| {
        let cause = cause.to_string();
        if line.is_empty() {
            return cause;
        }
        if !line.ends_with(&cause) {
            line.push_str(": ");
            line.push_str(&cause);
        }
        line
    })
}
