//! From a slide's anatomy to its pixels, a band of rows at a time.

use std::ops::Range;

use super::anatomy::{Anatomy, Nucleus, Point, Stroke};

/// Width of the tissue's blurred edge in microns.
const TISSUE_EDGE: f64 = 6.0;

/// Paints bands of one slide. A pixel depends on its coordinates only.
#[derive(Debug)]
pub(super) struct Painter<'a> {
    anatomy: &'a Anatomy,
    microns_per_pixel: f64,
    sensor_noise: f64,
    height: u32,
    width: u32,
    /// Of the folds and of the pen marks, in their order.
    folds: Vec<Reach>,
    pen_marks: Vec<Reach>,
}

/// What covers one pixel.
#[derive(Debug, Clone, Copy, Default)]
struct Cover {
    coverage: f32,
    density: f32,
}

impl<'a> Painter<'a> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float to u32 cast saturates"
    )]
    pub(super) fn new(anatomy: &'a Anatomy, microns_per_pixel: f64, sensor_noise: f64) -> Self {
        let [height, width] = anatomy
            .extent
            .map(|edge| (edge / microns_per_pixel).round() as u32);
        Self {
            anatomy,
            microns_per_pixel,
            sensor_noise,
            height,
            width,
            folds: anatomy.folds.iter().map(Reach::of).collect(),
            pen_marks: anatomy
                .pen_marks
                .iter()
                .map(|mark| Reach::of(&mark.stroke))
                .collect(),
        }
    }

    /// Height of the slide in pixels.
    pub(super) fn height(&self) -> u32 {
        self.height
    }

    /// Width of the slide in pixels.
    pub(super) fn width(&self) -> u32 {
        self.width
    }

    /// Paints `rows` into `pixels` (RGB, row by row; it must hold that many rows).
    pub(super) fn paint(&self, rows: Range<u32>, pixels: &mut Vec<u8>) {
        pixels.clear();
        let covers = self.covers(&rows);
        let width = index(self.width);
        for (offset, row) in rows.enumerate() {
            for (column, cover) in
                (0..self.width).zip(&covers[offset * width..(offset + 1) * width])
            {
                pixels.extend(self.pixel(row, column, *cover));
            }
        }
    }

    fn point(&self, row: u32, column: u32) -> Point {
        Point {
            row: (f64::from(row) + 0.5) * self.microns_per_pixel,
            column: (f64::from(column) + 0.5) * self.microns_per_pixel,
        }
    }

    fn covers(&self, rows: &Range<u32>) -> Vec<Cover> {
        let width = index(self.width);
        let mut covers = vec![Cover::default(); index(rows.end - rows.start) * width];
        let edge = self.anatomy.edge.max(self.microns_per_pixel);
        for nucleus in &self.anatomy.nuclei {
            let reach =
                nucleus.radius * nucleus.elongation + self.anatomy.edge + self.microns_per_pixel;
            let across = self.pixels_within(nucleus.centre.column, reach, 0..self.width);
            for row in self.pixels_within(nucleus.centre.row, reach, rows.clone()) {
                let line = index(row - rows.start) * width;
                for column in across.clone() {
                    let coverage = coverage(nucleus, self.point(row, column), edge);
                    let cover = &mut covers[line + index(column)];
                    if coverage > cover.coverage {
                        *cover = Cover {
                            coverage,
                            density: single(nucleus.density),
                        };
                    }
                }
            }
        }
        covers
    }

    /// Pixels of `limits` whose centre lies within `reach` microns of `centre`, and perhaps one more on either side.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float to u32 cast saturates"
    )]
    fn pixels_within(&self, centre: f64, reach: f64, limits: Range<u32>) -> Range<u32> {
        let start = ((centre - reach) / self.microns_per_pixel).floor().max(0.0) as u32;
        let end = ((centre + reach) / self.microns_per_pixel).ceil().max(0.0) as u32;
        start.max(limits.start)..end.min(limits.end).max(start.max(limits.start))
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0..=255 before the cast"
    )]
    fn pixel(&self, row: u32, column: u32, cover: Cover) -> [u8; 3] {
        let anatomy = self.anatomy;
        let point = self.point(row, column);
        let mut light = self.through_tissue(point, cover);
        for (mark, reach) in anatomy.pen_marks.iter().zip(&self.pen_marks) {
            if !reach.holds(point) {
                continue;
            }
            let ink = stroke_coverage(&mark.stroke, point);
            for (light, transmittance) in light.iter_mut().zip(mark.transmittance) {
                *light *= 1.0 - ink + ink * transmittance;
            }
        }
        let noise = self.sensor_noise * pixel_noise(anatomy.texture_seed ^ 2, row, column);
        let mut colour = [0_u8; 3];
        for (channel, value) in colour.iter_mut().enumerate() {
            *value = (anatomy.glass[channel] * light[channel] + noise)
                .round()
                .clamp(0.0, 255.0) as u8;
        }
        colour
    }

    /// Share of each colour's light that comes through the tissue; all of it where there is none.
    fn through_tissue(&self, point: Point, cover: Cover) -> [f64; 3] {
        let anatomy = self.anatomy;
        let tissue = (anatomy.outline.depth(point) / TISSUE_EDGE + 0.5).clamp(0.0, 1.0);
        if tissue <= 0.0 {
            return [1.0; 3];
        }
        let place = [point.row, point.column];
        let texture = smooth_noise(anatomy.texture_seed, place, 24.0)
            + 0.5 * smooth_noise(anatomy.texture_seed ^ 1, place, 90.0);
        let eosin = 1.0 + 0.35 * texture;
        let folds = anatomy.folds.iter().zip(&self.folds);
        let folded = folds
            .filter(|(_, reach)| reach.holds(point))
            .map(|(fold, _)| stroke_coverage(fold, point))
            .fold(0.0, f64::max);
        let coverage = f64::from(cover.coverage);
        let mut light = [0.0; 3];
        for (channel, light) in light.iter_mut().enumerate() {
            let mut through = (-anatomy.eosin[channel] * eosin).exp();
            if coverage > 0.0 {
                let nucleus = (-f64::from(cover.density) * anatomy.haematoxylin[channel]).exp();
                // Mixing light, not densities, keeps the mean colour of a coarse pixel linear in the area covered.
                through *= 1.0 - coverage + coverage * nucleus;
            }
            let through = through * (1.0 - folded + folded * through);
            *light = 1.0 - tissue + tissue * through;
        }
        light
    }
}

/// The rectangle outside of which a stroke covers nothing: most pixels need not look at its points.
#[derive(Debug, Clone, Copy)]
struct Reach {
    rows: [f64; 2],
    columns: [f64; 2],
}

impl Reach {
    fn of(stroke: &Stroke) -> Self {
        let range = |value: fn(&Point) -> f64| {
            let values = stroke.points.iter().map(value);
            let low = values.clone().fold(f64::INFINITY, f64::min);
            let high = values.fold(f64::NEG_INFINITY, f64::max);
            // The edge ends at 1.2 half widths.
            [
                low - 1.25 * stroke.half_width,
                high + 1.25 * stroke.half_width,
            ]
        };
        Self {
            rows: range(|point| point.row),
            columns: range(|point| point.column),
        }
    }

    fn holds(&self, point: Point) -> bool {
        let within = |[low, high]: [f64; 2], value| low <= value && value <= high;
        within(self.rows, point.row) && within(self.columns, point.column)
    }
}

fn index(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is meant")]
fn single(value: f64) -> f32 {
    value as f32
}

/// Share of the pixel at `point` that `nucleus` covers, with a blurred edge of `edge` microns.
fn coverage(nucleus: &Nucleus, point: Point, edge: f64) -> f32 {
    let (sine, cosine) = nucleus.angle.sin_cos();
    let row = point.row - nucleus.centre.row;
    let column = point.column - nucleus.centre.column;
    let along = (column * cosine + row * sine) / nucleus.elongation;
    let across = (row * cosine - column * sine) * nucleus.elongation;
    let distance = along.hypot(across);
    let within = |radius: f64| ((radius - distance) / edge + 0.5).clamp(0.0, 1.0);
    let pale = if nucleus.pale_radius > 0.0 {
        within(nucleus.pale_radius)
    } else {
        0.0
    };
    single(within(nucleus.radius) - pale)
}

/// How much of a stroke lies over `point`: 1 in its middle, 0 outside, with an edge of a fifth of its width.
fn stroke_coverage(stroke: &Stroke, point: Point) -> f64 {
    let nearest = stroke
        .points
        .windows(2)
        .map(|ends| squared_distance_to_segment(point, ends[0], ends[1]))
        .fold(f64::INFINITY, f64::min)
        .sqrt();
    ((stroke.half_width - nearest) / (0.4 * stroke.half_width) + 0.5).clamp(0.0, 1.0)
}

fn squared_distance_to_segment(point: Point, start: Point, end: Point) -> f64 {
    let (rows, columns) = (end.row - start.row, end.column - start.column);
    let length = rows.powi(2) + columns.powi(2);
    let along = ((point.row - start.row) * rows + (point.column - start.column) * columns)
        / length.max(f64::MIN_POSITIVE);
    let along = along.clamp(0.0, 1.0);
    point.squared_distance(Point {
        row: start.row + along * rows,
        column: start.column + along * columns,
    })
}

/// SplitMix64's finaliser: a well-mixed function of its argument.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A value in -1..1 for a lattice point.
fn lattice(seed: u64, row: u32, column: u32) -> f64 {
    let hash = mix(seed ^ mix((u64::from(row) << 32) | u64::from(column)));
    f64::from(u32::try_from(hash >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX) * 2.0 - 1.0
}

/// Noise of unit variance for a pixel: the sum of three uniform values, close to a normal one.
fn pixel_noise(seed: u64, row: u32, column: u32) -> f64 {
    (0..3)
        .map(|part| lattice(seed.wrapping_add(part << 8), row, column))
        .sum()
}

/// Value noise: a lattice of `period` steps of the coordinates, interpolated smoothly.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "coordinates are not negative and the cast saturates"
)]
pub(super) fn smooth_noise(seed: u64, [row, column]: [f64; 2], period: f64) -> f64 {
    let (row, column) = (row / period, column / period);
    let (top, left) = (row.floor(), column.floor());
    let ease = |t: f64| t * t * (3.0 - 2.0 * t);
    let (down, right) = (ease(row - top), ease(column - left));
    let (top, left) = (top as u32, left as u32);
    let upper = lattice(seed, top, left) * (1.0 - right) + lattice(seed, top, left + 1) * right;
    let lower =
        lattice(seed, top + 1, left) * (1.0 - right) + lattice(seed, top + 1, left + 1) * right;
    upper * (1.0 - down) + lower * down
}
