//! What is printed of an error.

/// The error and its causes on one line. A cause that the message before it ends with is not told twice.
///
/// ```
/// use anyhow::Context as _;
/// let error = anyhow::anyhow!("disk full").context("writing a: disk full").context("saving");
/// assert_eq!(xtask::message(&error), "saving: writing a: disk full");
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
