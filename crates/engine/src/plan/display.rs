//! Plans in words.

use std::fmt;

use stream_grad_tiling::{Maps, Reuse, Storage, Weights};

use super::Plan;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recipe = self.recipe();
        let stored: Vec<&str> = self.stored_names().collect();
        let outputs: Vec<String> = self
            .output_shapes()
            .iter()
            .map(|[_, channels, height, width]| format!("{channels} x {height} x {width}"))
            .collect();
        writeln!(
            f,
            "image          {} x {} pixels, batch {}, {:?}",
            recipe.image.rows, recipe.image.columns, self.request.batch, self.dtype
        )?;
        let held = match self.request.features {
            Maps::Whole => "whole",
            Maps::Streamed => "streamed",
        };
        writeln!(f, "features       {}, {held}", outputs.join(", "))?;
        writeln!(
            f,
            "blocks         {}, of up to {} x {} output positions",
            self.geometry.blocks(),
            recipe.output_block.rows,
            recipe.output_block.columns
        )?;
        writeln!(f, "segments       {}", recipe.segments)?;
        writeln!(
            f,
            "tiles          {} of up to {} x {} pixels",
            self.tiles(),
            recipe.tile.rows,
            recipe.tile.columns
        )?;
        match stored.as_slice() {
            [] => writeln!(f, "stored nodes   none of {}", self.network.nodes.len())?,
            names => writeln!(
                f,
                "stored nodes   {} of {}: {}",
                names.len(),
                self.network.nodes.len(),
                names.join(", ")
            )?,
        }
        if recipe.weights == Weights::PackedOnUse {
            writeln!(f, "weights        packed on use, by every tile")?;
        }
        if recipe.reuse == Reuse::OneColor {
            writeln!(f, "reused         tiles of one colour")?;
        }
        if self.buffers.storage() == Storage::File {
            writeln!(f, "offloaded      up to {}", self.file_bytes())?;
        }
        writeln!(f, "peak memory    {}", self.peak_bytes())?;
        let origin = if self.request.cost_model.is_fixed() {
            ", by a fixed table"
        } else {
            ""
        };
        writeln!(f, "predicted time {}{origin}", self.time)?;
        write!(f, "compute ratio  {}", self.cost.compute_ratio())
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("request", &self.request)
            .field("recipe", self.recipe())
            .field("peak", &self.peak)
            .finish_non_exhaustive()
    }
}
