//! Rows that go into an image one after another, until one of them cannot be written.

use std::path::PathBuf;

use crate::error::{Result, SlideError};

/// How many rows of an image went in, and whether one of them could not be written.
#[derive(Debug)]
pub(crate) struct WrittenRows {
    path: PathBuf,
    /// Rows of the image.
    height: u64,
    given: u64,
    has_failed: bool,
}

impl WrittenRows {
    /// None of an image of `height` rows; `path` is for errors.
    pub(crate) const fn new(path: PathBuf, height: u64) -> Self {
        Self {
            path,
            height,
            given: 0,
            has_failed: false,
        }
    }

    /// Rows so far.
    pub(crate) const fn given(&self) -> u64 {
        self.given
    }

    /// Counts one more row.
    ///
    /// # Errors
    /// [`SlideError::RowCount`] below the last.
    pub(crate) fn add(&mut self) -> Result<()> {
        let given = self.given.saturating_add(1);
        if given > self.height {
            return Err(self.count_error(given));
        }
        self.given = given;
        Ok(())
    }

    /// Takes note of how a write ended: after an error there is no other.
    pub(crate) fn note(&mut self, written: Result<()>) -> Result<()> {
        self.has_failed |= written.is_err();
        written
    }

    /// # Errors
    /// [`SlideError::AfterFailure`] if a write failed.
    pub(crate) fn check_usable(&self) -> Result<()> {
        if self.has_failed {
            let path = self.path.clone();
            return Err(SlideError::AfterFailure { path });
        }
        Ok(())
    }

    /// # Errors
    /// [`SlideError::AfterFailure`] if a write failed, [`SlideError::RowCount`] if rows are missing.
    pub(crate) fn check_complete(&self) -> Result<()> {
        self.check_usable()?;
        if self.given == self.height {
            Ok(())
        } else {
            Err(self.count_error(self.given))
        }
    }

    fn count_error(&self, found: u64) -> SlideError {
        SlideError::RowCount {
            path: self.path.clone(),
            expected: self.height,
            found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_until_a_write_fails() {
        let mut rows = WrittenRows::new("a.tiff".into(), 2);
        rows.add().unwrap();
        assert!(matches!(
            rows.check_complete(),
            Err(SlideError::RowCount {
                expected: 2,
                found: 1,
                ..
            })
        ));
        rows.add().unwrap();
        rows.check_complete().unwrap();
        let beyond = rows.add();
        assert!(matches!(
            beyond,
            Err(SlideError::RowCount {
                expected: 2,
                found: 3,
                ..
            })
        ));
        assert_eq!(rows.given(), 2);
        rows.note(beyond).unwrap_err();
        for refused in [rows.check_usable(), rows.check_complete()] {
            assert!(matches!(refused, Err(SlideError::AfterFailure { .. })));
        }
    }
}
