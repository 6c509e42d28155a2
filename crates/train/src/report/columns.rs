//! Tables as a report reads them: whatever columns they have.

use std::path::Path;

use serde_json::Value;

use crate::error::{Result, TrainError};

/// The cells of a CSV.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) heading: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Columns {
    /// Reads a CSV; `None` where there is no such file.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(TrainError::file(path)(error)),
        };
        let mut reader = csv::ReaderBuilder::new()
            .flexible(true)
            .from_reader(text.as_slice());
        let heading = reader.headers().map_err(TrainError::csv(path))?;
        let heading = heading.iter().map(str::to_owned).collect();
        let rows = reader
            .records()
            .map(|record| Ok(record?.iter().map(str::to_owned).collect()))
            .collect::<std::result::Result<_, csv::Error>>()
            .map_err(TrainError::csv(path))?;
        Ok(Some(Self { heading, rows }))
    }

    /// The objects of a JSON list; what they hold besides numbers and text is left out.
    pub(super) fn from_json(objects: &[Value]) -> Self {
        let mut table = Self::default();
        for object in objects.iter().filter_map(Value::as_object) {
            for name in object.keys() {
                if !table.heading.contains(name) {
                    table.heading.push(name.clone());
                }
            }
        }
        let cell = |object: &Value, name: &String| match object.get(name) {
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::String(text)) => text.clone(),
            _ => String::new(),
        };
        table.rows = objects
            .iter()
            .map(|object| {
                table
                    .heading
                    .iter()
                    .map(|name| cell(object, name))
                    .collect()
            })
            .collect();
        table
    }

    /// Place of a column, from 0.
    pub(super) fn place(&self, name: &str) -> Option<usize> {
        self.heading.iter().position(|heading| heading == name)
    }

    /// Cell of a row; empty where the row ends before.
    pub(super) fn cell(row: &[String], place: usize) -> &str {
        row.get(place).map_or("", String::as_str)
    }

    /// The numbers of a column; `None` where there is no such column, and for cells that hold no number.
    pub(super) fn numbers(&self, name: &str) -> Option<Vec<Option<f64>>> {
        let place = self.place(name)?;
        let number = |row: &Vec<String>| Self::cell(row, place).trim().parse().ok();
        Some(self.rows.iter().map(number).collect())
    }

    /// Pairs of two columns' numbers, where both are there.
    pub(super) fn points(&self, x: &str, y: &str) -> Vec<(f64, f64)> {
        match (self.numbers(x), self.numbers(y)) {
            (Some(x), Some(y)) => x
                .into_iter()
                .zip(y)
                .filter_map(|(x, y)| Some((x?, y?)))
                .collect(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_where_there_are_any() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("epochs.csv");
        assert_eq!(Columns::read(&path).unwrap(), None);
        std::fs::write(&path, "epoch,loss,metric\n1,0.5,\n2,x,0.75\n3\n").unwrap();
        let table = Columns::read(&path).unwrap().unwrap();
        assert_eq!(table.numbers("loss"), Some(vec![Some(0.5), None, None]));
        assert_eq!(table.numbers("speed"), None);
        assert_eq!(table.points("epoch", "metric"), [(2.0, 0.75)]);
    }

    #[test]
    fn histories_are_tables_too() {
        let json = serde_json::json!([{"epoch": 0, "loss": null}, {"epoch": 1, "metric": 0.5}]);
        let table = Columns::from_json(json.as_array().unwrap());
        assert_eq!(table.numbers("epoch"), Some(vec![Some(0.0), Some(1.0)]));
        assert_eq!(table.points("epoch", "metric"), [(1.0, 0.5)]);
    }
}
