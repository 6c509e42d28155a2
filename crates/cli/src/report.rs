//! `stream-grad report`: the report of a training anew, from its folder alone.

use crate::arguments::ReportArguments;

/// Writes the report and prints it in short.
///
/// # Errors
/// As [`write`](stream_grad_train::report::write).
pub fn run(arguments: &ReportArguments) -> anyhow::Result<()> {
    let summary = stream_grad_train::report::write(&arguments.folder)?;
    let page = arguments.folder.join("report.html");
    println!("{summary}\nThe report is {}", page.display());
    Ok(())
}
