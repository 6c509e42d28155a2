//! What a model wants beside the nearest that a file has.

use std::fmt;

/// How many missing tensors are listed.
const ROWS: usize = 10;

/// Longer names are not compared: no model has them, and the time grows with the length.
const LONGEST_NAME: usize = 256;

/// The tensors that a file lacks, each beside the nearest of those that the model did not ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    rows: Vec<(Named, Option<Named>)>,
    missing: usize,
    wanted: usize,
}

/// A tensor's name and shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
}

impl Comparison {
    /// Compares what is missing, of `wanted` tensors in all, with what the file has beside.
    ///
    /// The nearest is the one whose name differs in the fewest letters from the missing one with the file's `prefix`,
    /// where another shape counts as half of the letters. Each of the file's tensors is the nearest of one at most.
    pub(super) fn new(
        missing: Vec<Named>,
        wanted: usize,
        prefix: &str,
        mut others: Vec<Named>,
    ) -> Self {
        others.retain(|other| other.name.len() <= LONGEST_NAME);
        let count = missing.len();
        let rows = missing.into_iter().take(ROWS).map(|missing| {
            let name = format!("{prefix}{}", missing.name);
            let distance = |other: &Named| {
                let shape = if other.shape == missing.shape {
                    0
                } else {
                    missing.name.len() / 2
                };
                strsim::levenshtein(&name, &other.name) + shape
            };
            let nearest = (0..others.len()).min_by_key(|&at| distance(&others[at]));
            let nearest = nearest.map(|at| others.swap_remove(at));
            (missing, nearest)
        });
        Self {
            rows: rows.collect(),
            missing: count,
            wanted,
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.name, self.shape)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} tensors are missing; wanted, and the nearest of the file's others:",
            self.missing, self.wanted
        )?;
        let wanted = self.rows.iter().map(|(wanted, _)| wanted.to_string());
        let wanted: Vec<String> = wanted.collect();
        let width = wanted.iter().map(String::len).max().unwrap_or(0);
        for (wanted, (_, nearest)) in wanted.iter().zip(&self.rows) {
            match nearest {
                Some(nearest) => write!(f, "\n  {wanted:width$}  {nearest}")?,
                None => write!(f, "\n  {wanted:width$}  nothing")?,
            }
        }
        if self.missing > self.rows.len() {
            write!(f, "\n  and {} more", self.missing - self.rows.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, shape: &[usize]) -> Named {
        let (name, shape) = (name.to_owned(), shape.to_vec());
        Named { name, shape }
    }

    fn rows(missing: &[Named], prefix: &str, others: &[Named]) -> Vec<Option<String>> {
        let comparison = Comparison::new(missing.to_vec(), missing.len(), prefix, others.to_vec());
        let nearest = comparison.rows.into_iter().map(|(_, nearest)| nearest);
        nearest
            .map(|nearest| nearest.map(|named| named.name))
            .collect()
    }

    #[test]
    fn names_and_shapes_decide() {
        let missing = [named("stem.weight", &[8, 3, 5, 5])];
        let others = [named("stem.weights", &[8]), named("stem.w", &[8, 3, 5, 5])];
        assert_eq!(
            rows(&missing, "", &others),
            [Some("stem.w".into())],
            "5 letters to 1 + 5"
        );
        let others = [named("stem.weights", &[8]), named("first.w", &[8, 3, 5, 5])];
        assert_eq!(rows(&missing, "", &others), [Some("stem.weights".into())]);
    }

    #[test]
    fn the_prefix_counts_and_each_is_used_once() {
        let missing = [named("a.bias", &[2]), named("b.bias", &[2])];
        let others = [named("x.c.bias", &[2]), named("c.bias", &[2])];
        assert_eq!(
            rows(&missing, "x.", &others),
            [Some("x.c.bias".into()), Some("c.bias".into())]
        );
        assert_eq!(
            rows(&missing, "", &others[..1]),
            [Some("x.c.bias".into()), None]
        );
    }

    #[test]
    fn long_lists_and_long_names_are_cut() {
        let missing: Vec<Named> = (0..12).map(|i| named(&format!("{i}"), &[i])).collect();
        let others = [named(&"n".repeat(100_000), &[0])];
        let message = Comparison::new(missing, 20, "", others.to_vec()).to_string();
        assert!(
            message.starts_with("12 of 20 tensors are missing"),
            "{message}"
        );
        assert!(message.ends_with("nothing\n  and 2 more"), "{message}");
        assert_eq!(message.lines().count(), 12, "{message}");
    }
}
