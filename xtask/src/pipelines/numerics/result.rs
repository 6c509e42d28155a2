//! What the comparison ends with: JSON, CSV, a table.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use stream_grad_files::write_whole;

use crate::difference::Difference;
use crate::tables::csv_bytes;

/// Name of the table in the folder of results.
pub(super) const TABLE: &str = "numerics.csv";

/// What the notebook prints, with a tile of 512 on an image of 1024: the largest difference of the output, and the range of those
/// of the kernels' gradients.
const PUBLISHED: Published = Published {
    source: "StreamingCNN, notebook on numerical equality; TPAMI 2022 (10.1109/TPAMI.2020.3019563)",
    image: 1024,
    tile: 512,
    output_below: 1e-7,
    kernel_gradients: [7e-14, 6.8e-13],
};

/// Figures that are published.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Published {
    pub(super) source: &'static str,
    /// Edge of the image in pixels.
    image: u64,
    /// Edge of the tile in pixels.
    tile: u64,
    /// The output's largest difference is less than this.
    output_below: f64,
    /// Smallest and greatest of the kernel gradients' largest differences.
    kernel_gradients: [f64; 2],
}

/// Streamed against whole, all in f64.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct NumericsResult {
    /// Edge of the image in pixels.
    pub(crate) image: u64,
    /// Edge of the tile in pixels.
    pub(crate) tile: u64,
    /// Of image and weights.
    pub(crate) seed: u64,
    /// The output, then the gradient of each parameter.
    pub(crate) rows: Vec<Difference>,
    published: Published,
}

impl NumericsResult {
    pub(crate) fn new(image: u64, tile: u64, seed: u64, rows: Vec<Difference>) -> Self {
        Self {
            image,
            tile,
            seed,
            rows,
            published: PUBLISHED,
        }
    }

    /// What it stands beside.
    pub(super) fn published(&self) -> &Published {
        &self.published
    }

    /// Writes `numerics.txt`, `numerics.json` and `numerics.csv`.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)
            .map_err(|error| anyhow::anyhow!("making {}: {error}", folder.display()))?;
        write_whole(folder.join("numerics.txt"), self.to_string().as_bytes())?;
        let json = serde_json::to_vec_pretty(self)?;
        write_whole(folder.join("numerics.json"), &json)?;
        write_whole(folder.join(TABLE), &self.csv()?)?;
        Ok(())
    }

    fn csv(&self) -> anyhow::Result<Vec<u8>> {
        let heading = [
            "name",
            "largest_magnitude",
            "largest_difference",
            "relative_l2",
            "published_from",
            "published_to",
        ];
        let rows = self.rows.iter().map(|row| {
            let [from, to] = self.published.of(&row.name);
            let cell = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:e}"));
            [
                row.name.clone(),
                format!("{:e}", row.largest_magnitude),
                format!("{:e}", row.largest_difference),
                format!("{:e}", row.relative_l2),
                cell(from),
                cell(to),
            ]
        });
        csv_bytes(heading, rows)
    }
}

impl Published {
    /// Bounds of the largest difference of what has that name; none are published for biases.
    fn of(&self, name: &str) -> [Option<f64>; 2] {
        if name == "output" {
            [None, Some(self.output_below)]
        } else if name.ends_with(".weight") {
            self.kernel_gradients.map(Some)
        } else {
            [None; 2]
        }
    }
}

impl fmt::Display for NumericsResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "image {0}x{0}, tile {1}, f64; loss: the sum of the output",
            self.image, self.tile
        )?;
        writeln!(
            f,
            "{:<14}{:>22}{:>22}{:>18}",
            "", "largest magnitude", "largest difference", "relative L2"
        )?;
        for row in &self.rows {
            writeln!(
                f,
                "{:<14}{:>22.3e}{:>22.3e}{:>18.3e}",
                row.name, row.largest_magnitude, row.largest_difference, row.relative_l2
            )?;
        }
        let Published {
            image,
            tile,
            output_below,
            kernel_gradients: [from, to],
            source,
        } = self.published;
        write!(
            f,
            "published (tile {tile} of {image}): output < {output_below:e}, kernel gradients {from:e} to {to:e}\n({source})"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_figures_stand_beside_what_they_are_of() {
        let row = |name: &str| Difference {
            name: name.into(),
            largest_magnitude: 2.0,
            largest_difference: 3e-13,
            relative_l2: 1e-15,
        };
        let rows = vec![row("output"), row("conv1.weight"), row("conv1.bias")];
        let result = NumericsResult::new(64, 32, 0, rows);
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("runs/numerics");
        result.write(&output).unwrap();
        let csv = std::fs::read_to_string(output.join("numerics.csv")).unwrap();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines[1], "output,2e0,3e-13,1e-15,,1e-7");
        assert_eq!(lines[2], "conv1.weight,2e0,3e-13,1e-15,7e-14,6.8e-13");
        assert!(lines[3].ends_with(",,"));
        let json = std::fs::read(output.join("numerics.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["published"]["kernel_gradients"][1], 6.8e-13);
        assert_eq!(json["rows"][1]["largest_difference"], 3e-13);
        assert!(result.to_string().contains("output < 1e-7"));
    }
}
