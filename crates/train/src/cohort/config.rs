//! Everything that decides what a made-up cohort looks like.

use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};

/// How a made-up cohort is drawn. The same value draws the same pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CohortConfig {
    /// What the slides show and what their labels say.
    pub subject: Subject,
    /// Seed of the whole cohort; slide `i` draws from stream `i` of a generator with this seed.
    pub seed: u64,
    /// Number of slides in each split.
    pub splits: SplitSizes,
    /// Microns per pixel of the finest pyramid level.
    pub microns_per_pixel: f64,
    /// Shortest and longest edge of a slide in microns.
    pub edge_microns: [f64; 2],
    /// Edges are multiples of this many microns.
    pub edge_step_microns: f64,
    /// JPEG quality of the tiles, 1 to 100.
    pub jpeg_quality: u8,
    /// What slides hold.
    pub anatomy: AnatomyConfig,
    /// What scanning and handling do to slides.
    pub artefacts: ArtefactConfig,
    /// Laboratories: each slide comes from one, each with its own stain.
    pub centres: Vec<Centre>,
}

/// What the slides of a cohort show and what their labels say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Subject {
    /// Lymph nodes, one of each patient; label 0 without and 1 with a metastasis, in turns.
    #[default]
    Metastasis,
    /// Lymph nodes, five of each patient, all of one laboratory; labels are those of
    /// [`NodeStage`](crate::data::NodeStage). The five stages of patients take turns.
    NodeStages,
    /// Tumours, one of each patient. The label is the density of mitotic figures; each slide of the test split has none, as in
    /// TUPAC16, and those of the training and validation splits have no split, for cross-validation.
    Mitoses {
        /// Least and largest number of mitotic figures in a square millimetre of slide; every number between is equally likely.
        per_square_millimetre: [f64; 2],
    },
}

/// Slides of each patient where patients have several.
pub(super) const SLIDES_OF_A_PATIENT: usize = 5;

/// Number of slides in each split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitSizes {
    /// Slides to learn from.
    pub train: usize,
    /// Slides to choose settings with.
    pub validation: usize,
    /// Slides to report on.
    pub test: usize,
}

impl SplitSizes {
    /// All slides of the cohort.
    #[must_use]
    pub fn total(&self) -> usize {
        self.train + self.validation + self.test
    }
}

/// Tissue, follicles and tumour. Lengths in microns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnatomyConfig {
    /// Fewest and most dense regions (follicles or tumour nests) in a slide.
    pub regions: [usize; 2],
    /// Shortest and longest radius of a dense region.
    pub region_radius: [f64; 2],
    /// Share of a dense region's area that its nuclei cover.
    pub region_coverage: f64,
    /// Mean and standard deviation of the radius of a disc with the area of one large nucleus, or of a cluster of three
    /// small ones.
    pub nucleus_radius: [f64; 2],
    /// Lone lymphocytes per square millimetre of slide, fewest and most.
    pub lymphocytes_per_square_millimetre: [f64; 2],
    /// Lone large nuclei (histiocytes: benign look-alikes) per square millimetre of slide, fewest and most.
    pub histiocytes_per_square_millimetre: [f64; 2],
    /// Least and largest share of a slide's benign sites that hold a large reactive nucleus.
    pub reactive_share: [f64; 2],
    /// How nuclei of dense regions differ from slide to slide.
    pub slide_looks: LooksConfig,
    /// How they differ from region to region of a slide, on top of that.
    pub region_looks: LooksConfig,
    /// How far disease has spread in positive slides.
    pub disease: DiseaseChances,
}

/// Least and largest multiples of what is usual. They vary more than the kinds of nuclei differ, so that colour and contrast
/// say little about the kind.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LooksConfig {
    /// Of the radius of nuclei.
    pub size: [f64; 2],
    /// Of the optical density of nuclei.
    pub density: [f64; 2],
    /// Of the share of a region that nuclei cover.
    pub crowding: [f64; 2],
}

/// Relative chances of each extent of disease in a positive slide.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiseaseChances {
    /// Half of one region.
    pub small: f64,
    /// One whole region.
    pub micrometastasis: f64,
    /// Half of the regions.
    pub several: f64,
    /// Every region but one.
    pub macrometastasis: f64,
}

/// Artefacts; none of them depends on the label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArtefactConfig {
    /// Chance that a slide has a fold.
    pub fold_chance: f64,
    /// Narrowest and widest fold in microns.
    pub fold_width: [f64; 2],
    /// Chance that a slide has a pen mark.
    pub pen_chance: f64,
    /// Narrowest and widest pen stroke in microns.
    pub pen_width: [f64; 2],
    /// Sharpest and most blurred edge of nuclei in microns: how well slides are in focus.
    pub edge_width: [f64; 2],
    /// Standard deviation of the sensor's noise in grey levels.
    pub sensor_noise: f64,
}

/// A laboratory's stain and scanner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Centre {
    /// Name, as in the CSV.
    pub name: String,
    /// Optical density of haematoxylin in red, green and blue.
    pub haematoxylin: [f64; 3],
    /// Optical density of eosin in red, green and blue.
    pub eosin: [f64; 3],
    /// Strength of eosin in stroma.
    pub eosin_strength: f64,
    /// Colour of the empty glass, 0 to 255.
    pub glass: [f64; 3],
}

impl CohortConfig {
    /// Lymph nodes with four classes, five slides of each patient, otherwise as in the [default](Self::default).
    #[must_use]
    pub fn node_stages() -> Self {
        Self {
            subject: Subject::NodeStages,
            ..Self::default()
        }
    }

    /// Tumours whose score is the density of mitotic figures.
    ///
    /// A tumour is one round sheet of large vesicular nuclei; a mitotic figure is a cluster of three clumps of chromatin with the same
    /// area, perimeter and second moment as a nucleus. The number of sites does not depend on the score.
    #[must_use]
    pub fn mitoses() -> Self {
        Self {
            subject: Subject::Mitoses {
                per_square_millimetre: [5.0, 85.0],
            },
            splits: SplitSizes {
                train: 320,
                validation: 0,
                test: 16,
            },
            edge_microns: [512.0, 576.0],
            anatomy: AnatomyConfig {
                regions: [1, 1],
                region_radius: [185.0, 195.0],
                nucleus_radius: [13.0, 0.8],
                // A lymphocyte looks like a third of a figure: with as many as in lymph nodes, their number would hide that of figures.
                lymphocytes_per_square_millimetre: [30.0, 60.0],
                histiocytes_per_square_millimetre: [5.0, 10.0],
                slide_looks: LooksConfig {
                    size: [0.9, 1.1],
                    density: [0.4, 1.0],
                    crowding: [0.9, 1.0],
                },
                region_looks: LooksConfig {
                    size: [1.0, 1.0],
                    density: [1.0, 1.0],
                    crowding: [1.0, 1.0],
                },
                ..AnatomyConfig::default()
            },
            ..Self::default()
        }
    }

    /// The same tissue in square sections of `edge` microns, with as many dense regions in a square millimetre. What has a size of its
    /// own (regions, nuclei, folds, pen marks) keeps it, so that a metastasis is the smaller a part of the slide, the larger that is.
    ///
    /// ```
    /// use stream_grad_train::cohort::CohortConfig;
    /// let large = CohortConfig::default().resized(8192.0);
    /// assert_eq!((large.edge_microns, large.anatomy.regions), ([8192.0; 2], [192, 320]));
    /// ```
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a few regions; a float to usize cast saturates"
    )]
    pub fn resized(mut self, edge: f64) -> Self {
        let [low, high] = self.edge_microns;
        let larger = (edge / (0.5 * (low + high))).powi(2);
        let scaled = |regions: usize| (regions as f64 * larger).round().max(1.0) as usize;
        self.anatomy.regions = self.anatomy.regions.map(scaled);
        self.edge_microns = [edge; 2];
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`TrainError::Setting`] naming the first that cannot be used.
    pub fn check(&self) -> Result<()> {
        let refuse = |name: &str, expected: &str, found: String| {
            Err(TrainError::setting(
                format!("cohort.{name}"),
                expected,
                found,
            ))
        };
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if !positive(self.microns_per_pixel) {
            return refuse(
                "microns_per_pixel",
                "a finite number above 0",
                self.microns_per_pixel.to_string(),
            );
        }
        if !positive(self.edge_step_microns) {
            return refuse(
                "edge_step_microns",
                "a finite number above 0",
                self.edge_step_microns.to_string(),
            );
        }
        if !(1..=100).contains(&self.jpeg_quality) {
            return refuse("jpeg_quality", "1 to 100", self.jpeg_quality.to_string());
        }
        if self.centres.is_empty() {
            return refuse("centres", "one or more", "none".to_owned());
        }
        let anatomy = &self.anatomy;
        self.check_subject()?;
        let ranges = [
            ("edge_microns", self.edge_microns),
            ("anatomy.region_radius", anatomy.region_radius),
            (
                "anatomy.lymphocytes_per_square_millimetre",
                anatomy.lymphocytes_per_square_millimetre,
            ),
            (
                "anatomy.histiocytes_per_square_millimetre",
                anatomy.histiocytes_per_square_millimetre,
            ),
            ("artefacts.fold_width", self.artefacts.fold_width),
            ("artefacts.pen_width", self.artefacts.pen_width),
            ("artefacts.edge_width", self.artefacts.edge_width),
            ("anatomy.slide_looks.size", anatomy.slide_looks.size),
            ("anatomy.slide_looks.density", anatomy.slide_looks.density),
            ("anatomy.slide_looks.crowding", anatomy.slide_looks.crowding),
            ("anatomy.region_looks.size", anatomy.region_looks.size),
            ("anatomy.region_looks.density", anatomy.region_looks.density),
            (
                "anatomy.region_looks.crowding",
                anatomy.region_looks.crowding,
            ),
        ];
        for (name, [low, high]) in ranges {
            if !(positive(low) && high.is_finite() && low <= high && high < 1e6) {
                return refuse(
                    name,
                    "two numbers above 0 and below 1e6, the smaller first",
                    format!("{low} and {high}"),
                );
            }
        }
        if anatomy.regions[0] == 0
            || anatomy.regions[0] > anatomy.regions[1]
            || anatomy.regions[1] > 1000
        {
            return refuse(
                "anatomy.regions",
                "two numbers from 1 to 1000, the smaller first",
                format!("{:?}", anatomy.regions),
            );
        }
        let [radius, deviation] = anatomy.nucleus_radius;
        if !positive(radius) || !(0.0..=radius).contains(&deviation) {
            return refuse(
                "anatomy.nucleus_radius",
                "a mean above 0 and a deviation of 0 up to it",
                format!("{radius} and {deviation}"),
            );
        }
        let [low, high] = anatomy.reactive_share;
        if !(0.0 <= low && low <= high && high <= 1.0) {
            return refuse(
                "anatomy.reactive_share",
                "two shares from 0 to 1, the smaller first",
                format!("{low} and {high}"),
            );
        }
        if !(0.0..0.25).contains(&anatomy.region_coverage) {
            return refuse(
                "anatomy.region_coverage",
                "a share from 0 to below 0.25",
                anatomy.region_coverage.to_string(),
            );
        }
        Ok(())
    }
}

impl CohortConfig {
    fn check_subject(&self) -> Result<()> {
        let SplitSizes {
            train,
            validation,
            test,
        } = self.splits;
        let whole = |slides: &usize| slides.is_multiple_of(SLIDES_OF_A_PATIENT);
        match self.subject {
            Subject::NodeStages if ![train, validation, test].iter().all(whole) => {
                Err(TrainError::setting(
                    "cohort.splits",
                    format!("multiples of {SLIDES_OF_A_PATIENT}, the slides of a patient"),
                    format!("{train}, {validation} and {test}"),
                ))
            }
            Subject::Mitoses {
                per_square_millimetre: [low, high],
            } if !(0.0 <= low && low <= high && high <= 1e6) => Err(TrainError::setting(
                "cohort.subject.per_square_millimetre",
                "two numbers from 0 to 1e6, the smaller first",
                format!("{low} and {high}"),
            )),
            _ => Ok(()),
        }
    }
}

impl Default for CohortConfig {
    fn default() -> Self {
        Self {
            subject: Subject::Metastasis,
            seed: 2022,
            splits: SplitSizes {
                train: 320,
                validation: 40,
                test: 160,
            },
            microns_per_pixel: 1.0,
            edge_microns: [960.0, 1088.0],
            edge_step_microns: 64.0,
            jpeg_quality: 90,
            anatomy: AnatomyConfig::default(),
            artefacts: ArtefactConfig::default(),
            centres: vec![
                centre(
                    "alder",
                    [0.65, 0.70, 0.29],
                    [0.07, 0.99, 0.11],
                    0.20,
                    [244.0, 243.0, 245.0],
                ),
                centre(
                    "birch",
                    [0.55, 0.76, 0.34],
                    [0.12, 0.80, 0.22],
                    0.24,
                    [238.0, 234.0, 238.0],
                ),
                centre(
                    "cedar",
                    [0.74, 0.62, 0.24],
                    [0.05, 0.90, 0.06],
                    0.16,
                    [247.0, 247.0, 247.0],
                ),
            ],
        }
    }
}

fn centre(
    name: &str,
    haematoxylin: [f64; 3],
    eosin: [f64; 3],
    eosin_strength: f64,
    glass: [f64; 3],
) -> Centre {
    Centre {
        name: name.to_owned(),
        haematoxylin,
        eosin,
        eosin_strength,
        glass,
    }
}

impl Default for AnatomyConfig {
    fn default() -> Self {
        Self {
            regions: [3, 5],
            region_radius: [70.0, 130.0],
            region_coverage: 0.20,
            nucleus_radius: [8.0, 0.6],
            lymphocytes_per_square_millimetre: [400.0, 900.0],
            histiocytes_per_square_millimetre: [10.0, 30.0],
            reactive_share: [0.0, 0.12],
            slide_looks: LooksConfig {
                size: [0.7, 1.3],
                density: [0.5, 1.0],
                crowding: [1.0, 1.0],
            },
            region_looks: LooksConfig {
                size: [0.8, 1.2],
                density: [0.6, 1.0],
                crowding: [0.6, 1.0],
            },
            disease: DiseaseChances {
                small: 0.05,
                micrometastasis: 0.20,
                several: 0.30,
                macrometastasis: 0.45,
            },
        }
    }
}

impl Default for ArtefactConfig {
    fn default() -> Self {
        Self {
            fold_chance: 0.3,
            fold_width: [12.0, 30.0],
            pen_chance: 0.2,
            pen_width: [15.0, 35.0],
            edge_width: [1.0, 3.0],
            sensor_noise: 1.5,
        }
    }
}
