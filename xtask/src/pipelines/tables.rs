//! Tables as CSV.

/// The bytes of a table.
pub(crate) fn csv_bytes<Heading, Row>(
    heading: Heading,
    rows: impl IntoIterator<Item = Row>,
) -> anyhow::Result<Vec<u8>>
where
    Heading: IntoIterator<Item: AsRef<[u8]>>,
    Row: IntoIterator<Item: AsRef<[u8]>>,
{
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(heading)?;
    for row in rows {
        writer.write_record(row)?;
    }
    Ok(writer.into_inner()?)
}
