//! What one slide holds, in microns: tissue, nuclei, folds and pen marks, drawn from the cohort's seed.

use std::f64::consts::{PI, TAU};

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use super::config::{AnatomyConfig, ArtefactConfig, CohortConfig, DiseaseChances, LooksConfig};
use crate::data::NodeStage;
use crate::error::{Result, TrainError};

/// Clear space around every region, in microns.
const REGION_GAP: f64 = 20.0;
/// Outer and inner radius of a large vesicular nucleus (a dark ring around a pale middle), and radius of each of the
/// three small nuclei of a cluster and their distance from its centre, as shares of the radius of a disc of the same
/// area. They solve three equations: ring and cluster have the same area, the same perimeter and the same second
/// moment. So mean colour, amount of edge and, where a pixel is larger than both, blurred shape agree.
const RING_OUTER: f64 = 2.0 * SMALL_NUCLEUS;
const RING_INNER: f64 = SMALL_NUCLEUS;
const SMALL_NUCLEUS: f64 = 0.577_350_269_189_625_8;
const CLUSTER_SPREAD: f64 = 0.816_496_580_927_726;
const MAX_ELONGATION: f64 = 1.1;
/// Distance from a cluster's centre to its outermost point, in the same shares.
const CLUSTER_REACH: f64 = CLUSTER_SPREAD + SMALL_NUCLEUS * MAX_ELONGATION;
/// Share of a nest's sites that are tumour.
const NEST_PURITY: f64 = 0.95;

/// A point in microns from the slide's upper left corner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub(super) row: f64,
    pub(super) column: f64,
}

impl Point {
    pub(super) fn squared_distance(self, other: Self) -> f64 {
        (self.row - other.row).powi(2) + (self.column - other.column).powi(2)
    }

    fn towards(self, angle: f64, distance: f64) -> Self {
        Self {
            row: self.row + distance * angle.sin(),
            column: self.column + distance * angle.cos(),
        }
    }
}

/// An elliptic nucleus; `elongation` keeps the area.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Nucleus {
    pub(super) centre: Point,
    pub(super) radius: f64,
    /// Radius of the pale middle; zero for a solid nucleus.
    pub(super) pale_radius: f64,
    pub(super) density: f64,
    pub(super) elongation: f64,
    pub(super) angle: f64,
}

/// A stroke of a pen or a fold: a line through `points`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stroke {
    pub(super) points: Vec<Point>,
    pub(super) half_width: f64,
}

/// A pen mark: a stroke and how much light of each colour it lets through.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PenMark {
    pub(super) stroke: Stroke,
    pub(super) transmittance: [f64; 3],
}

/// The outline of the tissue: radius as a function of the angle around `centre`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outline {
    pub(super) centre: Point,
    pub(super) half_axes: [f64; 2],
    pub(super) waves: [(f64, f64); 3],
}

impl Outline {
    /// About how far `point` lies inside the outline, in microns; negative outside.
    pub(super) fn depth(&self, point: Point) -> f64 {
        let row = (point.row - self.centre.row) / self.half_axes[0];
        let column = (point.column - self.centre.column) / self.half_axes[1];
        let angle = row.atan2(column);
        let wobble: f64 = (2_u8..)
            .zip(&self.waves)
            .map(|(order, (amplitude, phase))| amplitude * (f64::from(order) * angle + phase).sin())
            .sum();
        (1.0 + wobble - row.hypot(column)) * self.half_axes[0].min(self.half_axes[1])
    }
}

/// One slide before it is painted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Anatomy {
    /// Height and width in microns.
    pub(super) extent: [f64; 2],
    pub(super) outline: Outline,
    /// Sorted by the row of the centre.
    pub(super) nuclei: Vec<Nucleus>,
    pub(super) folds: Vec<Stroke>,
    pub(super) pen_marks: Vec<PenMark>,
    /// Optical density of haematoxylin and eosin (already scaled by the slide's own variation).
    pub(super) haematoxylin: [f64; 3],
    pub(super) eosin: [f64; 3],
    pub(super) glass: [f64; 3],
    /// Seed of textures that are functions of the coordinates.
    pub(super) texture_seed: u64,
    /// Width of a nucleus's blurred edge in microns: the scanner's focus.
    pub(super) edge: f64,
}

/// Extent of disease in one slide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disease {
    /// The upper half of one region.
    Small,
    /// One region.
    Micrometastasis,
    /// Half of the regions.
    Several,
    /// Every region but one.
    Macrometastasis,
}

/// What stands at a site of a dense region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One large vesicular nucleus.
    Large,
    /// Three small nuclei with the same area together.
    Cluster,
}

/// How nuclei look, as multiples of what is usual.
#[derive(Debug, Clone, Copy)]
struct Looks {
    size: f64,
    density: f64,
    crowding: f64,
}

impl Looks {
    fn draw(config: LooksConfig, rng: &mut ChaCha8Rng) -> Self {
        Self {
            size: uniform(config.size, rng),
            density: uniform(config.density, rng),
            crowding: uniform(config.crowding, rng),
        }
    }

    fn with(self, other: Self) -> Self {
        Self {
            size: self.size * other.size,
            density: self.density * other.density,
            crowding: self.crowding * other.crowding,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Site {
    centre: Point,
    radius: f64,
    density: f64,
}

/// What a slide is to show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Truth {
    /// A lymph node without tumour.
    Negative,
    /// A lymph node with tumour, of an extent that is drawn.
    Positive,
    /// A lymph node of this stage.
    Stage(NodeStage),
    /// A tumour with so many mitotic figures in a square millimetre of slide.
    Mitoses(f64),
}

impl Anatomy {
    /// Draws slide `index` of the cohort.
    pub(super) fn draw(
        config: &CohortConfig,
        index: u64,
        truth: Truth,
        centre: usize,
    ) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        rng.set_stream(index);
        let lab = config.centres.get(centre).ok_or_else(|| {
            TrainError::setting(
                "cohort.centres",
                format!("more than {centre} centres"),
                config.centres.len(),
            )
        })?;
        let extent = [draw_edge(config, &mut rng), draw_edge(config, &mut rng)];
        let outline = draw_outline(extent, &mut rng);
        let anatomy = &config.anatomy;
        let mut nuclei = scattered(anatomy, extent, &outline, &mut rng)?;
        let regions = match truth {
            Truth::Mitoses(_) => vec![sheet(anatomy, &outline, &mut rng)],
            _ => place_regions(anatomy, &outline, extent, &mut rng),
        };
        let radii = normal(anatomy.nucleus_radius)?;
        let looks = Looks::draw(anatomy.slide_looks, &mut rng);
        let sites: Vec<Vec<Site>> = regions
            .iter()
            .map(|region| {
                let looks = looks.with(Looks::draw(anatomy.region_looks, &mut rng));
                place_sites(anatomy, region, looks, &radii, &mut rng)
            })
            .collect();
        let kinds = match truth {
            Truth::Mitoses(density) => {
                mitoses(&sites, density * extent[0] * extent[1] * 1e-6, &mut rng)?
            }
            _ => arrange(anatomy, &sites, &regions, truth, &mut rng),
        };
        for (site, kind) in sites.iter().flatten().zip(kinds) {
            fill_site(site, kind, &mut nuclei, &mut rng);
        }
        nuclei.sort_by(|a, b| a.centre.row.total_cmp(&b.centre.row));
        let (folds, pen_marks) = draw_artefacts(&config.artefacts, extent, &outline, &mut rng);
        let shade = normal([1.0, 0.06])?;
        let strength = rng.random_range(0.9..1.1);
        let haematoxylin = lab
            .haematoxylin
            .map(|density| density * shade.sample(&mut rng) * strength);
        let eosin = lab
            .eosin
            .map(|density| density * shade.sample(&mut rng) * lab.eosin_strength);
        Ok(Self {
            extent,
            outline,
            nuclei,
            folds,
            pen_marks,
            haematoxylin,
            eosin,
            glass: lab.glass,
            texture_seed: rng.random(),
            edge: uniform(config.artefacts.edge_width, &mut rng),
        })
    }
}

fn normal([mean, deviation]: [f64; 2]) -> Result<Normal<f64>> {
    Normal::new(mean, deviation).map_err(|_| {
        TrainError::setting(
            "cohort",
            "a finite mean and a finite standard deviation",
            format!("{mean} and {deviation}"),
        )
    })
}

fn uniform([low, high]: [f64; 2], rng: &mut ChaCha8Rng) -> f64 {
    low + (high - low) * rng.random::<f64>()
}

fn draw_edge(config: &CohortConfig, rng: &mut ChaCha8Rng) -> f64 {
    let step = config.edge_step_microns;
    let [low, high] = config.edge_microns;
    let count = ((high - low) / step).floor() + 1.0;
    low + (rng.random::<f64>() * count).floor() * step
}

fn draw_outline(extent: [f64; 2], rng: &mut ChaCha8Rng) -> Outline {
    let half_axes = extent.map(|edge| edge * uniform([0.46, 0.50], rng));
    let centre = Point {
        row: extent[0] / 2.0,
        column: extent[1] / 2.0,
    };
    let waves =
        [0.06, 0.04, 0.03].map(|most| (uniform([0.0, most], rng), uniform([0.0, TAU], rng)));
    Outline {
        centre,
        half_axes,
        waves,
    }
}

fn draw_disease(chances: &DiseaseChances, rng: &mut ChaCha8Rng) -> Disease {
    let table = [
        (chances.small, Disease::Small),
        (chances.micrometastasis, Disease::Micrometastasis),
        (chances.several, Disease::Several),
        (chances.macrometastasis, Disease::Macrometastasis),
    ];
    table
        .choose_weighted(rng, |(chance, _)| *chance)
        .map_or(Disease::Macrometastasis, |(_, disease)| *disease)
}

/// What stands at every site, region after region: mostly large nuclei in nests, mostly clusters elsewhere.
fn arrange(
    anatomy: &AnatomyConfig,
    sites: &[Vec<Site>],
    regions: &[DenseRegion],
    truth: Truth,
    rng: &mut ChaCha8Rng,
) -> Vec<Kind> {
    // All classes draw the same numbers, so that everything drawn later is the same too.
    let drawn = draw_disease(&anatomy.disease, rng);
    let reactive_share = uniform(anatomy.reactive_share, rng);
    let disease = match (truth, drawn) {
        (Truth::Stage(NodeStage::Itc), _) => Disease::Small,
        (Truth::Stage(NodeStage::Micro), _) => Disease::Micrometastasis,
        (Truth::Stage(NodeStage::Macro), Disease::Small | Disease::Micrometastasis) => {
            Disease::Macrometastasis
        }
        _ => drawn,
    };
    let is_negative = matches!(truth, Truth::Negative | Truth::Stage(NodeStage::Negative));
    let nests = match disease {
        _ if is_negative => 0,
        Disease::Small | Disease::Micrometastasis => 1,
        Disease::Several => (regions.len() / 2).max(1),
        Disease::Macrometastasis => regions.len().saturating_sub(1).max(1),
    };
    let mut kinds = Vec::new();
    for (order, (region_sites, region)) in sites.iter().zip(regions).enumerate() {
        for site in region_sites {
            let upper = site.centre.row < region.centre.row;
            let inside = order < nests && (disease != Disease::Small || upper);
            let share = if inside { NEST_PURITY } else { reactive_share };
            let large = rng.random::<f64>() < share;
            kinds.push(if large { Kind::Large } else { Kind::Cluster });
        }
    }
    kinds
}

/// Resting nuclei at all sites but `figures`, which are drawn from all.
fn mitoses(sites: &[Vec<Site>], figures: f64, rng: &mut ChaCha8Rng) -> Result<Vec<Kind>> {
    let count: usize = sites.iter().map(Vec::len).sum();
    let mut kinds = vec![Kind::Large; count];
    let mut places: Vec<usize> = (0..count).collect();
    places.shuffle(rng);
    let mut wanted = figures.round();
    for place in places {
        if wanted < 1.0 {
            return Ok(kinds);
        }
        kinds[place] = Kind::Cluster;
        wanted -= 1.0;
    }
    // A slide that lacks figures would have a label that is not true.
    if wanted < 1.0 {
        return Ok(kinds);
    }
    Err(TrainError::setting(
        "cohort.subject.per_square_millimetre",
        format!("densities that the {count} sites of a slide have room for"),
        format!("{} mitotic figures", figures.round()),
    ))
}

/// Lone lymphocytes and histiocytes all over the tissue.
fn scattered(
    config: &AnatomyConfig,
    extent: [f64; 2],
    outline: &Outline,
    rng: &mut ChaCha8Rng,
) -> Result<Vec<Nucleus>> {
    let square_millimetres = extent[0] * extent[1] * 1e-6;
    let radii = normal(config.nucleus_radius)?;
    let mut nuclei = Vec::new();
    for (per_area, kind) in [
        (config.lymphocytes_per_square_millimetre, Kind::Cluster),
        (config.histiocytes_per_square_millimetre, Kind::Large),
    ] {
        let wanted = uniform(per_area, rng) * square_millimetres;
        let mut drawn = 0.0;
        while drawn < wanted {
            drawn += 1.0;
            let centre = Point {
                row: uniform([0.0, extent[0]], rng),
                column: uniform([0.0, extent[1]], rng),
            };
            let radius = radii.sample(rng).clamp(
                0.75 * config.nucleus_radius[0],
                1.25 * config.nucleus_radius[0],
            );
            let density = uniform([0.7, 1.0], rng);
            let nucleus = match kind {
                Kind::Large => large(centre, radius, density, rng),
                Kind::Cluster => small(centre, radius, density, rng),
            };
            if outline.depth(centre) > radius {
                nuclei.push(nucleus);
            }
        }
    }
    Ok(nuclei)
}

/// A large vesicular nucleus with the area of a disc of `radius`.
fn large(centre: Point, radius: f64, density: f64, rng: &mut ChaCha8Rng) -> Nucleus {
    let elongation = uniform([1.0, MAX_ELONGATION], rng);
    Nucleus {
        centre,
        radius: RING_OUTER * radius,
        pale_radius: RING_INNER * radius,
        density,
        elongation,
        angle: uniform([0.0, PI], rng),
    }
}

/// A small solid nucleus, a third of the area of a disc of `radius`.
fn small(centre: Point, radius: f64, density: f64, rng: &mut ChaCha8Rng) -> Nucleus {
    let elongation = uniform([1.0, MAX_ELONGATION], rng);
    Nucleus {
        centre,
        radius: SMALL_NUCLEUS * radius,
        pale_radius: 0.0,
        density,
        elongation,
        angle: uniform([0.0, PI], rng),
    }
}

#[derive(Debug, Clone, Copy)]
struct DenseRegion {
    centre: Point,
    radius: f64,
}

fn place_regions(
    config: &AnatomyConfig,
    outline: &Outline,
    extent: [f64; 2],
    rng: &mut ChaCha8Rng,
) -> Vec<DenseRegion> {
    let wanted = rng.random_range(config.regions[0]..=config.regions[1].max(config.regions[0]));
    let mut regions: Vec<DenseRegion> = Vec::with_capacity(wanted);
    let mut tries = 0;
    while regions.len() < wanted && tries < 400 * wanted {
        tries += 1;
        let radius = uniform(config.region_radius, rng);
        let centre = Point {
            row: uniform([0.0, extent[0]], rng),
            column: uniform([0.0, extent[1]], rng),
        };
        let clear = regions.iter().all(|other| {
            other.centre.squared_distance(centre) > (other.radius + radius + REGION_GAP).powi(2)
        });
        if clear && outline.depth(centre) > radius + REGION_GAP / 2.0 {
            regions.push(DenseRegion { centre, radius });
        }
    }
    regions
}

/// The one region of a tumour, in the middle of the tissue.
fn sheet(config: &AnatomyConfig, outline: &Outline, rng: &mut ChaCha8Rng) -> DenseRegion {
    DenseRegion {
        centre: outline.centre,
        radius: uniform(config.region_radius, rng),
    }
}

/// Sites in one region that keep clear of each other whatever stands at them.
fn place_sites(
    config: &AnatomyConfig,
    region: &DenseRegion,
    looks: Looks,
    radii: &Normal<f64>,
    rng: &mut ChaCha8Rng,
) -> Vec<Site> {
    let usual = config.nucleus_radius[0] * looks.size;
    let wanted = looks.crowding * config.region_coverage * (region.radius / usual).powi(2);
    let mut sites: Vec<Site> = Vec::new();
    let mut tries = 0.0;
    let mut placed = 0.0;
    while placed < wanted && tries < 60.0 * wanted {
        tries += 1.0;
        let centre = region.centre.towards(
            uniform([0.0, TAU], rng),
            region.radius * rng.random::<f64>().sqrt(),
        );
        let radius = (radii.sample(rng) * looks.size).clamp(0.75 * usual, 1.25 * usual);
        let clear = sites.iter().all(|other| {
            other.centre.squared_distance(centre)
                > (CLUSTER_REACH * (other.radius + radius)).powi(2)
        });
        if clear {
            let density = looks.density * uniform([0.7, 1.0], rng);
            sites.push(Site {
                centre,
                radius,
                density,
            });
            placed += 1.0;
        }
    }
    sites
}

fn fill_site(site: &Site, kind: Kind, nuclei: &mut Vec<Nucleus>, rng: &mut ChaCha8Rng) {
    match kind {
        Kind::Large => nuclei.push(large(site.centre, site.radius, site.density, rng)),
        Kind::Cluster => {
            let turn = uniform([0.0, TAU], rng);
            for third in 0..3_u8 {
                let centre = site.centre.towards(
                    turn + f64::from(third) * TAU / 3.0,
                    CLUSTER_SPREAD * site.radius,
                );
                nuclei.push(small(centre, site.radius, site.density, rng));
            }
        }
    }
}

fn draw_artefacts(
    config: &ArtefactConfig,
    extent: [f64; 2],
    outline: &Outline,
    rng: &mut ChaCha8Rng,
) -> (Vec<Stroke>, Vec<PenMark>) {
    let mut folds = Vec::new();
    if rng.random::<f64>() < config.fold_chance {
        let start = outline.centre.towards(
            uniform([0.0, TAU], rng),
            uniform([0.0, 0.3], rng) * extent[0],
        );
        folds.push(wander(
            start,
            uniform(config.fold_width, rng) / 2.0,
            0.25,
            rng,
        ));
    }
    let mut pen_marks = Vec::new();
    if rng.random::<f64>() < config.pen_chance {
        let angle = uniform([0.0, TAU], rng);
        let start = Point {
            row: outline.centre.row + 0.92 * outline.half_axes[0] * angle.sin(),
            column: outline.centre.column + 0.92 * outline.half_axes[1] * angle.cos(),
        };
        let inks = [[0.15, 0.25, 0.75], [0.15, 0.60, 0.30], [0.12, 0.12, 0.14]];
        let transmittance = inks.choose(rng).copied().unwrap_or(inks[0]);
        pen_marks.push(PenMark {
            stroke: wander(start, uniform(config.pen_width, rng) / 2.0, 0.35, rng),
            transmittance,
        });
    }
    (folds, pen_marks)
}

/// A line of 14 steps of 25 microns whose direction drifts by up to `turn` radians a step.
fn wander(start: Point, half_width: f64, turn: f64, rng: &mut ChaCha8Rng) -> Stroke {
    let mut direction = uniform([0.0, TAU], rng);
    let mut points = vec![start];
    let mut point = start;
    for _ in 0..14 {
        direction += uniform([-turn, turn], rng);
        point = point.towards(direction, 25.0);
        points.push(point);
    }
    Stroke { points, half_width }
}
