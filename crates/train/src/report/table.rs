//! The summary as text.

use std::fmt;

use super::{Report, Verdict};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({})", self.title, self.data.label())?;
        writeln!(f)?;
        let interval = format!("{:.0}% interval", self.confidence * 100.0);
        writeln!(
            f,
            "{:>10}  {:>10}  {:>7}  {:>16}  {:>6}  {:>7}  {:>8}  {:>8}",
            "microns",
            "megapixels",
            self.metric,
            interval,
            "slides",
            "skipped",
            "seconds",
            "waiting"
        )?;
        for result in &self.results {
            let interval = format!("{:.3} to {:.3}", result.test.low, result.test.high);
            writeln!(
                f,
                "{:>10}  {:>10.3}  {:>7.3}  {interval:>16}  {:>6}  {:>7}  {:>8.0}  {:>7.1}%",
                result.microns_per_pixel,
                result.mean_pixels / 1e6,
                result.test.value,
                result.test_slides,
                result.skipped.count(),
                result.seconds,
                result.training.waiting_share() * 100.0
            )?;
        }
        for result in &self.results {
            let skipped = &result.skipped;
            for (why, slides) in [
                ("not tested", &skipped.test),
                ("not read in training, at least once", &skipped.broken),
                (
                    "left out of training, since they gave no numbers",
                    &skipped.not_finite,
                ),
            ] {
                for slide in slides {
                    let microns = result.microns_per_pixel;
                    writeln!(f, "{microns} microns, {why}: {}", slide.display())?;
                }
            }
        }
        for result in &self.results {
            for (slide, regions) in &result.bad_regions {
                let microns = result.microns_per_pixel;
                writeln!(
                    f,
                    "{microns} microns, regions that read as background since they are damaged: {regions} of {}",
                    slide.display()
                )?;
            }
        }
        for row in &self.published {
            writeln!(f)?;
            writeln!(f, "published: {}", row.source)?;
            for figure in &row.figures {
                writeln!(
                    f,
                    "{:>10}  {:>10.3}  {:>7.3}",
                    "", figure.megapixels, figure.value
                )?;
            }
        }
        writeln!(f)?;
        let finest = match self.verdict() {
            Verdict::Separated => {
                "The finest resolution's interval lies wholly above the coarsest's."
            }
            Verdict::Higher => {
                "The finest resolution is higher than the coarsest, but their intervals overlap."
            }
            Verdict::NotHigher => "The finest resolution is NOT higher than the coarsest.",
            Verdict::OneResolution => "One resolution only: nothing to compare.",
        };
        writeln!(f, "{finest}")
    }
}
